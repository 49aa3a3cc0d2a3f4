"""torchmetrics under the names of `result.json`.   Shapes: N batch, K classes."""

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
    MulticlassSpecificity,
)


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
        scores: dict[str, Metric] = {
            "acc": MulticlassAccuracy(num_classes, average="micro"),
            "acc_macro": MulticlassAccuracy(num_classes, average="macro"),
            "precision_macro": MulticlassPrecision(num_classes, average="macro"),
            "recall_macro": MulticlassRecall(num_classes, average="macro"),
            "specificity_macro": MulticlassSpecificity(num_classes, average="macro"),
            "f1_macro": MulticlassF1Score(num_classes, average="macro"),
            "f1_weighted": MulticlassF1Score(num_classes, average="weighted"),
        }
        if keep_predictions:
            scores["ece"] = MulticlassCalibrationError(num_classes, n_bins=15)
        self.stage = stage
        self.scores = MetricCollection(scores, prefix=f"{stage}/")
        self.confusion = MulticlassConfusionMatrix(num_classes)
        self.loss = MeanMetric()
        self.predictions = Predictions() if keep_predictions else None

    def update(self, loss: Tensor, logits: Tensor, targets: Tensor, indices: Tensor) -> None:
        """Take a batch: mean loss (), logits (N, K), targets (N,), indices (N,)."""
        logits = logits.detach().float()
        self.loss.update(loss.detach(), weight=len(targets))
        self.scores.update(logits, targets)
        self.confusion.update(logits, targets)
        if self.predictions is not None:
            self.predictions.update(indices, targets, logits)

    def compute(self) -> dict[str, Tensor]:
        """Scalars by name, over all processes."""
        return {f"{self.stage}/loss": self.loss.compute(), **self.scores.compute()}

    def reset(self) -> None:
        """Start a new epoch."""
        for metric in (self.loss, self.scores, self.confusion, self.predictions):
            if metric is not None:
                metric.reset()


class Predictions(Metric):
    """Every image's target and probabilities, gathered over batches and processes, in the order of their indices."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for state in ("indices", "targets", "probabilities"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, indices: Tensor, targets: Tensor, logits: Tensor) -> None:
        """Take a batch: indices (N,), targets (N,), logits (N, K)."""
        self.indices.append(indices)
        self.targets.append(targets)
        self.probabilities.append(logits.softmax(dim=1))

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Indices (N,), targets (N,) and probabilities (N, K) of everything seen."""
        indices, targets, probabilities = (
            torch.cat(state) if isinstance(state, list) else state
            for state in (self.indices, self.targets, self.probabilities)
        )
        order = indices.argsort()
        return indices[order], targets[order], probabilities[order]


def per_class_scores(confusion: Tensor, class_names: list[str]) -> dict[str, dict[str, float]]:
    """Precision, recall, specificity, F1 and support of each class, from counts (K, K), rows true, columns predicted.

    A ratio without a case (nothing predicted, nothing there) is 0, as in torchmetrics.
    """
    counts = confusion.double()
    hits, predicted, true, total = counts.diag(), counts.sum(0), counts.sum(1), counts.sum()

    def ratio(numerator: Tensor, denominator: Tensor) -> list[float]:
        return torch.where(denominator > 0, numerator / denominator.clamp(min=1), 0.0).tolist()

    columns = {
        "precision": ratio(hits, predicted),
        "recall": ratio(hits, true),
        "specificity": ratio(total - true - predicted + hits, total - true),
        "f1": ratio(2 * hits, true + predicted),
        "support": true.int().tolist(),
    }
    return {name: {key: column[i] for key, column in columns.items()} for i, name in enumerate(class_names)}
