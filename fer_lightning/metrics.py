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
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
    MulticlassSpecificity,
)


class Findings(NamedTuple):
    """One split's predictions: indices (N,), targets (N,), probabilities (N, K), counts (K, K), rows true."""

    stage: str
    indices: np.ndarray
    targets: np.ndarray
    probabilities: np.ndarray
    confusion: np.ndarray


class Meter(nn.Module):
    """Everything measured on one split in one epoch.

    Averages are always written out, since torchmetrics' defaults differ between spellings. `acc` is top-1 accuracy,
    `acc_macro` its mean over classes (the same number as `recall_macro`, under the name others give it).

    Args:
        stage: `train`, `val` or `test`; the prefix of every name.
        num_classes: K.
        keep_predictions: Also keep every image's probabilities, and measure their calibration.
    """

    def __init__(self, stage: str, num_classes: int, *, keep_predictions: bool) -> None:
        super().__init__()
        # No validation: it would copy every batch back from a GPU, and FaceIndex has checked the targets.
        scores: dict[str, Metric] = {
            "acc": MulticlassAccuracy(num_classes, average="micro", validate_args=False),
            "acc_macro": MulticlassAccuracy(num_classes, average="macro", validate_args=False),
            "precision_macro": MulticlassPrecision(num_classes, average="macro", validate_args=False),
            "recall_macro": MulticlassRecall(num_classes, average="macro", validate_args=False),
            "specificity_macro": MulticlassSpecificity(num_classes, average="macro", validate_args=False),
            "f1_macro": MulticlassF1Score(num_classes, average="macro", validate_args=False),
            "f1_weighted": MulticlassF1Score(num_classes, average="weighted", validate_args=False),
        }
        if keep_predictions:
            scores["ece"] = MulticlassCalibrationError(num_classes, n_bins=15, validate_args=False)
        self.stage = stage
        self.scores = MetricCollection(scores, prefix=f"{stage}/")
        self.confusion = MulticlassConfusionMatrix(num_classes, validate_args=False)
        # Not MeanMetric: it ignores weights when NaN is to pass through, and a diverged loss must be visible.
        self.loss_sum = SumMetric(nan_strategy="disable")
        self.count = SumMetric(nan_strategy="disable")
        self.predictions = Predictions() if keep_predictions else None

    def update(self, loss: Tensor, logits: Tensor, targets: Tensor, indices: Tensor) -> None:
        """Add a batch: mean loss (), logits (N, K), targets (N,), indices (N,)."""
        # The calibration error would mistake logits that happen to lie in [0, 1] for probabilities.
        probabilities = logits.detach().float().softmax(dim=1)
        self.loss_sum.update(loss.detach() * len(targets))
        self.count.update(len(targets))
        self.scores.update(probabilities, targets)
        self.confusion.update(probabilities, targets)
        if self.predictions is not None:
            self.predictions.update(indices, targets, probabilities)

    @property
    def names(self) -> list[str]:
        """Names of the scalars that `compute` returns."""
        return [f"{self.stage}/loss", *self.scores.keys()]

    def compute(self) -> dict[str, Tensor]:
        """Scalars by name, over all processes."""
        return {f"{self.stage}/loss": self.loss_sum.compute() / self.count.compute(), **self.scores.compute()}

    def findings(self) -> "Findings":
        """Every prediction and the confusion matrix; all processes must call it, as it gathers from each."""
        indices, targets, probabilities = self.predictions.compute()
        # torchmetrics makes a tensor of one element a scalar: a split may be one image.
        tensors = (indices.reshape(-1), targets.reshape(-1), probabilities, self.confusion.compute())
        return Findings(self.stage, *(tensor.cpu().numpy() for tensor in tensors))

    def reset(self) -> None:
        """Start a new epoch."""
        for metric in (self.loss_sum, self.count, self.scores, self.confusion, self.predictions):
            if metric is not None:
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
