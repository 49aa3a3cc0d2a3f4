"""Annotated pictures and videos on disk."""

import errno
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from fer_lightning.atomic import replacing
from fer_lightning.errors import InputError
from fer_lightning.inference.boxes import scaled_down
from fer_lightning.inference.drawing import annotate, anonymise
from fer_lightning.inference.predictor import Prediction
from fer_lightning.text.file_names import is_utf8, printable

LONGEST_SIDE = 65_500  # pixels, of a JPEG
LONGEST_FILM_SIDE = 8_190  # of MPEG-4


def annotated_frame(prediction: Prediction, *, anonymous: bool, bars: bool = False) -> np.ndarray:
    """A frame with its faces' boxes and labels, uint8 BGR (H, W, 3); `anonymous` hides the faces beneath."""
    image = prediction.frame.image
    if anonymous:
        image = anonymise(image, [face.box for face in prediction.faces])
    return annotate(image, prediction.faces, bars=bars)


def write_picture(path: Path, image: np.ndarray) -> None:
    """Encode in the format of the path's suffix, reduced if it is too long for a JPEG; OSError if the disk is full."""
    if (longest := max(image.shape[:2])) > LONGEST_SIDE:
        image = scaled_down(image, LONGEST_SIDE / longest)
    _, data = cv2.imencode(path.suffix, image)
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())


def video_size(image: np.ndarray) -> tuple[int, int]:
    """Width and height of a video that begins with this frame: codecs want them even, and not too large."""
    scale = min(1, LONGEST_FILM_SIDE / max(image.shape[:2]))
    width, height = (max(1, int(side * scale) // 2) * 2 for side in (image.shape[1], image.shape[0]))
    return width, height


def scaled_to(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A frame of this width and height."""
    return image if (image.shape[1], image.shape[0]) == size else cv2.resize(image, size)


class FilmWriter(Protocol):
    """Writes frames, uint8 BGR (H, W, 3), one after the other, to a file that is whole when it is closed."""

    def write(self, image: np.ndarray) -> None: ...

    def close(self) -> None: ...


class VideoWriter:
    """An MP4 that is playable whenever it is closed.

    Args:
        path: Path ending in .mp4.
        fps: Frames per second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        if not is_utf8(str(path)):
            name = printable(str(path))
            raise InputError(f"OpenCV cannot write a video to {name}, whose name is not UTF-8: choose another --output")
        self.path = path
        self._files = ExitStack()
        self._unfinished = path
        # MPEG-4 divides a second into at most 65,535 parts, and OpenCV writes a rate of three decimals in thousandths.
        self._fps = round(fps, 2) if fps > 65 else fps
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._written = 0

    def write(self, image: np.ndarray) -> None:
        """Append a frame; the first one's size is the video's, and others are scaled to it."""
        if self._writer is None:
            self._size = video_size(image)
            self._unfinished = self._files.enter_context(replacing(self.path.absolute()))
            self._writer = cv2.VideoWriter(
                str(self._unfinished),  # else FFmpeg takes a name's part before a colon for a protocol
                cv2.VideoWriter_fourcc(*"mp4v"),
                self._fps,
                self._size,
            )
            if not self._writer.isOpened():
                self._writer = None  # there is nothing to close
                raise InputError(f"OpenCV cannot write a video to {self.path}: choose another --output")
        self._writer.write(scaled_to(image, self._size))
        self._written += 1

    def close(self) -> None:
        """Finish the file; OSError if it lacks frames, as on a full disk, about which OpenCV itself says nothing."""
        if self._writer is None:
            return
        with self._files:
            self._writer.release()
            film = cv2.VideoCapture(str(self._unfinished))
            found = int(film.get(cv2.CAP_PROP_FRAME_COUNT))  # 0 if it does not open
            film.release()
            if found < self._written:
                lacks = f"{self.path.name} would hold {found} of its {self._written} frames"
                raise OSError(errno.ENOSPC, lacks, str(self.path))
