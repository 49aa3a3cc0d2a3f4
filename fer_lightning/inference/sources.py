"""Sources of pictures: files, folders, patterns, videos, cameras and stdin, all as frames in order."""

import glob
import os
import re
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from fer_lightning.errors import InputError
from fer_lightning.images import IMAGE_SUFFIXES, BadImageError, decode_picture
from fer_lightning.text.file_names import is_utf8

VIDEO_SUFFIXES = {
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".vob", ".wmv", ".flv", ".ogv", ".3gp", ".3g2",
    ".ts", ".mts", ".m2ts",
}  # fmt: skip
# Photos that OpenCV does not decode: in a folder they are not passed over, but told as unreadable.
UNREADABLE_SUFFIXES = {".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".hif"}
ANY_FOLDER = re.compile(r"(?:^|(?<=/))\*\*(?:/|$)")  # as in photos/**/*.jpg
BOXED_SUFFIXES = {".mp4", ".m4v", ".mov", ".3gp", ".3g2"}  # films made of boxes, each of which begins with its size
FASTEST_FPS = 240  # a file of varying rate claims that of its clock, such as 1000
RESULTS = ("outputs", "predictions")  # what fer-predict has written below a folder is not among its pictures
DIGITS_OF_A_CAMERA = 4  # longer numbers are names of files
CAMERA_SILENCE_S = 5.0  # time without a frame after which a camera counts as lost


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One picture of a source.

    Attributes:
        source: The file name as given, `camera 0` or `-`.
        number: Frame number from 0; always 0 for a single picture.
        time_s: Seconds since the start of the video or camera; None for a picture.
        image: uint8 BGR (H, W, 3); None if it could not be read.
        problem: Why it could not be read, or which part was left out.
    """

    source: str
    number: int = 0
    time_s: float | None = None
    image: np.ndarray | None = None
    problem: str | None = None

    def without_image(self) -> "Frame":
        """The same frame without its pixels, to save memory."""
        return replace(self, image=None)


Load = Callable[[], Frame]  # decodes when it is called, in whichever thread


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source of frames.

    Attributes:
        name: Name in the table.
        kind: A picture, a file of frames, or frames as they happen.
        frames: Function that returns the frames from the beginning.
        count: Number of frames, if known.
        fps: Frames per second of a video or camera, if known.
    """

    name: str
    kind: Literal["image", "video", "camera"]
    frames: Callable[[], Iterator[Load]]
    count: int | None = 1
    fps: float | None = None

    @property
    def moving(self) -> bool:
        """Whether its frames follow each other in time."""
        return self.kind != "image"

    @property
    def live(self) -> bool:
        """Whether its frames come when they happen."""
        return self.kind == "camera"


def open_sources(names: Sequence[str], *, start: float | None = None) -> list[Source]:
    """Open the named sources: files, folders (searched recursively), glob patterns, camera numbers, `-`.

    Args:
        names: Names as on the command line; one that yields nothing becomes a source that says so.
        start: Start of the cameras' clocks, by `time.monotonic`; None starts each with its first frame.
    """
    sources = []
    for name in names:
        if name == "-":
            sources.append(Source(name="-", kind="image", frames=_stdin))
        elif name.isdecimal() and len(name) <= DIGITS_OF_A_CAMERA and not Path(name).exists():
            sources.append(open_camera(int(name), start=start))
        elif os.path.isdir(name):  # noqa: PTH112 - a Path raises where it may not look
            sources += _below(name) or [_unreadable(name, "holds no image or video")]
        elif not os.path.lexists(name) and glob.has_magic(name):
            sources += _matching(name) or [_unreadable(name, "matches no file")]
        else:
            sources.append(_file(name))
    return sources


def open_camera(number: int, *, start: float | None = None) -> Source:
    """A camera by its number; it always gives the newest frame, with times relative to `start`."""
    return Source(name=f"camera {number}", kind="camera", frames=lambda: _camera_frames(number, start), count=None)


def _below(folder: str) -> list[Source]:
    wanted = IMAGE_SUFFIXES | VIDEO_SUFFIXES | UNREADABLE_SUFFIXES
    sources: list[Source] = []
    refused: list[OSError] = []
    # Links to folders are not followed: they may lead in circles.
    for place, folders, names in os.walk(folder, onerror=refused.append):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and (Path(place).absolute().name, name) != RESULTS
        )
        pictures = (name for name in sorted(names) if Path(name).suffix.lower() in wanted and not name.startswith("."))
        sources += [_file(os.path.join(place, name)) for name in pictures]  # noqa: PTH118 - Path would drop the user's ./
    return sources + [_unreadable(error.filename, f"cannot be searched ({error.strerror})") for error in refused]


