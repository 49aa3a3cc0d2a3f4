"""Whether confidences match accuracy.   Shapes: N images, K classes."""

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from fer_lightning.confidence import BINS, bins_of

LIMITS = (0.05, 20.0)  # of a temperature
THRESHOLDS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float | None:
    """The number to divide logits (N, K) by for the smallest log loss on targets (N,) (Guo et al., 2017, section 4.2).

    None if there is no best number: without any mistake, smaller is always better.
    """
    logits, rows = logits.astype(np.float64), np.arange(len(targets))

    def log_loss(log_temperature: float) -> float:
        return -log_softmax(logits / np.exp(log_temperature), axis=1)[rows, targets].mean()

    if (logits.argmax(axis=1) == targets).all():
        return None
    best = float(np.exp(minimize_scalar(log_loss, bounds=np.log(LIMITS), method="bounded").x))
    return best if LIMITS[0] * 1.01 < best < LIMITS[1] * 0.99 else None


def reliability(probabilities: np.ndarray, targets: np.ndarray) -> pd.DataFrame:
    """Images, mean confidence and accuracy in bins of confidence; empty bins are omitted."""
    confidences, hits = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    up_to = bins_of(confidences) / BINS
    table = pd.DataFrame({"up_to": up_to, "confidence": confidences, "accuracy": hits, "images": 1})
    return table.groupby("up_to", as_index=False).agg(
        {"images": "sum", "confidence": "mean", "accuracy": "mean"},
    )


def abstaining(probabilities: np.ndarray, targets: np.ndarray) -> pd.DataFrame:
    """For each confidence threshold, the share of images that are answered, and the accuracy of these answers."""
    confidences, hits = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    rows = []
    for threshold in THRESHOLDS:
        answered = confidences >= threshold
        accuracy = hits[answered].mean() if answered.any() else np.nan
        rows.append({"threshold": threshold, "coverage": answered.mean(), "accuracy": accuracy})
    return pd.DataFrame(rows)
