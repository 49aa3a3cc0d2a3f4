"""Scores of predictions with their intervals.   Shapes: N images, K classes, B weightings of the images.

One function computes every score of weighted images. For the estimate each image has weight 1; for a bootstrap resample
its weight is how often it was drawn. So thousands of resamples cost a few matrix products, and use the same formulas as
the estimate. The definitions are scikit-learn's, which the tests check.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from fer_lightning.confidence import BINS, bins_of

WITHOUT_INTERVAL = ("ece",)  # chance widens the gaps that it adds up, and resampling does so again
LEAST_UNITS = 10  # images or people: resamples of fewer are too much alike
BLOCK = 100  # resamples at a time, which limits the memory
LEAST = np.finfo(np.float64).eps  # lower bound of probabilities in the log loss, as in scikit-learn

OVERALL = {  # name -> meaning
    "acc": "accuracy: the most probable class is right",
    "balanced_acc": "balanced accuracy: mean recall of the classes that have images",
    "f1_macro": "F1, mean over classes",
    "f1_weighted": "F1, mean over classes, weighted by their images",
    "precision_macro": "precision, mean over classes",
    "recall_macro": "recall (sensitivity), mean over classes",
    "kappa": "Cohen's kappa: agreement beyond chance",
    "top2_acc": "the right class is among the two most probable",
    "auroc_macro": "area under the ROC curve, one against the rest, mean over classes",
    "auprc_macro": "average precision, one against the rest, mean over classes",
    "log_loss": "cross-entropy of the probabilities; lower is better",
    "brier": "Brier score, summed over classes (0 to 2); lower is better",
    "ece": f"expected calibration error, {BINS} bins; lower is better",
}
OF_CLASS = ("precision", "recall", "specificity", "f1", "auroc", "auprc")


class Score(NamedTuple):
    """A value with the limits of its 95 % interval; NaN if it has none."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "none"
        return f"{self.value:.3f}" if np.isnan(self.low) else f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def plain(self) -> dict[str, float | None]:
        """Plain data for JSON: None instead of NaN."""
        return {name: None if np.isnan(value) else float(value) for name, value in self._asdict().items()}


class Scores(NamedTuple):
    """Scores over all images, by name; and per class, by position: precision, recall, specificity, f1, auroc, ..."""

    overall: dict[str, Score]
    classes: list[dict[str, Score]]


def scores_with_intervals(
    probabilities: np.ndarray,
    targets: np.ndarray,
    *,
    units: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Scores:
    """Every score with its percentile bootstrap interval; `ece` without, since resamples are biased upwards.

    Fewer than ten units have no intervals, nor has a score that is the same in all resamples: that all of a few faces
    are right does not mean that the next will be.

    Args:
        probabilities: (N, K), rows adding up to 1.
        targets: int (N,).
        units: Unit of each image, (N,): images of one unit (a person, a recording) are drawn together; None draws
            single images.
        resamples: Number of bootstrap resamples; 0 omits the intervals.
        seed: Seed of the draws.
    """
    if not len(targets):
        nothing = Score(np.nan, np.nan, np.nan)
        return Scores(dict.fromkeys(OVERALL, nothing), [dict.fromkeys(OF_CLASS, nothing)] * probabilities.shape[1])
    answers = _Answers(probabilities, targets)
    point = answers.scores(np.ones((1, len(targets))))
    blocks = [answers.scores(weights) for weights in _resamples(len(targets), resamples, seed, units)]
    limits = {
        name: _limits(np.concatenate([value[:0], *(block[name] for block in blocks if name not in WITHOUT_INTERVAL)]))
        for name, value in point.items()
    }
    overall, classes = {}, [{} for _ in range(probabilities.shape[1])]
    for name, value in point.items():
        if value.ndim == 1:
            overall[name] = Score(value[0].item(), *(limit.item() for limit in limits[name]))
        else:
            for k, of_class in enumerate(classes):
                of_class[name] = Score(value[0, k].item(), *(limit[k].item() for limit in limits[name]))
    return Scores(overall, classes)


def _resamples(count: int, resamples: int, seed: int, units: np.ndarray | None) -> Iterator[np.ndarray]:
    """Weights of images in all resamples, a block at a time; none of too few units."""
    if len(np.unique(units) if units is not None else range(count)) < LEAST_UNITS:
        return
    generator = np.random.default_rng(seed)
    for done in range(0, resamples, BLOCK):
        yield resample_weights(count, min(BLOCK, resamples - done), generator, units=units)


def resample_weights(
    count: int, times: int, generator: np.random.Generator, *, units: np.ndarray | None = None
) -> np.ndarray:
    """How often each image is drawn in bootstrap resamples, float (times, count)."""
    if units is None:
        return generator.multinomial(count, np.full(count, 1 / count), size=times).astype(float)
    names, unit = np.unique(units, return_inverse=True)
    return generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=times)[:, unit].astype(float)


def mean_with_interval(
    values: np.ndarray, *, units: np.ndarray | None = None, resamples: int = 1000, seed: int = 0
) -> Score:
    """The mean of values (N,), with its bootstrap interval as above."""
    mean = float(values.mean())
    values = values.astype(float)
    means = [weights @ values / weights.sum(axis=1) for weights in _resamples(len(values), resamples, seed, units)]
    low, high = _limits(np.concatenate([np.empty(0), *means]))
    return Score(mean, float(low), float(high))


def plain(scores: Mapping[str, Score]) -> dict[str, Any]:
    """Scores by name, as plain data for JSON."""
    return {name: score.plain() for name, score in scores.items()}


