"""Bins of confidence, in which it is compared with accuracy."""

import numpy as np
from numpy.typing import ArrayLike

BINS = 15


def bins_of(confidences: ArrayLike) -> np.ndarray:
    """Map confidences from 0 to 1 to their bins, whole numbers from 1 to BINS; a bin's upper limit is part of it."""
    return np.clip(np.ceil(np.multiply(confidences, BINS)), 1, BINS)
