"""Face detectors."""

from typing import Literal, Protocol, get_args

import numpy as np

from fer_lightning.errors import InputError
from fer_lightning.inference.boxes import MAX_SIDE, MIN_FACE, Box
from fer_lightning.inference.haar import HaarDetector

DetectorName = Literal["haar", "mtcnn", "none"]
NAMES = get_args(DetectorName)


class Detector(Protocol):
    """Anything that finds faces. Several threads may call one detector at the same time."""

    def detect(self, image: np.ndarray) -> list[Box]:
        """Boxes of the faces in an image, uint8 BGR (H, W, 3), the largest first."""
        ...


class WholePicture:
    """For images that are already face crops: the whole image is the face."""

    def detect(self, image: np.ndarray) -> list[Box]:
        """One box around the whole image."""
        height, width = image.shape[:2]
        return [Box(0.0, 0.0, float(width), float(height))]


def create_detector(
    name: DetectorName, *, min_face: float = MIN_FACE, max_side: int = MAX_SIDE, profile: bool = False
) -> Detector:
    """Build a detector by its name; `none` treats each image as a face crop.

    Raises:
        InputError: A setting is out of range, or the detector does not have it.
    """
    if not min_face > 0:
        raise InputError(f"min_face must be above 0, got {min_face}")
    if profile and name != "haar":
        raise InputError(f"profile works only with detector haar, got {name}")
    if name == "none" and (min_face, max_side) != (MIN_FACE, MAX_SIDE):
        raise InputError("min_face and max_side are for the search for faces: detector none does not search")
    if name == "haar":
        return HaarDetector(min_face=min_face, max_side=max_side, profile=profile)
    if name == "mtcnn":
        from fer_lightning.inference.mtcnn import MtcnnDetector  # an extra, on torch

        return MtcnnDetector(min_face=min_face, max_side=max_side)
    if name == "none":
        return WholePicture()
    raise InputError(f"detector must be {', '.join(NAMES)}, got {name!r}")
