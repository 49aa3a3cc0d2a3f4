"""A model's scores by groups that the user gives, and the gaps between the groups."""

from collections.abc import Sequence

import pandas as pd

from fer_lightning.errors import InputError
from fer_lightning.evaluation.figures import groups_figure
from fer_lightning.evaluation.measurement import Measurement
from fer_lightning.evaluation.scores import Score
from fer_lightning.evaluation.section import Section

SHOWN = ("acc", "balanced_acc", "f1_macro")
FEW = 30  # images; smaller groups have intervals, but count for no gap


def groups_sections(measured: Measurement, path: str | None) -> list[Section]:
    """One section for each column of the user's file of groups."""
    if path is None:
        return []
    table = read_groups(path, [measured.datamodule.index.names[i] for i in measured.indices])
    return [_group_section(measured, table[column]) for column in table.columns]


def read_groups(path: str, names: Sequence[str]) -> pd.DataFrame:
    """The columns of a csv except `image`, with one row for each of `names`, in their order.

    Raises:
        InputError: The file cannot be read, lacks some of these images, or has a column that is not an identifier.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])  # NA and None may be groups
    except (OSError, ValueError) as error:
        raise InputError(f"groups={path} cannot be read as csv ({error})") from error
    if "image" not in table or len(table.columns) < 2:
        raise InputError(
            f"groups={path} has the columns {', '.join(table.columns)}: it needs image, and others with the groups"
        )
    if odd := [name for name in table.columns if not str(name).isidentifier()]:
        raise InputError(f"groups={path}: a column name must have letters, digits and _ only, got {odd[0]!r}")
    table = table.fillna("unknown").drop_duplicates()
    if (again := table["image"].duplicated()).any():
        raise InputError(f"groups={path} puts {table['image'][again.idxmax()]} in two groups: give it one row")
    table = table.set_index("image")
    if missing := [name for name in names if name not in table.index]:
        raise InputError(
            f"groups={path} lacks {len(missing):,} of {len(names):,} images, the first {missing[0]}: "
            "give each a row, with the group unknown if need be"
        )
    return table.loc[list(names)].reset_index(drop=True)


def _group_section(measured: Measurement, groups: pd.Series) -> Section:
    rows = scores_by_group(measured, groups)
    between = gaps(rows)
    said = ", ".join(f"{name} {gap:.3f}" for name, gap in between.items())
    facts = {
        row["group"]: {name: value.plain() if isinstance(value, Score) else value for name, value in row.items()}
        for row in rows.to_dict("records")
    }
    return Section(
        key=f"groups_{groups.name}",
        title=f"By {groups.name}",
        text=(
            f"Largest gaps between groups of at least {FEW} images: {said}."
            if between
            else f"Fewer than two groups have {FEW} images: no gap is given.",
            "A gap within the intervals may be chance, and no gap shows its cause. Means over classes leave out those "
            "that a group lacks, so groups of other classes are asked other questions.",
        ),
        tables={f"groups_{groups.name}": rows},
        figures={f"groups_{groups.name}": groups_figure(rows, str(groups.name))},
        facts={"gaps": between, "groups": facts},
    )


def scores_by_group(measured: Measurement, groups: pd.Series) -> pd.DataFrame:
    """One row per group, sorted by name: images, and each score with its interval; `groups` is (N,)."""
    rows = []
    for name in sorted(groups.unique()):
        mine = (groups == name).to_numpy()
        scores = measured.scores(rows=mine).overall
        rows.append({"group": name, "images": int(mine.sum())} | {score: scores[score] for score in SHOWN})
    return pd.DataFrame(rows)


def gaps(table: pd.DataFrame) -> dict[str, float]:
    """For each score, the best minus the worst group, among groups of at least `FEW` images; empty for one group."""
    enough = table[table.images >= FEW]
    if len(enough) < 2:
        return {}
    values = {score: [of_group.value for of_group in enough[score]] for score in SHOWN}
    return {score: max(of_groups) - min(of_groups) for score, of_groups in values.items()}
