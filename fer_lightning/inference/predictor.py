"""From images to faces with emotions.   Shapes: N faces, C channels, S side in pixels, K classes."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from fer_lightning.errors import InputError
from fer_lightning.images import decode_picture
from fer_lightning.inference.alignment import EyeAligner
from fer_lightning.inference.backends import Backend, Device, load_backend
from fer_lightning.inference.boxes import MAX_SIDE, MIN_FACE, Box, square_crop
from fer_lightning.inference.detectors import Detector, DetectorName, WholePicture, create_detector
from fer_lightning.inference.model_card import ModelCard
from fer_lightning.inference.model_file import find_model
from fer_lightning.inference.sources import Frame, Load, open_sources
from fer_lightning.machine.cores import usable_cores

MOST_BYTES = 100_000_000  # of pictures that wait for a batch


@dataclass(frozen=True, kw_only=True)
class Face:
    """A face and its expression.

    Attributes:
        box: Box in pixels of the picture; None if several views were fused.
        probabilities: Class name -> probability, in label order, adding up to 1.
        track: Number of the person within a video; None for pictures.
        raw_probabilities: Probabilities of this frame alone, if `probabilities` are smoothed over time; else None.
    """

    box: Box | None
    probabilities: dict[str, float]
    track: int | None = None
    raw_probabilities: dict[str, float] | None = None

    @property
    def emotion(self) -> str:
        """The most probable class."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    @property
    def confidence(self) -> float:
        """Its probability."""
        return self.probabilities[self.emotion]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The faces of one frame, the largest first; empty if it shows none or could not be read."""

    frame: Frame
    faces: list[Face]
    readable: bool = True


@dataclass(frozen=True)
class Found:
    """A frame after detection: its faces' boxes, and for each a prepared crop, uint8 (S, S) or (S, S, 3)."""

    frame: Frame
    boxes: list[Box]
    crops: list[np.ndarray]
    readable: bool = True


