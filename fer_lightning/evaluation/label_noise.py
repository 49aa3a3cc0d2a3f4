"""Suspected label errors.   Shapes: N images, J classes."""

import numpy as np


def suspicious_labels(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Positions of images whose label the model contradicts confidently, most confident first (Northcutt et al., 2021).

    A class counts as claimed if its probability is at least its mean over the images with that label.
    """
    count = probabilities.shape[1]
    usual = np.array([probabilities[targets == k, k].mean() if (targets == k).any() else np.inf for k in range(count)])
    claimed = np.where(probabilities >= usual, probabilities, 0)
    rows, winner = np.arange(len(targets)), claimed.argmax(axis=1)
    answer = probabilities.argmax(axis=1)
    doubted = np.flatnonzero((claimed.max(axis=1) > 0) & (winner != targets) & (winner == answer))
    margin = probabilities[rows, winner] - probabilities[rows, targets]
    return doubted[np.argsort(-margin[doubted], kind="stable")]
