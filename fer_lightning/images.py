"""Decoding of image files, the same for training and prediction."""

import io
import re
import warnings
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

from fer_lightning.errors import InputError

IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff", ".jp2", ".avif",
    ".pgm", ".ppm", ".pbm", ".pnm",
}  # fmt: skip

# Of a PGM or PPM: its letter, width and height, and what it calls white, with comments between them.
PNM_HEADER = re.compile(rb"P[2356](?:(?:\s|#[^\n]*\n)+\d+){2}(?:\s|#[^\n]*\n)+(\d{1,9})")

# Pillow warns just above its limit of pixels and raises far above it; here everything above is refused.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class BadImageError(InputError):
    """An image that cannot be decoded."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} {reason}")
        self.name = name
        self.reason = reason


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode the bytes of a JPEG, PNG or other image file to uint8 BGR (H, W, 3)."""
    try:
        if data[4:12] == b"ftypavif":
            image = _decode_avif(data)
        else:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (cv2.error, OSError, ValueError):  # no bytes at all, or a header that claims more pixels than OpenCV allows
        image = None
    if image is None:
        raise BadImageError(name, f"({len(data)} bytes) does not decode as an image")
    if _is_cut_short(data):
        raise BadImageError(name, f"({len(data)} bytes) is cut short")
    if (brightest := _brightest_value(data)) not in (255, 65535):
        raise BadImageError(name, f"calls {brightest} white, where 255 and 65535 can be read: save it as PNG")
    return image


def _decode_avif(data: bytes) -> np.ndarray:
    """Decode with Pillow: OpenCV does not turn an AVIF upright."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))[..., ::-1].copy()
    except Exception as error:  # Pillow's plugins raise whatever they meet in a damaged file
        raise ValueError(error) from error


def _is_cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end marker: older OpenCV decodes such a file without an error, the rest grey.

    The marker may be far from the file's end: phones may append a video to a photo.
    """
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in data
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data
    return False


def _brightest_value(data: bytes) -> int:
    """What a PGM or PPM calls white, by which OpenCV does not scale; 255 for all others."""
    header = PNM_HEADER.match(data)
    return int(header[1]) if header else 255


class Picture(NamedTuple):
    """A decoded file: uint8 BGR (H, W, 3), turned upright by its EXIF; `animated` if the file has several frames."""

    image: np.ndarray
    animated: bool


def decode_picture(data: bytes, name: str, *, most_pixels: int | None = None) -> Picture:
    """Decode a file from any source: the first frame of an animation, and no image larger than allowed.

    Args:
        data: Content of the file.
        name: Name of the file in errors.
        most_pixels: Limit of pixels, beside `PIL.Image.MAX_IMAGE_PIXELS`.

    Raises:
        BadImageError: It cannot be decoded, or has more pixels than the limit, which is checked before any memory is
            allocated for them.
    """
    limit = min((some for some in (most_pixels, Image.MAX_IMAGE_PIXELS) if some), default=None)
    width, height, animated = 0, 0, False
    option = "" if most_pixels else " (--max-pixels; in Python PIL.Image.MAX_IMAGE_PIXELS)"
    too_large = f"has more than {limit:,} pixels, the limit{option}" if limit else ""
    try:
        with Image.open(io.BytesIO(data)) as header:
            width, height = header.size
            # An MPO holds views of one scene from several lenses; some phones store plain photos in this format.
            animated = getattr(header, "is_animated", False) and header.format != "MPO"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImageError(name, too_large) from None
    except Exception as error:  # Pillow's plugins raise whatever they meet in a damaged file
        if limit:  # OpenCV might read it, whatever its size
            raise BadImageError(name, f"({len(data)} bytes) does not decode as an image") from error
    if limit and width * height > limit:
        raise BadImageError(name, too_large)
    return Picture(decode_image(data, name), animated)
