"""MTCNN (Zhang et al., 2016), which finds turned and tilted faces that cascades miss; needs the extra `mtcnn`."""

import threading

import numpy as np

from fer_lightning.errors import InputError
from fer_lightning.inference.boxes import MAX_SIDE, MIN_FACE, Box, largest_first, scaled_down, smallest_side

SMALLEST = 20  # pixels: the input size of its first network


class MtcnnDetector:
    """facenet-pytorch's MTCNN, whose weights come with that package.

    Args:
        min_face: Side of the smallest face, in pixels; up to 1, as a fraction of the picture's shorter side.
        max_side: Longest side of the picture in pixels; larger pictures are reduced.

    Raises:
        InputError: The extra is not installed.
    """

    def __init__(self, *, min_face: float = MIN_FACE, max_side: int = MAX_SIDE) -> None:
        try:
            from facenet_pytorch import MTCNN
        except ImportError as error:
            raise InputError(
                'detector mtcnn needs facenet-pytorch: pip install "fer-lightning[mtcnn]", or use --detector haar'
            ) from error
        self.min_face = min_face
        self.max_side = max_side
        self._mtcnn = MTCNN(keep_all=True, post_process=False, device="cpu")
        self._lock = threading.Lock()  # the smallest face is a setting of the shared network

    def detect(self, image: np.ndarray) -> list[Box]:
        """Boxes of the faces in a picture, uint8 BGR (H, W, 3), the largest first."""
        height, width = image.shape[:2]
        factor = min(1.0, self.max_side / max(height, width))
        smallest = max(SMALLEST, round(smallest_side(self.min_face, image) * factor))
        reduced = scaled_down(image, factor)
        if min(reduced.shape[:2]) <= smallest:  # its first network would see nothing
            return []
        with self._lock:
            self._mtcnn.min_face_size = smallest
            corners, scores = self._mtcnn.detect(np.ascontiguousarray(reduced[..., ::-1]))
        if corners is None:
            return []
        boxes = [
            Box(*map(float, (left, top, right - left, bottom - top, score))).scaled(1 / factor)
            for (left, top, right, bottom), score in zip(corners, scores, strict=True)
        ]
        return largest_first(boxes)
