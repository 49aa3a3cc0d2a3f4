"""Classical classifiers, as scikit-learn pipelines from bytes to labels.   Shapes: N images, S side."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from skimage.feature import hog, local_binary_pattern
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from fer_lightning.errors import InputError

CELL = 8  # pixels; histograms are taken over cells of this side
LBP_NEIGHBOURS = 8


def knn(
    *, features: str, pca: int | None, neighbors: int, weights: Literal["uniform", "distance"], seed: int = 0
) -> Pipeline:
    """Classification by the nearest training images in feature space.

    Args:
        features: Key of `FEATURES`.
        pca: Number of principal components to keep; None keeps the features as they are.
        neighbors: Number of neighbours that vote.
        weights: `distance` gives nearer neighbours more weight.
        seed: Seed of the PCA's solver.
    """
    if neighbors < 1:
        raise InputError(f"model.neighbors must be at least 1, got {neighbors}")
    return _pipeline(features, pca, seed, KNeighborsClassifier(neighbors, weights=weights, n_jobs=-1))


def svm(
    *,
    features: str,
    pca: int | None,
    kernel: Literal["linear", "rbf"],
    C: float,
    seed: int = 0,
) -> Pipeline:
    """A support vector machine, one against one.

    Args:
        features: Key of `FEATURES`.
        pca: Number of principal components to keep; None keeps the features as they are.
        kernel: Kernel function; `rbf` uses scikit-learn's gamma, 1 / (dimensions x variance).
        C: Penalty for a training image on the wrong side of the margin.
        seed: Seed of the PCA's solver.
    """
    if C <= 0:
        raise InputError(f"model.C must be above 0, got {C}")
    return _pipeline(features, pca, seed, SVC(C=C, kernel=kernel, cache_size=1000))


def pixel_features(images: np.ndarray) -> np.ndarray:
    """The pixels on the [0, 1] scale."""
    return images.reshape(len(images), -1) / np.float32(255)


def hog_features(images: np.ndarray) -> np.ndarray:
    """Histograms of oriented gradients (Dalal and Triggs, 2005): 9 directions in cells of 8 pixels, blocks of 2 x 2."""
    colour = -1 if images.ndim == 4 else None
    rows = [hog(image, pixels_per_cell=(CELL, CELL), cells_per_block=(2, 2), channel_axis=colour) for image in images]
    return np.array(rows, np.float32)


def lbp_features(images: np.ndarray) -> np.ndarray:
    """Local binary patterns (Ahonen et al., 2006): histograms of the 59 uniform ones in cells of 8 pixels."""
    if images.ndim == 4:
        raise InputError("local binary patterns need grey images: use preprocess.channels=1, or model.features=hog")
    return np.array([_lbp(image) for image in images], np.float32)


FEATURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "pixels": pixel_features,
    "hog": hog_features,
    "lbp": lbp_features,
}


def _lbp(image: np.ndarray) -> np.ndarray:
    patterns = local_binary_pattern(image, LBP_NEIGHBOURS, 1, method="nri_uniform").astype(int)
    kinds = LBP_NEIGHBOURS * (LBP_NEIGHBOURS - 1) + 3
    cells = [
        patterns[top : top + CELL, left : left + CELL].ravel()
        for top in range(0, len(patterns) - CELL + 1, CELL)
        for left in range(0, patterns.shape[1] - CELL + 1, CELL)
    ]
    return np.concatenate([np.bincount(cell, minlength=kinds) / cell.size for cell in cells])


def _pipeline(features: str, pca: int | None, seed: int, classifier: Any) -> Pipeline:
    if features not in FEATURES:
        raise InputError(f"model.features must be {', '.join(FEATURES)}, got {features!r}")
    if pca is not None and pca < 1:
        raise InputError(f"model.pca must be at least 1 component, or null, got {pca}")
    reduction = [PCA(pca, random_state=seed)] if pca is not None else []
    return make_pipeline(FunctionTransformer(FEATURES[features]), StandardScaler(), *reduction, classifier)