def _matching(pattern: str) -> list[Source]:
    def within_results(path: str) -> bool:
        return RESULTS in pairwise(Path(path).absolute().parts)

    paths = sorted(set(_matches(pattern)))
    if not within_results(pattern):
        paths = [path for path in paths if not within_results(path)]
    return [_file(path) for path in paths if os.path.isfile(path)]  # noqa: PTH113 - a Path raises where it may not look


def _matches(pattern: str) -> list[str]:
    """What a pattern matches; `**` is any folder below, but not through links, by which glob would go in circles."""
    if (stars := ANY_FOLDER.search(pattern)) is None:
        return glob.glob(pattern)  # noqa: PTH207 - a Path knows no absolute patterns
    above, below = pattern[: stars.start()], pattern[stars.end() :] or "*"
    found = []
    for top in glob.glob(above) if above else [""]:  # noqa: PTH207
        for place, folders, _ in os.walk(top or "."):
            folders[:] = [name for name in folders if not name.startswith(".")]
            folder = place if top else os.path.relpath(place)
            found += _matches(below if folder == "." else os.path.join(glob.escape(folder), below))  # noqa: PTH118
    return found


def _file(path: str) -> Source:
    if Path(path).suffix.lower() in VIDEO_SUFFIXES:
        return _video(path)
    return _image(path, Path(path).read_bytes)


def _unreadable(name: str, problem: str) -> Source:
    return Source(name=name, kind="image", frames=lambda: iter([lambda: Frame(source=name, problem=problem)]))


def _stdin() -> Iterator[Load]:
    data = sys.stdin.buffer.read()  # here, not in a thread of the pool, which Ctrl-C would not reach
    yield lambda: _read_image("-", lambda: data)


def _image(name: str, read: Callable[[], bytes]) -> Source:
    return Source(name=name, kind="image", frames=lambda: iter([lambda: _read_image(name, read)]))


def _read_image(name: str, read: Callable[[], bytes]) -> Frame:
    try:
        picture = decode_picture(read(), name)
    except OSError as error:
        return Frame(source=name, problem=f"cannot be read ({error.strerror or error})")
    except BadImageError as error:
        remedy = ": convert it to JPEG" if Path(name).suffix.lower() in UNREADABLE_SUFFIXES else ""
        return Frame(source=name, problem=f"{error.reason}{remedy}")
    return Frame(
        source=name,
        image=picture.image,
        problem="is animated: only its first picture was read" if picture.animated else None,
    )


def _video(path: str) -> Source:
    if not is_utf8(path):  # such a name would make OpenCV end the process
        problem = Frame(
            source=path, problem="has a name that is not valid UTF-8, under which no video opens: rename it"
        )
        return Source(name=path, kind="video", frames=lambda: iter([lambda: problem]))
    video = _open_film(path)
    count, fps = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), video.get(cv2.CAP_PROP_FPS)
    video.release()
    return Source(
        name=path,
        kind="video",
        frames=lambda: _video_frames(path),
        count=count if count > 0 else None,
        fps=fps if 0 < fps <= FASTEST_FPS else None,
    )


def _open_film(path: str) -> cv2.VideoCapture:
    # FFmpeg would take the 12: of 12:30.mp4 for a protocol, and fetch http: from the network.
    return cv2.VideoCapture(str(Path(path).absolute()))