class Predictor:
    """Finds the faces in pictures and classifies their expressions.

    >>> from fer_lightning import Predictor
    >>> Predictor("outputs/runs/RUN").predict("photo.jpg")  # doctest: +SKIP
    [Face(box=Box(x=219.0, ...), probabilities={'angry': 0.01, ...}, ...)]

    Args:
        model: An ONNX model file, a checkpoint, or a run's folder; None uses the bundled model.
        detector: `haar`, `mtcnn`, `none` (each picture is a face crop), or your own detector.
        min_face: Smallest face to find, in pixels or as a fraction of the picture's shorter side.
        max_side: Longest side of the picture for the search, in pixels; larger pictures are reduced.
        profile: Also look for faces seen from the side.
        align: Turn faces upright by their eyes before classification.
        batch_size: Number of faces that the network processes together, from one or several pictures.
        workers: Threads for decoding and detection; None uses one per core.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        InputError: The model cannot be used, or a setting is out of range.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        detector: DetectorName | Detector = "haar",
        min_face: float = MIN_FACE,
        max_side: int = MAX_SIDE,
        profile: bool = False,
        align: bool = False,
        batch_size: int = 32,
        workers: int | None = None,
        device: Device = "auto",
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        if workers is not None and workers < 1:
            raise InputError(f"workers must be at least 1, got {workers}")
        self.model_path = find_model(model)
        self._backend: Backend = load_backend(self.model_path, device=device)
        if align and detector == "none":
            raise InputError("align needs a detector: detector none takes faces as they are")
        if isinstance(detector, str):
            detector = create_detector(detector, min_face=min_face, max_side=max_side, profile=profile)
        elif (min_face, max_side, profile) != (MIN_FACE, MAX_SIDE, False):
            raise InputError("min_face, max_side and profile are for this package's detectors: set them in your own")
        self._detector = detector
        self._crop = EyeAligner().crop if align else square_crop
        self.batch_size = batch_size
        self.workers = workers or usable_cores()

    def with_detector(self, detector: Detector) -> "Predictor":
        """A predictor with another detector and the same network, which is not loaded again."""
        other = copy(self)
        other._detector = detector
        return other

    @property
    def card(self) -> ModelCard:
        """The model's description of itself."""
        return self._backend.card

    def predict(self, image: np.ndarray | bytes | bytearray | memoryview | str | os.PathLike[str]) -> list[Face]:
        """The faces of one picture, the largest first.

        Args:
            image: uint8 BGR (H, W, 3) or grey (H, W), the content of a file, or its path.

        Raises:
            InputError: The file cannot be read, or the array has another type or shape.
        """
        if isinstance(image, np.ndarray):
            frame = Frame(source="array", image=_as_bgr(image))
        elif isinstance(image, bytes | bytearray | memoryview):
            frame = Frame(source="picture", image=decode_picture(bytes(image), "the picture").image)
        elif not isinstance(image, str | os.PathLike):
            raise InputError(f"a picture is a path, the content of a file or an array, got {type(image).__name__}")
        else:
            found = open_sources([str(image)])
            if len(found) != 1 or found[0].kind != "image":
                raise InputError(
                    f"{image} is not one picture: predict_all takes the frames of whatever open_sources finds"
                )
            frame = next(found[0].frames())()
        if frame.image is None:
            raise InputError(f"{frame.source} {frame.problem}")
        [prediction] = self.classify([self.find(frame, keep_image=False)])
        return prediction.faces

    def predict_all(
        self, frames: Iterable[Load], *, keep_images: bool = False, wait_for_batch: bool = True
    ) -> Iterator[Prediction]:
        """Predict on a stream of frames, in their order.

        Decoding, detection and the network run in parallel, and only a few frames are in memory at a time. With several
        workers OpenCV has one thread from then on, in the whole process.

        Args:
            frames: Frames of a Source.
            keep_images: Return each frame with its picture.
            wait_for_batch: Collect faces until a batch is full; for a camera, False shows frames without delay.
        """
        if self.workers > 1:
            # One core per worker: further threads within OpenCV's calls would only slow each other down.
            cv2.setNumThreads(1)

        def find(load: Load) -> Found:
            return self.find(load(), keep_image=keep_images)

        waiting: list[Found] = []
        for found in _in_order(find, frames, workers=self.workers, ahead=2 * self.workers if wait_for_batch else 0):
            waiting.append(found)
            if not wait_for_batch or self._is_full(waiting):
                yield from self.classify(waiting)
                waiting = []
        yield from self.classify(waiting)

    def _is_full(self, waiting: list[Found]) -> bool:
        """Whether there are enough faces for a batch, or too many frames or bytes without one."""
        faces = sum(len(each.boxes) for each in waiting)
        size = sum(each.frame.image.nbytes for each in waiting if each.frame.image is not None)
        return faces >= self.batch_size or len(waiting) >= 2 * self.batch_size or size > MOST_BYTES

    def find(self, frame: Frame, *, keep_image: bool = False) -> Found:
        """First half: find, crop and prepare the faces of a frame. Any thread may call it."""
        if frame.image is None:
            return Found(frame, [], [], readable=False)
        boxes = self._detector.detect(frame.image)
        return Found(frame if keep_image else frame.without_image(), boxes, self.crops(frame.image, boxes))

    def crops(self, image: np.ndarray, boxes: list[Box]) -> list[np.ndarray]:
        """The prepared crop of each box, uint8 (S, S) or (S, S, 3)."""
        card = self.card
        if isinstance(self._detector, WholePicture):
            return [card.preprocess.prepare(image)]
        return [card.preprocess.prepare(self._crop(image, box, margin=card.crop_margin)) for box in boxes]

    def classify(self, found: list[Found]) -> Iterator[Prediction]:
        """Second half: classify all faces of several frames, in full batches."""
        crops = [crop for each in found for crop in each.crops]
        probabilities = iter(self._probabilities(crops))
        for each in found:
            faces = [Face(box=box, probabilities=next(probabilities)) for box in each.boxes]
            yield Prediction(frame=each.frame, faces=faces, readable=each.readable)

    def _probabilities(self, crops: list[np.ndarray]) -> list[dict[str, float]]:
        """Probabilities of prepared crops, uint8 (S, S) or (S, S, 3)."""
        card = self.card
        rows: list[list[float]] = []
        for first in range(0, len(crops), self.batch_size):
            images = card.preprocess.finish(np.stack(crops[first : first + self.batch_size]))
            logits = self._backend.logits(images)
            if not np.isfinite(logits).all():  # the largest of them would be the first class
                raise InputError(f"{self.model_path} gives logits that are not finite: use another model")
            rows += softmax(logits / card.temperature).tolist()
        return [dict(zip(card.class_names, row, strict=True)) for row in rows]


def _in_order(function: Callable[[Load], Found], items: Iterable[Load], *, workers: int, ahead: int) -> Iterator[Found]:
    """Map in threads, up to `ahead` items beyond the current one, and yield the results in the items' order."""
    items = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        running: deque[Future[Found]] = deque()
        try:
            while True:
                running.extend(pool.submit(function, item) for item in islice(items, 1 + ahead - len(running)))
                if not running:
                    return
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in float64, since float32 rows would not add up to 1."""
    exponents = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def _as_bgr(image: np.ndarray) -> np.ndarray:
    if (
        image.dtype != np.uint8
        or image.ndim not in (2, 3)
        or (image.ndim == 3 and image.shape[2] != 3)
        or not image.size
    ):
        raise InputError(
            f"a picture must be uint8 of shape (H, W, 3), blue before red, or (H, W), got {image.dtype} {image.shape}"
        )
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image
