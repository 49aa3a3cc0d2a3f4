"""A model's scores by a column that the user gives, and how far apart the groups are."""

import pandas as pd

from fer_lightning.evaluation.measurement import Measurement

SHOWN = ("acc", "balanced_acc", "f1_macro")
FEW = 30  # images; what fewer say is left to their intervals


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
