"""Several views of each image, over which probabilities are averaged.   Shapes: N images, S side in pixels."""

from collections.abc import Callable

import numpy as np

SHIFT = 2  # pixels, for images of 48

View = Callable[[np.ndarray], np.ndarray]  # of prepared images, uint8 (N, S, S) or (N, S, S, 3)


def _as_it_is(images: np.ndarray) -> np.ndarray:
    return images


def _mirrored(images: np.ndarray) -> np.ndarray:
    return images[:, :, ::-1]


def _moved(view: View, rows: int, columns: int) -> View:
    """The view moved by `rows` and `columns` steps of `SHIFT`, with edge pixels repeated."""

    def move(images: np.ndarray) -> np.ndarray:
        side = images.shape[1]
        by = max(1, round(SHIFT * side / 48))
        padded = np.pad(view(images), [(0, 0), (by, by), (by, by)] + [(0, 0)] * (images.ndim - 3), mode="edge")
        top, left = by * (1 + rows), by * (1 + columns)
        return padded[:, top : top + side, left : left + side]

    return move


_BOTH = (_as_it_is, _mirrored)
_STEPS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
# The image itself comes first.
VIEWS: dict[str, tuple[View, ...]] = {
    "none": (_as_it_is,),
    "flip": _BOTH,
    "flip_shift": tuple(_moved(view, *step) for view in _BOTH for step in _STEPS),
}