def _video_frames(path: str) -> Iterator[Load]:
    video = _open_film(path)
    try:
        if not video.isOpened():
            yield lambda: Frame(source=path, problem=_why_no_video(path))
            return
        fps, counted = video.get(cv2.CAP_PROP_FPS), _is_counted(path)
        number, last_time = 0, -1.0
        while True:
            found, image = video.read()
            if not found:
                break
            time_s = video.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if time_s <= last_time:  # the file has no valid times: use its frame rate
                time_s = last_time + (1 / fps if fps > 0 else 1 / 25) if number else 0.0
            frame = Frame(source=path, number=number, time_s=time_s, image=image)
            yield lambda frame=frame: frame
            number, last_time = number + 1, time_s
        promised = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if counted else number
        # Files miscount by one or two frames, and with a varying rate they derive the count from the time.
        if number < promised - 2 and (fps <= 0 or last_time < (promised - 3) / fps):
            problem = f"ends after {number} of {promised} frames"
            yield lambda: Frame(source=path, number=number, time_s=max(last_time, 0.0), problem=problem)
        elif number == 0:
            yield lambda: Frame(source=path, problem="contains no frame that can be decoded")
    finally:
        video.release()


def _is_counted(path: str) -> bool:
    """Whether a film that gives fewer frames than OpenCV counts is cut.

    OpenCV derives most counts from the duration, which sound may lengthen. In a film made of boxes it also counts what
    an edit list hides: only one that ends within a box is cut.
    """
    suffix = Path(path).suffix.lower()
    return suffix == ".avi" or (suffix in BOXED_SUFFIXES and _ends_within_a_box(path))


def _ends_within_a_box(path: str) -> bool:
    with Path(path).open("rb") as film:
        place, end = 0, film.seek(0, os.SEEK_END)
        while place < end:
            film.seek(place)
            size, _, large = struct.unpack(">I4sQ", film.read(16).ljust(16, b"\0"))
            if size == 1:
                size = large
            if size < 8:  # 0: up to the end of the file; others are no sizes
                return False
            place += size
    return place > end


def _why_no_video(path: str) -> str:
    try:
        with Path(path).open("rb") as film:
            size = film.seek(0, os.SEEK_END)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return f"({size} bytes) does not open as a video"


def _camera_frames(number: int, start: float | None) -> Iterator[Load]:
    """Always the newest frame: frames that arrive during processing are dropped, so that no delay builds up."""
    camera = cv2.VideoCapture(number)
    if not camera.isOpened():
        camera.release()
        raise InputError(f"there is no camera {number}, or another program uses it: try another number")
    newest = _Newest(camera)
    try:
        number_of_frame, start = 0, time.monotonic() if start is None else start
        while (image := newest.take()) is not None:
            now = time.monotonic() - start
            frame = Frame(source=f"camera {number}", number=number_of_frame, time_s=now, image=image)
            yield lambda frame=frame: frame
            number_of_frame += 1
        yield lambda: Frame(
            source=f"camera {number}", number=number_of_frame, time_s=time.monotonic() - start, problem="was lost"
        )
    finally:
        newest.stop()


class _Newest:
    """Reads a camera in a separate thread and keeps only the latest frame."""

    def __init__(self, camera: cv2.VideoCapture) -> None:
        self._camera = camera
        self._image: np.ndarray | None = None
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def take(self) -> np.ndarray | None:
        """Wait for a frame that was not taken yet, and return it; None once the camera is lost."""
        with self._changed:
            self._changed.wait_for(lambda: self._image is not None or not self._open, timeout=CAMERA_SILENCE_S)
            image, self._image = self._image, None
            return image

    def stop(self) -> None:
        """Release the camera."""
        with self._changed:
            self._open = False
        self._thread.join(timeout=CAMERA_SILENCE_S)
        self._camera.release()

    def _read(self) -> None:
        while self._open:
            found, image = self._camera.read()
            with self._changed:
                self._open &= found
                self._image = image if found else self._image
                self._changed.notify()
