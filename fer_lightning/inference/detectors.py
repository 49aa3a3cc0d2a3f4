"""Where the faces are."""

import threading
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from fer_lightning.errors import InputError
from fer_lightning.inference.boxes import Box, suppress

NAMES = ("haar", "mtcnn", "none")
# The cascades' own windows are 24 (frontal) and 20 (profile) pixels wide. At 36 a reduced picture was seen to lose no
# face that the whole one shows; at 30 it lost some that are hardly larger than the smallest looked for.
SMALLEST = 36


class Detector(Protocol):
    """Anything that finds faces. Several threads call one detector at the same time."""

    def detect(self, image: np.ndarray) -> list[Box]:
        """Boxes of the faces in a picture, uint8 BGR (H, W, 3), the largest first."""
        ...


class HaarDetector:
    """Viola and Jones's cascades, as OpenCV carries them, on a reduced picture.

    The picture is reduced until the smallest face looked for is just large enough for the cascades: what a cascade
    costs falls with the square of that.

    Args:
        min_face: Side of the smallest face looked for: in pixels, or at most 1 as a fraction of the picture's shorter
            side.
        max_side: Longer side of the reduced picture at most, in pixels; a limit to the time taken, which may raise
            the smallest face found.
        profile: Look for faces seen from either side too, which takes three times as long.
        scale_factor: Between the sizes tried.
        min_neighbors: How many overlapping finds make a face.
    """

    def __init__(
        self,
        *,
        min_face: float = 0.1,
        max_side: int = 1280,
        profile: bool = False,
        scale_factor: float = 1.1,
        min_neighbors: int = 5,
    ) -> None:
        if not min_face > 0:
            raise InputError(f"min-face must be above 0, got {min_face}")
        if max_side < SMALLEST:
            raise InputError(f"max-side must be at least {SMALLEST} pixels, got {max_side}")
        self.min_face = min_face
        self.max_side = max_side
        self.profile = profile
        self.scale_factor = scale_factor
        self.min_neighbors = min_neighbors
        self._cascades = threading.local()  # a cascade keeps its scratch memory to itself

    def detect(self, image: np.ndarray) -> list[Box]:
        """Boxes of the faces in a picture, uint8 BGR (H, W, 3), the largest first."""
        gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        height, width = gray.shape
        smallest = self.min_face if self.min_face > 1 else self.min_face * min(height, width)
        factor = min(1.0, SMALLEST / smallest, self.max_side / max(height, width))
        if factor < 1:
            size = (max(1, round(width * factor)), max(1, round(height * factor)))
            gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
        window = max(1, round(smallest * factor))
        boxes = self._run("haarcascade_frontalface_default", gray, window)
        if self.profile:
            boxes += self._run("haarcascade_profileface", gray, window)
            mirrored = self._run("haarcascade_profileface", cv2.flip(gray, 1), window)
            boxes += [box._replace(x=gray.shape[1] - box.x - box.width) for box in mirrored]
        faces = [box.scaled(1 / factor) for box in suppress(boxes)]
        return sorted(faces, key=lambda box: -box.width * box.height)

    def _run(self, name: str, gray: np.ndarray, window: int) -> list[Box]:
        boxes, _, scores = self._cascade(name).detectMultiScale3(
            gray, self.scale_factor, self.min_neighbors, minSize=(window, window), outputRejectLevels=True
        )
        # Where there is none, OpenCV gives an empty tuple.
        found = [Box(*map(float, box), float(score)) for box, score in zip(boxes, scores, strict=True)]
        return sorted(found, key=lambda box: -box.score)

    def _cascade(self, name: str) -> cv2.CascadeClassifier:
        if not hasattr(self._cascades, name):
            path = Path(cv2.data.haarcascades) / f"{name}.xml"
            cascade = cv2.CascadeClassifier(str(path))
            if cascade.empty():  # OpenCV does not raise
                raise InputError(f"OpenCV has no cascade at {path}: install opencv-python>=4.12,<5 again")
            setattr(self._cascades, name, cascade)
        return getattr(self._cascades, name)


class WholePicture:
    """For pictures that are face crops already: the face is all of it."""

    def detect(self, image: np.ndarray) -> list[Box]:
        """One box around everything."""
        height, width = image.shape[:2]
        return [Box(0.0, 0.0, float(width), float(height))]


def create_detector(name: str, *, min_face: float = 0.1, max_side: int = 1280, profile: bool = False) -> Detector:
    """Build a detector by its name; `none` takes each picture for a face."""
    if name == "haar":
        return HaarDetector(min_face=min_face, max_side=max_side, profile=profile)
    if name == "mtcnn":
        from fer_lightning.inference.mtcnn import MtcnnDetector  # an extra, on torch

        return MtcnnDetector(min_face=min_face, max_side=max_side)
    if name == "none":
        return WholePicture()
    raise InputError(f"detector must be {', '.join(NAMES)}, got {name!r}")
