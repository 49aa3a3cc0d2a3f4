"""Rectangles around faces, in pixels of the image."""

from typing import NamedTuple

import cv2
import numpy as np

MIN_FACE = 0.1  # smallest face to look for by default, in the sense of `smallest_side`
MAX_SIDE = 1280  # longest side in pixels at which pictures are searched by default
OVERLAP = 0.3  # share of the smaller box from which two boxes are of one face


class Box(NamedTuple):
    """A face's rectangle: its upper left corner, its size, and the detector's score (on its own scale)."""

    x: float
    y: float
    width: float
    height: float
    score: float = 1.0

    def scaled(self, factor: float) -> "Box":
        """The same face in an image `factor` times as large."""
        return Box(self.x * factor, self.y * factor, self.width * factor, self.height * factor, self.score)

    @property
    def centre(self) -> tuple[float, float]:
        """The centre in pixels, x before y."""
        return self.x + self.width / 2, self.y + self.height / 2


def iou(a: Box, b: Box) -> float:
    """Intersection over union, 0 to 1."""
    shared = _intersection(a, b)
    return shared / (_area(a) + _area(b) - shared) if shared else 0.0


def largest_first(boxes: list[Box]) -> list[Box]:
    """By their area."""
    return sorted(boxes, key=_area, reverse=True)


def smallest_side(min_face: float, image: np.ndarray) -> float:
    """In pixels, of the faces to look for; `min_face` up to 1 is a fraction of the picture's shorter side."""
    return min_face if min_face > 1 else min_face * min(image.shape[:2])


def suppress(boxes: list[Box]) -> list[Box]:
    """Non-maximum suppression: of boxes that share more than `OVERLAP` of the smaller one, keep the first.

    The overlap is relative to the smaller box, not to the union, since a cascade also finds faces within a face.
    """
    kept: list[Box] = []
    for box in boxes:
        if all(_intersection(box, other) <= OVERLAP * min(_area(box), _area(other)) for other in kept):
            kept.append(box)
    return kept


def square_crop(image: np.ndarray, box: Box, *, margin: float = 0.0) -> np.ndarray:
    """The square around a box, wider on each side by `margin`; outside the image, edge pixels are repeated.

    Args:
        image: uint8 (H, W) or (H, W, 3).
        box: Box, whose longer side gives the square's side.
        margin: Margin on each side, as a fraction of that side.
    """
    side = max(1, round(max(box.width, box.height) * (1 + 2 * margin)))
    left, top = (round(centre - side / 2) for centre in box.centre)
    rows = np.clip(np.arange(top, top + side), 0, image.shape[0] - 1)
    columns = np.clip(np.arange(left, left + side), 0, image.shape[1] - 1)
    if rows[0] == top and rows[-1] == top + side - 1 and columns[0] == left and columns[-1] == left + side - 1:
        return image[top : top + side, left : left + side]
    return image[np.ix_(rows, columns)]


def scaled_down(image: np.ndarray, factor: float) -> np.ndarray:
    """An image (H, W) or (H, W, 3) reduced by a factor, to a pixel at least; a factor of 1 or more changes nothing."""
    if factor >= 1:
        return image
    height, width = image.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _area(box: Box) -> float:
    return box.width * box.height


def _intersection(a: Box, b: Box) -> float:
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    return max(width, 0.0) * max(height, 0.0)
