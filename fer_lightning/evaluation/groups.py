"""A model's scores by a column that the user gives, and how far apart the groups are."""

import pandas as pd

from fer_lightning.evaluation.figures import groups_figure
from fer_lightning.evaluation.measurement import Measurement
from fer_lightning.evaluation.scores import Score
from fer_lightning.evaluation.section import Section

SHOWN = ("acc", "balanced_acc", "f1_macro")
FEW = 30  # images; what fewer say is left to their intervals


def groups_sections(measured: Measurement) -> list[Section]:
    """One for each column of the user's file of groups."""
    table = measured.datamodule.groups_of(measured.indices)
    return [] if table is None else [_group_section(measured, table[column]) for column in table.columns]


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
            else f"Fewer than two groups have {FEW} images: no gap is told.",
            "A gap within the intervals may be chance; none says why it is there.",
        ),
        tables={f"groups_{groups.name}": rows},
        figures={f"groups_{groups.name}": groups_figure(rows, str(groups.name))},
        facts={"gaps": between, "groups": facts},
    )


def scores_by_group(measured: Measurement, groups: pd.Series) -> pd.DataFrame:
    """A row a group, in the order of their names: images, and each score with its interval; `groups` is (N,)."""
    rows = []
    for name in sorted(groups.unique()):
        mine = (groups == name).to_numpy()
        scores = measured.scores(rows=mine).overall
        rows.append({"group": name, "images": int(mine.sum())} | {score: scores[score] for score in SHOWN})
    return pd.DataFrame(rows)


def gaps(table: pd.DataFrame) -> dict[str, float]:
    """Of each score, the best group's minus the worst's, of groups of at least `FEW` images; empty for one group."""
    enough = table[table.images >= FEW]
    if len(enough) < 2:
        return {}
    values = {score: [of_group.value for of_group in enough[score]] for score in SHOWN}
    return {score: max(of_groups) - min(of_groups) for score, of_groups in values.items()}
