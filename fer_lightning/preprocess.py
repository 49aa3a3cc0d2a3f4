"""The one preprocessing of training, validation, test and prediction.

Shapes: N images, C channels, S the side in pixels.

It has two parts, because training augments between them: `prepare` turns any picture of a face into S x S bytes (which
the cache on disk holds), `finish` filters those bytes and scales them to the network's input. Validation, test and
prediction are exactly `finish(prepare(image))`; the settings are plain numbers and are stored in the checkpoint.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np

from fer_lightning.errors import InputError

MAX_CROP_MARGIN = 2  # of a model's face crops, on each side, as a fraction of a detector's box
SCALINGS = {"unit": (0.0, 1.0), "symmetric": (0.5, 0.5)}  # mean and standard deviation on the [0, 1] scale


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Convert to grey, resize, apply CLAHE, Gaussian and Laplacian filters, scale.

    Args:
        size: Side of the network's square input, in pixels.
        channels: 1 for grey, 3 for colour in OpenCV's order (blue, green, red).
        clahe: Clip limit of a contrast limited adaptive histogram equalisation in 4 x 4 tiles, applied to the
            brightness of colour images; None for no equalisation.
        gaussian_kernel: Side of a Gaussian filter applied after that, odd; None for no filter.
        laplacian: Sharpen after that by subtracting the Laplacian (MoodScope, section 3).
        scaling: `unit` gives [0, 1], `symmetric` [-1, 1], `standard` subtracts `mean` and divides by `std`.
        mean: Mean of the training pixels on the [0, 1] scale; the DataModule fills it in if `scaling` needs it.
        std: Standard deviation of the same pixels, filled in like `mean`.
    """

    size: int = 48
    channels: Literal[1, 3] = 1
    clahe: float | None = None
    gaussian_kernel: int | None = None
    laplacian: bool = False
    scaling: Literal["unit", "symmetric", "standard"] = "unit"
    mean: float | None = None
    std: float | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"preprocess.size must be at least 1 pixel, got {self.size}")
        if self.channels not in (1, 3):
            raise InputError(f"preprocess.channels must be 1 (grey) or 3 (colour), got {self.channels}")
        if self.gaussian_kernel is not None and (self.gaussian_kernel < 1 or self.gaussian_kernel % 2 == 0):
            raise InputError(
                f"preprocess.gaussian_kernel must be odd and positive, or null, got {self.gaussian_kernel}"
            )
        if self.clahe is not None and self.clahe <= 0:
            raise InputError(f"preprocess.clahe must be a positive clip limit, or null, got {self.clahe}")
        if self.scaling not in (*SCALINGS, "standard"):
            raise InputError(f"preprocess.scaling must be unit, symmetric or standard, got {self.scaling!r}")
        if not 0 <= (self.mean or 0) <= 1 or not 0 <= (self.std or 0) <= 1:
            raise InputError(
                "preprocess.mean and preprocess.std are those of pixels from 0 to 1: divide them by 255, got "
                f"mean={self.mean}, std={self.std}"
            )
        given = [value is not None for value in (self.mean, self.std)]
        if any(given) and not (all(given) and self.scaling == "standard"):
            raise InputError(
                "preprocess.mean and preprocess.std are set together, and with preprocess.scaling=standard; got "
                f"mean={self.mean}, std={self.std}, scaling={self.scaling}"
            )

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Map a picture, uint8 (H, W) grey or (H, W, 3) BGR, to uint8 (S, S) or (S, S, 3)."""
        if self.channels == 1 and image.ndim == 3:
            image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        elif self.channels == 3 and image.ndim == 2:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        if image.shape[:2] != (self.size, self.size):
            shrinks = min(image.shape[:2]) > self.size
            image = cv2.resize(
                image, (self.size, self.size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            )
        return image

    def filtered(self, image: np.ndarray) -> np.ndarray:
        """Equalise, smooth and sharpen one prepared picture, uint8 (S, S) or (S, S, 3), as the settings say."""
        if self.clahe is not None:
            image = _equalised(image, self.clahe)
        if self.gaussian_kernel is not None:
            # Sigma 0: OpenCV derives it from the kernel size, which alone sets the smoothing then.
            image = cv2.GaussianBlur(image, (self.gaussian_kernel, self.gaussian_kernel), 0)
        if self.laplacian:
            sharpened = image - cv2.Laplacian(image, cv2.CV_16S)
            image = np.clip(sharpened, 0, 255).astype(np.uint8)
        return image

    def finish(self, images: np.ndarray) -> np.ndarray:
        """Map prepared images, uint8 (N, S, S) or (N, S, S, 3), to float32 (N, C, S, S): filter and scale."""
        return self.scale(self.planes(images))

    def planes(self, images: np.ndarray) -> np.ndarray:
        """The first half of `finish`: filter prepared images and put channels first, uint8 (N, C, S, S)."""
        if self.filters:
            images = np.stack([self.filtered(image) for image in images])
        return images[:, None] if images.ndim == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2))

    def scale(self, planes: np.ndarray) -> np.ndarray:
        """The second half: map uint8 (N, C, S, S) to float32 of the same shape."""
        mean, std = self.mean_std
        return planes * np.float32(1 / (255 * std)) - np.float32(mean / std)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Map one picture to the network's input, float32 (1, C, S, S)."""
        return self.finish(self.prepare(image)[None])

    @property
    def filters(self) -> bool:
        """Whether `filtered` changes anything."""
        return self.clahe is not None or self.gaussian_kernel is not None or self.laplacian

    @property
    def lacks_statistics(self) -> bool:
        """Whether `fitted` needs images to compute mean and std."""
        return self.scaling == "standard" and (self.mean is None or self.std is None)

    def fitted(self, images: Iterable[np.ndarray]) -> "Preprocess":
        """Fill in `mean` and `std` from prepared training images if `scaling` is `standard` and they are not set.

        They are computed on the filtered images, since these are what is scaled.
        """
        if not self.lacks_statistics:
            return self
        counts = sum(np.bincount(self.filtered(image).reshape(-1), minlength=256) for image in images)
        levels = np.arange(256)
        # Whole numbers: the last digits of a sum of fractions depend on the processor, and runs are compared by them.
        pixels, total, squares = (int(counts @ levels**power) for power in range(3))
        deviation = math.sqrt(pixels * squares - total**2)
        return replace(self, mean=total / pixels / 255, std=deviation / pixels / 255)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint; `Preprocess(**data)` gives it back."""
        return asdict(self)

    def prepare_key(self) -> Mapping[str, Any]:
        """The settings that decide what `prepare` returns, and so whether a cache on disk is still valid."""
        return {"size": self.size, "channels": self.channels}

    @property
    def mean_std(self) -> tuple[float, float]:
        """The mean that `scale` subtracts from pixels on the [0, 1] scale, and the std it divides them by."""
        if self.scaling in SCALINGS:
            return SCALINGS[self.scaling]
        if self.mean is None or self.std is None:
            raise InputError("preprocess.scaling=standard needs a mean and a std: set both, or train to measure them")
        if self.std <= 0:
            raise InputError(f"preprocess.std must be positive, got {self.std}")
        return self.mean, self.std


def _equalised(image: np.ndarray, clip_limit: float) -> np.ndarray:
    equaliser = cv2.createCLAHE(clipLimit=clip_limit, tileGridSize=(4, 4))
    if image.ndim == 2:
        return equaliser.apply(image)
    image = cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb)
    image[..., 0] = equaliser.apply(image[..., 0])
    return cv2.cvtColor(image, cv2.COLOR_YCrCb2BGR)
