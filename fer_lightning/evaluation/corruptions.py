"""Typical image damage, at five strengths.   Shapes: S side in pixels.

Each function maps a prepared face, uint8 (S, S) or (S, S, 3), to another. The list is a selection from Hendrycks and
Dietterich (2019) of what happens to faces, with the two occlusions that matter for an expression.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

STRENGTHS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Corruption:
    """A kind of damage.

    Attributes:
        apply: Function of the image, an amount and a random generator.
        amounts: One amount per strength.
        unit: Unit of the amounts, in words.
    """

    apply: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
    amounts: tuple[float, float, float, float, float]
    unit: str

    def batch(self, images: np.ndarray, strength: int, generator: np.random.Generator) -> np.ndarray:
        """Damage images (N, S, S) or (N, S, S, 3), with random draws from the generator only."""
        return np.stack([self.apply(image, self.amounts[strength - 1], generator) for image in images])


def _blurred(image: np.ndarray, sigma: float, _: np.random.Generator) -> np.ndarray:
    sigma *= image.shape[0] / 48
    return cv2.GaussianBlur(image, (0, 0), sigma)


def _brightened(image: np.ndarray, factor: float, _: np.random.Generator) -> np.ndarray:
    return cv2.convertScaleAbs(image, alpha=factor)


def _flattened(image: np.ndarray, factor: float, _: np.random.Generator) -> np.ndarray:
    return np.clip(image.mean() + factor * (image - image.mean()), 0, 255).astype(np.uint8)


def _reduced(image: np.ndarray, side: float, _: np.random.Generator) -> np.ndarray:
    small = cv2.resize(image, (min(int(side), image.shape[1]),) * 2, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def _compressed(image: np.ndarray, quality: float, _: np.random.Generator) -> np.ndarray:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
    return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)


def _noisy(image: np.ndarray, sigma: float, generator: np.random.Generator) -> np.ndarray:
    return np.clip(image + generator.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


def _turned(image: np.ndarray, degrees: float, generator: np.random.Generator) -> np.ndarray:
    angle = degrees * generator.choice((-1, 1))
    side = image.shape[0]
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), angle, 1.0)
    return cv2.warpAffine(image, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)


def _covering(top: float, bottom: float) -> Callable[[np.ndarray, float, np.random.Generator], np.ndarray]:
    """Cover a band between two shares of the height, over a share of the width around the middle, with uniform grey."""

    def cover(image: np.ndarray, width: float, _: np.random.Generator) -> np.ndarray:
        side = image.shape[0]
        margin = round(side * (1 - width) / 2)
        covered = image.copy()
        covered[round(top * side) : round(bottom * side), margin : side - margin] = 128
        return covered

    return cover


WIDTHS = (0.3, 0.45, 0.6, 0.8, 1.0)
CORRUPTIONS = {
    "blur": Corruption(_blurred, (0.6, 1.0, 1.5, 2.0, 3.0), "sigma in 48ths of the side"),
    "darkness": Corruption(_brightened, (0.7, 0.5, 0.35, 0.2, 0.1), "share of the light"),
    "brightness": Corruption(_brightened, (1.3, 1.6, 2.0, 2.5, 3.5), "times the light"),
    "low contrast": Corruption(_flattened, (0.6, 0.4, 0.3, 0.2, 0.1), "share of the contrast"),
    "low resolution": Corruption(_reduced, (36, 30, 24, 16, 12), "side in pixels"),
    "JPEG": Corruption(_compressed, (60, 40, 25, 15, 8), "quality"),
    "noise": Corruption(_noisy, (5, 10, 18, 28, 40), "sigma, of 255"),
    "eyes covered": Corruption(_covering(0.22, 0.48), WIDTHS, "share of the width"),
    "mouth covered": Corruption(_covering(0.62, 0.92), WIDTHS, "share of the width"),
    "rotation": Corruption(_turned, (5, 10, 15, 25, 40), "degrees"),
}
