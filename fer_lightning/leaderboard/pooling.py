"""A metric of several runs as one number: folds pooled by their images, then the mean over seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from fer_lightning.confidence import bins_of
from fer_lightning.leaderboard.runs import Run


def pooled_score(runs: Sequence[Run], name: str) -> float | None:
    """Mean of a metric over seeds; None if a run lacks it.

    The folds of a seed are pooled: scores of classes and the calibration error are computed from the predictions of all
    folds together, since their means over folds are other numbers; accuracy, and all metrics without predictions.csv,
    are means over images.
    """
    if any(f"{run.stage}/{name}" not in run.metrics for run in runs):
        return None
    return float(np.mean(scores_of_seeds(runs, name)))


def scores_of_seeds(runs: Sequence[Run], name: str) -> list[float]:
    """The metric of each seed and split, in the order of the runs, with the folds of each pooled."""
    of_seed: dict[tuple[int | None, int | None], list[Run]] = {}
    for run in runs:
        of_seed.setdefault(run.repetition.of_folds, []).append(run)
    return [_pooled(folds, name) for folds in of_seed.values()]


def _pooled(folds: Sequence[Run], name: str) -> float:
    if name in OF_CLASSES and len(folds) > 1:
        tables = [run.predictions for run in folds]
        if all(table is not None for table in tables):
            return OF_CLASSES[name](_Classes.of(pd.concat(tables)))
    if name == "ece" and len(folds) > 1:
        tables = [run.confidences() for run in folds]
        if all(table is not None for table in tables):
            return _calibration_error(pd.concat(tables))
    values = [run.metrics[f"{run.stage}/{name}"] for run in folds]
    return float(np.average(values, weights=[run.count for run in folds]))


def _calibration_error(answers: pd.DataFrame) -> float:
    """Mean distance of confidence and accuracy in equally wide bins of confidence, as torchmetrics has it."""
    bins = bins_of(answers["confidence"])
    return float((answers["correct"] - answers["confidence"]).groupby(bins).sum().abs().sum() / len(answers))


class _Classes(NamedTuple):
    """Counts of images by class, of the classes that occur as target or prediction."""

    right: pd.Series
    targets: pd.Series
    given: pd.Series

    @classmethod
    def of(cls, predictions: pd.DataFrame) -> "_Classes":
        targets, given = predictions["target"].value_counts(), predictions["prediction"].value_counts()
        right = predictions.loc[predictions["correct"], "target"].value_counts()
        classes = targets.index.union(given.index)
        return cls(*(counts.reindex(classes, fill_value=0) for counts in (right, targets, given)))


def _f1(counts: _Classes) -> pd.Series:
    return counts.right / ((counts.targets + counts.given) / 2)


def _recall(counts: _Classes) -> float:
    return _mean(counts.right / counts.targets)


def _specificity(counts: _Classes) -> float:
    others = counts.targets.sum() - counts.targets
    return _mean((others - (counts.given - counts.right)) / others)


def _mean(ratios: pd.Series) -> float:
    return float(ratios.fillna(0).mean())


# As in torchmetrics: over classes that occur as target or prediction; a ratio of 0 by 0 is 0.
OF_CLASSES = {
    "acc_macro": _recall,
    "recall_macro": _recall,
    "precision_macro": lambda counts: _mean(counts.right / counts.given),
    "f1_macro": lambda counts: _mean(_f1(counts)),
    "f1_weighted": lambda counts: float((_f1(counts) * counts.targets).sum() / counts.targets.sum()),
    "specificity_macro": _specificity,
}
