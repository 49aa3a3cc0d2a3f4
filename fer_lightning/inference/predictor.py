"""From pictures to faces with emotions.   Shapes: N faces, C channels, S side in pixels, K classes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from fer_lightning.cores import usable_cores
from fer_lightning.errors import InputError
from fer_lightning.inference.alignment import EyeAligner
from fer_lightning.inference.backends import Backend, Device, load_backend
from fer_lightning.inference.boxes import Box, square_crop
from fer_lightning.inference.detectors import Detector, DetectorName, WholePicture, create_detector
from fer_lightning.inference.model_card import ModelCard
from fer_lightning.inference.model_file import find_model
from fer_lightning.inference.sources import Frame, Load, open_sources


@dataclass(frozen=True, kw_only=True)
class Face:
    """A face and its expression.

    Attributes:
        box: In pixels of the picture; None where several views were brought together.
        probabilities: Class name -> probability, in label order, adding up to 1.
        track: Number of the person within a video; None for pictures.
        raw_probabilities: Of this frame alone, where `probabilities` are smoothed over time; else None.
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
    """The faces of one frame, the largest first; none where it shows none or could not be read."""

    frame: Frame
    faces: list[Face]
    readable: bool = True


@dataclass(frozen=True)
class Found:
    """A frame on its way: its faces' boxes, and for each a prepared crop, uint8 (S, S) or (S, S, 3)."""

    frame: Frame
    boxes: list[Box]
    crops: list[np.ndarray]
    readable: bool = True


class Predictor:
    """Finds the faces of pictures and reads their expressions.

    >>> from fer_lightning import Predictor
    >>> Predictor("outputs/runs/RUN").predict("photo.jpg")  # doctest: +SKIP
    [Face(box=Box(x=219.0, ...), probabilities={'angry': 0.01, ...}, ...)]

    Args:
        model: An ONNX model file, a checkpoint, or a run's folder; None takes the one that comes with the package.
        detector: `haar`, `mtcnn`, `none` (each picture is a face crop), or one of your own.
        min_face: Smallest face looked for, in pixels or as a fraction of the picture's shorter side.
        max_side: Longest side of the picture that is searched, in pixels; larger ones are reduced.
        profile: Look for faces from the side too.
        align: Turn faces upright by their eyes before they are read.
        batch_size: Faces that go through the network together, of one picture or of several.
        workers: Threads that decode and detect; None takes one a core.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        InputError: The model cannot be used, or a setting is out of range.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        detector: DetectorName | Detector = "haar",
        min_face: float = 0.1,
        max_side: int = 1280,
        profile: bool = False,
        align: bool = False,
        batch_size: int = 32,
        workers: int | None = None,
        device: Device = "auto",
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch-size must be at least 1, got {batch_size}")
        if workers is not None and workers < 1:
            raise InputError(f"workers must be at least 1, got {workers}")
        self.model_path = find_model(model)
        self._backend: Backend = load_backend(self.model_path, device=device)
        if isinstance(detector, str):
            detector = create_detector(detector, min_face=min_face, max_side=max_side, profile=profile)
        self._detector = detector
        self._crop = EyeAligner().crop if align else square_crop
        self.batch_size = batch_size
        self.workers = workers or usable_cores()

    @property
    def card(self) -> ModelCard:
        """What the model says of itself."""
        return self._backend.card

    def predict(self, image: np.ndarray | str | Path) -> list[Face]:
        """The faces of one picture, the largest first.

        Args:
            image: uint8 BGR (H, W, 3) or gray (H, W), or the path of a file.

        Raises:
            InputError: The file cannot be read, or the array is something else.
        """
        if isinstance(image, np.ndarray):
            frame = Frame(source="array", image=_as_bgr(image))
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
        """Predict on a stream of frames, in its order.

        Decoding, detection and the network overlap, and only a few frames are in memory at a time.

        Args:
            frames: As a Source gives them.
            keep_images: Give each frame back with its picture.
            wait_for_batch: Collect faces until a batch is full; a camera's frames are better shown at once.
        """
        if self.workers > 1:
            cv2.setNumThreads(1)  # a core each: threads within OpenCV's calls would only get into each other's way

        def find(load: Load) -> Found:
            return self.find(load(), keep_image=keep_images)

        waiting: list[Found] = []
        for found in _in_order(find, frames, workers=self.workers, ahead=2 * self.workers if wait_for_batch else 0):
            waiting.append(found)
            # Frames without a face must not pile up either.
            if not wait_for_batch or _count(waiting) >= self.batch_size or len(waiting) >= 2 * self.batch_size:
                yield from self.classify(waiting)
                waiting = []
        yield from self.classify(waiting)

    def find(self, frame: Frame, *, keep_image: bool = False) -> Found:
        """First half: where the faces of a frame are, cropped and prepared. Any thread may call it."""
        if frame.image is None:
            return Found(frame, [], [], readable=False)
        boxes = self._detector.detect(frame.image)
        return Found(frame if keep_image else frame.without_image(), boxes, self.crops(frame.image, boxes))

    def crops(self, image: np.ndarray, boxes: list[Box]) -> list[np.ndarray]:
        """What the network will see of each box, uint8 (S, S) or (S, S, 3)."""
        card = self.card
        if isinstance(self._detector, WholePicture):
            return [card.preprocess.prepare(image)]
        return [card.preprocess.prepare(self._crop(image, box, margin=card.crop_margin)) for box in boxes]

    def classify(self, found: list[Found]) -> Iterator[Prediction]:
        """Second half: the expressions of all faces of some frames, in full batches."""
        crops = [crop for each in found for crop in each.crops]
        probabilities = iter(self._probabilities(crops))
        for each in found:
            faces = [Face(box=box, probabilities=next(probabilities)) for box in each.boxes]
            yield Prediction(frame=each.frame, faces=faces, readable=each.readable)

    def _probabilities(self, crops: list[np.ndarray]) -> list[dict[str, float]]:
        """Of prepared crops, uint8 (S, S) or (S, S, 3)."""
        card = self.card
        rows: list[list[float]] = []
        for first in range(0, len(crops), self.batch_size):
            images = card.preprocess.finish(np.stack(crops[first : first + self.batch_size]))
            rows += softmax(self._backend.logits(images) / card.temperature).tolist()
        return [dict(zip(card.class_names, row, strict=True)) for row in rows]


def _count(found: list[Found]) -> int:
    return sum(len(each.boxes) for each in found)


def _in_order(function: Callable[[Load], Found], items: Iterable[Load], *, workers: int, ahead: int) -> Iterator[Found]:
    """Map in threads, `ahead` items beyond the one that is waited for, and give the results in the items' order."""
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
    """Over the last axis, in float64: float32 rows would not add up to 1."""
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