def _limits(values: np.ndarray) -> np.ndarray:
    """The 2.5 and 97.5 percentiles over the first axis; NaN if half of the resamples have none, or all the same."""
    shape = (2, *values.shape[1:])
    known = np.isfinite(values).mean(axis=0) > 0.5 if len(values) else np.zeros(values.shape[1:], bool)
    result = np.full(shape, np.nan)
    if known.any():
        result[..., known] = np.nanpercentile(values[..., known], (2.5, 97.5), axis=0)
    result[:, result[0] == result[1]] = np.nan
    return result


class _Answers:
    """Everything that does not depend on the weights, prepared once."""

    def __init__(self, probabilities: np.ndarray, targets: np.ndarray) -> None:
        probabilities = np.asarray(probabilities, np.float64)
        count, classes = probabilities.shape
        predictions, rows = probabilities.argmax(axis=1), np.arange(count)
        of_target = probabilities[rows, targets]
        confidences = probabilities.max(axis=1)
        hits = predictions == targets
        self._classes = classes
        self._of_image = {  # scores that are a mean over images
            "acc": hits,
            "top2_acc": (np.argsort(-probabilities, axis=1, kind="stable")[:, :2] == targets[:, None]).any(axis=1),
            "log_loss": -np.log(np.maximum(of_target, LEAST)),
            "brier": (probabilities**2).sum(axis=1) - 2 * of_target + 1,
        }
        self._cells = _indicator(targets * classes + predictions, classes**2)
        # A class that is only ever predicted has an F1 of 0, also in resamples that leave its few predictions out.
        self._lacking = np.isin(range(classes), predictions) & ~np.isin(range(classes), targets)
        bins = _indicator(bins_of(confidences).astype(int) - 1, BINS)
        self._gaps = sparse.csr_array(bins.multiply((hits - confidences)[:, None]))
        self._rankings = [_Ranking(probabilities[:, k], targets == k) for k in range(classes)]

    def scores(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Scores by name, (B,) or per class (B, K), of images with weights (B, N)."""
        total = weights.sum(axis=1)
        confusion = (weights @ self._cells).reshape(-1, self._classes, self._classes)
        hits, true, predicted = np.einsum("bkk->bk", confusion), confusion.sum(axis=2), confusion.sum(axis=1)
        every = total[:, None]
        of_class = {
            "precision": _ratio(hits, predicted, where_none=0.0),
            "recall": _ratio(hits, true),
            "specificity": _ratio(every - true - predicted + hits, every - true),
            "f1": np.where(self._lacking, 0.0, _ratio(2 * hits, true + predicted)),
        }
        areas = [ranking.areas(weights) for ranking in self._rankings]
        of_class["auroc"], of_class["auprc"] = (np.stack(of_curve, axis=-1) for of_curve in zip(*areas, strict=True))
        means = {name: weights @ values / total for name, values in self._of_image.items()}
        chance = (true * predicted).sum(axis=1) / total**2
        # A class without images that is never predicted is not counted.
        asked = np.where((true + predicted > 0) | self._lacking, 1.0, np.nan)
        return {
            "acc": means.pop("acc"),
            "balanced_acc": _mean(of_class["recall"]),
            "f1_macro": _mean(of_class["f1"]),
            "f1_weighted": (np.nan_to_num(of_class["f1"]) * true).sum(axis=1) / total,
            "precision_macro": _mean(of_class["precision"] * asked),
            "recall_macro": _mean(np.nan_to_num(of_class["recall"]) * asked),
            "kappa": _ratio(hits.sum(axis=1) / total - chance, 1 - chance),
            **means,
            "ece": np.abs(weights @ self._gaps).sum(axis=1) / total,
            "auroc_macro": _mean(of_class["auroc"]),
            "auprc_macro": _mean(of_class["auprc"]),
            **of_class,
        }


class _Ranking:
    """Images sorted by one class's probability, for the areas under its two curves."""

    def __init__(self, scores: np.ndarray, positive: np.ndarray) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ordered = scores[self._order]
        self._starts = np.flatnonzero(np.r_[True, ordered[1:] < ordered[:-1]])  # of each group of equal scores
        self._positive = positive[self._order]

    def areas(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Area under the ROC curve, and average precision, each (B,); NaN without positives, the first also without
        negatives.
        """
        ordered = weights[:, self._order]
        positives = np.add.reduceat(ordered * self._positive, self._starts, axis=1)
        negatives = np.add.reduceat(ordered * ~self._positive, self._starts, axis=1)
        hits, misses = positives.cumsum(axis=1), negatives.cumsum(axis=1)
        beaten = misses[:, -1:] - misses + negatives / 2  # negatives ranked below, and half of those with equal scores
        precision = _ratio(hits, hits + misses, where_none=0.0)
        return (
            _ratio((positives * beaten).sum(axis=1), hits[:, -1] * misses[:, -1]),
            _ratio((positives * precision).sum(axis=1), hits[:, -1]),
        )


def _indicator(columns: np.ndarray, width: int) -> sparse.csr_array:
    """A sparse matrix (N, width) with a single 1 in each row."""
    rows = np.arange(len(columns))
    return sparse.csr_array((np.ones(len(columns)), (rows, columns)), shape=(len(columns), width))


def _ratio(part: np.ndarray, whole: np.ndarray, *, where_none: float = np.nan) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(part), where_none), where=whole > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the classes that have a number."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0).sum(axis=1), known.sum(axis=1))
