"""Finding identical and nearly identical images.   Shapes: N images, S side in pixels."""

from typing import NamedTuple

import cv2
import numpy as np
from rich.progress import track
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

FLAGGED = "flagged.csv"  # the audit's list of images that have duplicates, or show nothing
SIDE = 24  # side in pixels at which images are compared: enough for a face, and insensitive to JPEG noise
ROUNDING = 1e-6  # by which the correlation of equal vectors may miss 1
MOST_AT_A_TIME = 2**25  # correlations, of which each takes 16 bytes
FLAT = 2.0  # standard deviation, of 255, below which an image shows nothing


class Pairs(NamedTuple):
    """Similar images: positions first < second, their correlation, and whether one mirrors the other; (P,) each."""

    first: np.ndarray
    second: np.ndarray
    correlation: np.ndarray
    mirrored: np.ndarray


def alike(images: np.ndarray, *, threshold: float) -> Pairs:
    """Find all pairs whose pixels correlate at least as much as `threshold`, as they are or mirrored.

    Every pair is compared, at 24 x 24 pixels, so none is missed; flat images match nothing.

    Args:
        images: uint8 (N, S, S) or BGR (N, S, S, 3).
        threshold: Smallest Pearson correlation, at most 1.
    """
    upright = _normalised(images)
    mirrored = _normalised(images[:, :, ::-1])
    found: list[tuple[np.ndarray, ...]] = []
    block = MOST_AT_A_TIME // max(len(images), 1) + 1  # images that are compared with all others at a time
    for start in track(range(0, len(images), block), description="Comparing"):
        stop = start + block
        straight = upright[start:stop] @ upright[start:].T
        turned = mirrored[start:stop] @ upright[start:].T
        best = np.triu(np.maximum(straight, turned), k=1)
        rows, columns = np.nonzero(best >= threshold - ROUNDING)
        is_turned = turned[rows, columns] > straight[rows, columns]
        found.append((rows + start, columns + start, best[rows, columns], is_turned))
    columns = [np.concatenate(parts) for parts in zip(*found, strict=True)] if found else [np.array([])] * 4
    dtypes = (np.int64, np.int64, np.float32, bool)
    return Pairs(*(column.astype(dtype) for column, dtype in zip(columns, dtypes, strict=True)))


def identical(digests: np.ndarray) -> Pairs:
    """Pair each image, flat ones too, with the first image that has the same digest, uint8 (N, 16)."""
    _, firsts, group = np.unique(digests, axis=0, return_index=True, return_inverse=True)
    first = firsts[group.reshape(-1)]
    second = np.flatnonzero(first != np.arange(len(digests)))
    return Pairs(first[second], second, np.ones(len(second), np.float32), np.zeros(len(second), bool))


def groups(pairs: Pairs, count: int) -> np.ndarray:
    """The group of each of `count` images, int64 (N,): images connected by a chain of pairs share a group."""
    graph = coo_array((np.ones(len(pairs.first)), (pairs.first, pairs.second)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def flat_images(images: np.ndarray) -> np.ndarray:
    """Positions of images that show almost nothing."""
    spread = images.reshape(len(images), images.shape[1] * images.shape[2], -1).std(axis=1)  # of each channel
    return np.flatnonzero(spread.max(axis=1) < FLAT)


def _normalised(images: np.ndarray) -> np.ndarray:
    """Small grey images of mean 0 and length 1, float32 (N, 576): dot products are correlations; flat ones are 0."""
    gray = (image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in images)
    small = np.array(
        [cv2.resize(np.ascontiguousarray(image), (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in gray]
    )
    vectors = small.reshape(len(small), -1).astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(lengths > FLAT * SIDE, vectors / np.maximum(lengths, 1), 0)
