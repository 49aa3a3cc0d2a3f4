"""A model's scores by groups that the user gives, and the gaps between the groups."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fer_lightning.errors import InputError
from fer_lightning.evaluation.figures import groups_figure
from fer_lightning.evaluation.measurement import Measurement
from fer_lightning.evaluation.scores import LEAST_UNITS, Score
from fer_lightning.evaluation.section import Section

SHOWN = ("acc", "balanced_acc", "f1_macro")
FEW = 30  # images; smaller groups count for no gap, nor those of fewer people than an interval needs
MOST = 50  # groups


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
        # NA and None may be groups; a comma at each line's end makes no column the index.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""], index_col=False)
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
    table = table.loc[list(names)].reset_index(drop=True)
    for column, count in table.nunique().items():
        if count > MOST:
            raise InputError(f"groups={path}: {column} has {count:,} values: put them into at most {MOST} ranges first")
    return table


def _group_section(measured: Measurement, groups: pd.Series) -> Section:
    rows = scores_by_group(measured, groups)
    between = gaps(rows)
    people = f" and {LEAST_UNITS} people" if measured.people is not None else ""
    said = ", ".join(f"{name} {gap:.3f}" for name, gap in between.items())
    facts = {
        row["group"]: {name: value.plain() if isinstance(value, Score) else value for name, value in row.items()}
        for row in rows.to_dict("records")
    }
    return Section(
        key=f"groups_{groups.name}",
        title=f"By {groups.name}",
        text=(
            f"Largest gaps between groups of at least {FEW} images{people}: {said}."
            if between
            else f"Fewer than two groups have {FEW} images{people}: no gap is given.",
            "A gap within the intervals may be chance, and no gap shows its cause. balanced_acc leaves out classes "
            "that a group lacks, and f1_macro counts one as 0 that is only predicted there: groups of other classes "
            "are asked other questions, and have no gap of f1_macro.",
        ),
        tables={f"groups_{groups.name}": rows},
        figures={f"groups_{groups.name}": groups_figure(rows, str(groups.name))},
        facts={"gaps": between, "groups": facts},
    )


def scores_by_group(measured: Measurement, groups: pd.Series) -> pd.DataFrame:
    """One row per group, in order: images, classes and people (if known), scores with intervals; `groups` is (N,)."""
    rows = []
    for name in _sorted(groups.unique()):
        mine = (groups == name).to_numpy()
        scores = measured.scores(rows=mine).overall
        counts = {"images": int(mine.sum()), "classes": len(np.unique(measured.targets[mine]))}
        if measured.people is not None:
            counts["people"] = len(np.unique(measured.people[mine]))
        rows.append({"group": name} | counts | {score: scores[score] for score in SHOWN})
    return pd.DataFrame(rows)


def _sorted(names: Sequence[str]) -> list[str]:
    """Names of groups in alphabetical order, or by their values if all but `unknown` are numbers."""
    numbers = pd.to_numeric(pd.Series(names), errors="coerce")
    if all(number == number or name == "unknown" for number, name in zip(numbers, names, strict=True)):
        return [name for _, name in sorted(zip(numbers.fillna(np.inf), names, strict=True))]
    return sorted(names)


def gaps(table: pd.DataFrame) -> dict[str, float]:
    """For each score, the best minus the worst group, among those of enough images and people; empty for one group.

    F1 averages over classes, and is compared only between groups of equally many.
    """
    enough = table[(table.images >= FEW) & (table.get("people", table.images) >= LEAST_UNITS)]
    if len(enough) < 2:
        return {}
    compared = [score for score in SHOWN if score != "f1_macro" or enough.classes.nunique() == 1]
    values = {score: [of_group.value for of_group in enough[score]] for score in compared}
    return {score: max(of_groups) - min(of_groups) for score, of_groups in values.items()}
