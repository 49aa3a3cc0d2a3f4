"""torchmetrics under the names of `result.json`.   Shapes: N batch, K classes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection, SumMetric
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
    MulticlassSpecificity,
)
from torchmetrics.functional.classification import multiclass_confusion_matrix

from fer_lightning.confidence import BINS


class Findings(NamedTuple):
    """One split's predictions: indices (N,), targets (N,), probabilities (N, K), counts (K, K), rows true.

    If they are `votes`, the probabilities are 0 or 1 and say nothing of confidence.
    """

    stage: str
    indices: np.ndarray
    targets: np.ndarray
    probabilities: np.ndarray
    confusion: np.ndarray
    votes: bool = False


def worst_mistakes(findings: Findings) -> np.ndarray:
    """Positions of the wrong predictions, the most confident first."""
    wrong = np.flatnonzero(findings.probabilities.argmax(axis=1) != findings.targets)
    return wrong[np.argsort(-findings.probabilities[wrong].max(axis=1), kind="stable")]


class Meter(nn.Module):
    """Everything measured on one split in one epoch.

    A step only stores its predictions; everything is computed from them at the end of the epoch. Scores of each
    step would cost as much as a small network's step on a GPU, and make it wait.

    Averages are always written out, since torchmetrics' defaults differ between spellings. `acc` is top-1 accuracy,
    `acc_macro` its mean over classes (the same number as `recall_macro`, under the name others give it).

    Args:
        stage: `train`, `val` or `test`; the prefix of every name.
        num_classes: K.
        calibration: Also measure how far confidences are from accuracies.
    """

    def __init__(self, stage: str, num_classes: int, *, calibration: bool) -> None:
        super().__init__()
        # No validation: FaceIndex has checked the targets. No synchronisation: the predictions are gathered already.
        settings = {"num_classes": num_classes, "validate_args": False, "sync_on_compute": False}
        scores: dict[str, Metric] = {
            "acc": MulticlassAccuracy(average="micro", **settings),
            "acc_macro": MulticlassAccuracy(average="macro", **settings),
            "precision_macro": MulticlassPrecision(average="macro", **settings),
            "recall_macro": MulticlassRecall(average="macro", **settings),
            "specificity_macro": MulticlassSpecificity(average="macro", **settings),
            "f1_macro": MulticlassF1Score(average="macro", **settings),
            "f1_weighted": MulticlassF1Score(average="weighted", **settings),
        }
        if calibration:
            scores["ece"] = MulticlassCalibrationError(n_bins=BINS, **settings)
        self.stage = stage
        self.num_classes = num_classes
        self.scores = MetricCollection(scores, prefix=f"{stage}/")
        # Not MeanMetric: it ignores weights when NaN is to pass through, and a diverged loss must be visible.
        self.loss_sum = SumMetric(nan_strategy="disable")
        self.predictions = Predictions()
        self._computed: dict[str, Tensor] | None = None  # several ask for it at the end of an epoch

    def update(self, loss: Tensor, logits: Tensor, targets: Tensor, indices: Tensor) -> None:
        """Add a batch: mean loss (), logits (N, K), targets (N,), indices (N,)."""
        self._computed = None
        self.loss_sum.update(loss.detach() * len(targets))
        # The calibration error would mistake logits that happen to lie in [0, 1] for probabilities.
        self.predictions.update(indices, targets, logits.detach().float().softmax(dim=1))

    @property
    def names(self) -> list[str]:
        """Names of the scalars that `compute` returns."""
        return [f"{self.stage}/loss", *self.scores.keys()]

    def compute(self) -> dict[str, Tensor]:
        """Scalars by name, over all processes; all of them must call it."""
        if self._computed is None:
            _, targets, probabilities = self._gathered()
            self.scores.reset()
            self.scores.update(probabilities, targets)
            loss = self.loss_sum.compute() / len(targets)
            self._computed = {f"{self.stage}/loss": loss, **self.scores.compute()}
        return self._computed

    def findings(self) -> "Findings":
        """Every prediction and the confusion matrix; all processes must call it, as it gathers from each."""
        indices, targets, probabilities = self._gathered()
        confusion = multiclass_confusion_matrix(probabilities, targets, self.num_classes, validate_args=False)
        return Findings(self.stage, *(part.cpu().numpy() for part in (indices, targets, probabilities, confusion)))

    def _gathered(self) -> tuple[Tensor, Tensor, Tensor]:
        indices, targets, probabilities = self.predictions.compute()
        # torchmetrics makes a tensor of one element a scalar: a split may be one image.
        return indices.reshape(-1), targets.reshape(-1), probabilities

    def reset(self) -> None:
        """Start a new epoch."""
        self._computed = None
        for metric in (self.loss_sum, self.scores, self.predictions):
            metric.reset()


class Predictions(Metric):
    """Every image's target and probabilities, gathered over batches and processes, in the order of their indices."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for state in ("indices", "targets", "probabilities"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, indices: Tensor, targets: Tensor, probabilities: Tensor) -> None:
        """Add a batch: indices (N,), targets (N,), probabilities (N, K)."""
        self.indices.append(indices)
        self.targets.append(targets)
        self.probabilities.append(probabilities)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Indices (N,), targets (N,) and probabilities (N, K) of all images seen."""
        indices, targets, probabilities = (
            torch.cat(state) if isinstance(state, list) else state
            for state in (self.indices, self.targets, self.probabilities)
        )
        order = indices.argsort()
        return indices[order], targets[order], probabilities[order]


def per_class_scores(confusion: np.ndarray, class_names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Precision, recall, specificity, F1 and support of each class, from counts (K, K), rows true, columns predicted.

    A ratio with a zero denominator (class never predicted, or without images) is 0, as in torchmetrics.
    """
    hits, predicted, true, total = confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1), confusion.sum()
    columns = {
        "precision": hits / np.maximum(predicted, 1),
        "recall": hits / np.maximum(true, 1),
        "specificity": (total - true - predicted + hits) / np.maximum(total - true, 1),
        "f1": 2 * hits / np.maximum(true + predicted, 1),
        "support": true,
    }
    return {name: {key: column[i].item() for key, column in columns.items()} for i, name in enumerate(class_names)}
