"""Turning faces upright by their eyes."""

import math

import cv2
import numpy as np

from fer_lightning.inference.boxes import Box, iou, square_crop
from fer_lightning.inference.cascades import Cascades

SIDE = 120  # pixels to which a face is scaled for the eye search
UPPER = 0.6  # upper share of a face in which to search for eyes
MOST_DEGREES = 35.0  # largest tilt the frontal cascade still finds; above it, a mouth or a brow was taken for an eye


class EyeAligner:
    """Crops faces so that the line between the eyes is level; faces without two visible eyes are not turned."""

    def __init__(self) -> None:
        self._cascades = Cascades()

    def crop(self, image: np.ndarray, box: Box, *, margin: float = 0.0) -> np.ndarray:
        """Crop as `square_crop`, but rotated about the box's centre."""
        degrees = self.roll(image, box)
        if not degrees:
            return square_crop(image, box, margin=margin)
        side = max(1, round(max(box.width, box.height) * (1 + 2 * margin)))
        # No more of the image than the square's diagonal reaches: OpenCV turns none of more than 32,766 pixels a side.
        reach = math.ceil(side * math.sqrt(0.5)) + 2
        left, top = (max(0, math.floor(centre) - reach) for centre in box.centre)
        centre = np.array(box.centre) - (left, top)
        width, height = np.ceil(centre).astype(int) + reach
        turn = cv2.getRotationMatrix2D(centre, degrees, 1.0)
        turn[:, 2] += side / 2 - centre
        near = image[top : top + height, left : left + width]
        return cv2.warpAffine(near, turn, (side, side), borderMode=cv2.BORDER_REPLICATE)

    def roll(self, image: np.ndarray, box: Box) -> float:
        """Degrees by which the line between the eyes falls to the right; 0 if two eyes are not found."""
        face = cv2.resize(square_crop(image, box), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        gray = cv2.cvtColor(face, cv2.COLOR_BGR2GRAY)[: round(SIDE * UPPER)]
        boxes, _, scores = self._cascades["haarcascade_eye"].detectMultiScale3(
            gray, 1.1, 3, minSize=(SIDE // 7, SIDE // 7), maxSize=(SIDE // 2, SIDE // 2), outputRejectLevels=True
        )
        eyes = [Box(*map(float, eye), float(score)) for eye, score in zip(boxes, scores, strict=True)]
        eyes.sort(key=lambda eye: -eye.score)
        left = next((eye for eye in eyes if eye.centre[0] < SIDE / 2), None)
        right = next((eye for eye in eyes if eye.centre[0] >= SIDE / 2), None)
        if left is None or right is None or iou(left, right) > 0:
            return 0.0
        (x0, y0), (x1, y1) = left.centre, right.centre
        degrees = math.degrees(math.atan2(y1 - y0, x1 - x0))
        return degrees if abs(degrees) <= MOST_DEGREES else 0.0
