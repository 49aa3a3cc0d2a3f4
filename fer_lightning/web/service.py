"""The page's logic without the page: photos, videos and camera frames, processed with fer-predict's own parts."""

import os
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from fer_lightning.errors import InputError
from fer_lightning.images import decode_picture
from fer_lightning.inference.boxes import MIN_FACE
from fer_lightning.inference.detectors import create_detector
from fer_lightning.inference.palette import colour_of
from fer_lightning.inference.predictor import Face, Prediction, Predictor
from fer_lightning.inference.reading import predict_sources
from fer_lightning.inference.results import Results, free_name
from fer_lightning.inference.sources import Frame, Source, open_sources
from fer_lightning.inference.tracking import SMOOTH_S, Tracker
from fer_lightning.text.words import counted
from fer_lightning.web.video_writer import BrowserVideoWriter

MOST_SETTINGS = 32  # combinations of model and detector that are kept
MOST_PEOPLE = 64  # camera users at the same time; the one inactive for longest is forgotten
HOUR = 3600  # seconds after which results and forgotten uploads are deleted
MOST_PIXELS = 4_000_000  # of a camera's frame
ESTIMATE_AFTER = 25  # frames of a video after which the remaining time is estimated


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The user's settings on the page.

    Attributes:
        model: Name of one of the service's models.
        detector: `haar` or `mtcnn`.
        min_face: Smallest face, as a fraction of the picture's shorter side.
        smooth_s: Seconds over which a video's probabilities are averaged.
        anonymous: Hide the faces in everything that is shown or written.
    """

    model: str
    detector: str = "haar"
    min_face: float = MIN_FACE
    smooth_s: float = SMOOTH_S
    anonymous: bool = False


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The results for an upload.

    Attributes:
        folder: Folder of predictions.csv, pictures/, videos/, timelines/, events.csv and problems.csv.
        predictions: Predictions in order, without pixels; for a cancelled video, up to the last frame read.
        note: Progress and time, in words.
        done: Whether everything was read.
    """

    folder: Path
    predictions: list[Prediction]
    note: str
    done: bool = True

    @property
    def table(self) -> Path:
        """The table with all faces."""
        return self.folder / "predictions.csv"

    def files(self, name: str) -> list[Path]:
        """The files in a subfolder, sorted by name."""
        return sorted((self.folder / name).glob("*"))


class Service:
    """Processes uploads and frames for all users of the page.

    Args:
        models: Name on the page -> model file, checkpoint or run; None uses the bundled model.
        folder: Folder for the results; the caller deletes it.
        uploads: Folder into which Gradio puts uploads; the caller deletes it too.

    Raises:
        InputError: A model cannot be used.
    """

    def __init__(self, models: Mapping[str, Path | None], folder: Path, uploads: Path) -> None:
        self.models = dict(models)
        self.folder = folder
        self.uploads = uploads
        self._lock = threading.Lock()
        self._number = 0
        self._trackers: OrderedDict[tuple[str, str], Tracker] = OrderedDict()
        self._loaded = {name: Predictor(path) for name, path in models.items()}
        self._predictor = lru_cache(maxsize=MOST_SETTINGS)(self._with_detector)
        threading.Thread(target=self._keep_forgetting, daemon=True).start()

    def predictor(self, settings: Settings) -> Predictor:
        """The predictor for the settings; those of one model share its network."""
        if settings.model not in self.models:
            raise InputError(f"there is no model {settings.model!r} here: choose from {', '.join(self.models)}")
        return self._predictor(settings.model, settings.detector, settings.min_face)

    def _with_detector(self, model: str, detector: str, min_face: float) -> Predictor:
        return self._loaded[model].with_detector(create_detector(detector, min_face=min_face))

    def photos(self, uploads: Sequence[Path], settings: Settings) -> Answer:
        """Read photos; for unreadable ones, the reason is in the predictions' frames."""
        predictor = self.predictor(settings)
        taken: set[str] = set()
        sources = [_upload(path, free_name(path.stem, taken) + path.suffix) for path in uploads]
        if not sources:
            raise InputError("choose one or more photos first")
        predictions = []
        with self._results(predictor, settings, pictures=True) as results:
            for prediction in predict_sources(predictor, sources, results, keep_images=True):
                predictions.append(_without_pixels(prediction))
                results.folder.touch()  # its hour begins when it is done
        faces = sum(len(each.faces) for each in predictions)
        return Answer(
            folder=results.folder,
            predictions=predictions,
            note=f"{counted(len(predictions), 'photo')}, {counted(faces, 'face')}",
        )

    def video(self, upload: Path, settings: Settings) -> Iterator[Answer]:
        """Read a video, yielding its progress now and then; if closed early, the results so far are complete."""
        predictor = self.predictor(settings)
        source = _upload(upload, upload.name)
        if source.kind != "video":
            raise InputError(f"{upload.name} is not a video: use the first tab for photos")
        results, predictions, started = self._results(predictor, settings, videos=True), [], time.perf_counter()
        total, told = source.count, started
        with results:
            stream = predict_sources(predictor, [source], results, keep_images=True)
            try:
                for prediction in stream:
                    predictions.append(_without_pixels(prediction))
                    now = time.perf_counter()
                    if now - told > 0.5:
                        told = now
                        results.folder.touch()
                        note = _progress(len(predictions), total, now - started)
                        yield Answer(folder=results.folder, predictions=predictions, note=note, done=False)
            finally:
                stream.close()  # finishes the video before the tables
        faces, seconds = sum(len(each.faces) for each in predictions), time.perf_counter() - started
        read = sum(each.readable for each in predictions)
        note = f"{counted(read, 'frame')}, {counted(faces, 'face')}, read in {seconds:.1f} s."
        yield Answer(folder=results.folder, predictions=predictions, note=note)

    def frame(self, jpeg: bytes, who: str, settings: Settings) -> dict[str, Any]:
        """The faces in a camera frame; people are tracked and smoothed as long as `who` keeps sending to one model."""
        predictor = self.predictor(settings)
        image = decode_picture(jpeg, "the frame", most_pixels=MOST_PIXELS).image
        start = time.perf_counter()
        frame = Frame(source=who, time_s=time.monotonic(), image=image)
        [prediction] = predictor.classify([predictor.find(frame)])
        with self._lock:
            viewer = (who, settings.model)
            tracker = self._trackers.setdefault(viewer, Tracker(smooth_s=settings.smooth_s))
            tracker.smooth_s = settings.smooth_s
            self._trackers.move_to_end(viewer)
            while len(self._trackers) > MOST_PEOPLE:
                self._trackers.popitem(last=False)
            prediction = tracker.follow(prediction)
        return {"faces": [_as_json(face) for face in prediction.faces], "ms": 1000 * (time.perf_counter() - start)}

    def _keep_forgetting(self) -> None:
        while True:
            time.sleep(HOUR / 60)
            with self._lock:
                self._forget()

    def _forget(self) -> None:
        """Delete what is older than an hour: results, and uploads, some of which were broken off and are never read."""
        an_hour_ago = time.time() - HOUR
        for folder in self.folder.glob("*"):
            if folder.stat().st_mtime < an_hour_ago:
                shutil.rmtree(folder, ignore_errors=True)
        for place, _, names in os.walk(self.uploads):
            for path in (Path(place, name) for name in names):
                with suppress(OSError):  # already deleted by who read it, or, on Windows, open
                    # Gradio puts copies of results there too, with the times at which the results were written.
                    if path.stat().st_ctime < an_hour_ago:
                        path.unlink()

    def _results(
        self, predictor: Predictor, settings: Settings, *, pictures: bool = False, videos: bool = False
    ) -> Results:
        with self._lock:
            self._forget()
            self._number += 1
            folder = self.folder / f"{self._number:06d}"
        return Results(
            folder,
            predictor.card.class_names,
            moving=videos,
            pictures=pictures,
            videos=videos,
            smooth_s=settings.smooth_s,
            anonymous=settings.anonymous,
            video_writer=BrowserVideoWriter,
        )


def face_names(predictions: Sequence[Prediction]) -> list[tuple[str, Face]]:
    """Each face with its name on the page, under its number in the table."""
    return [
        (f"{each.frame.source}, face {number}: {face.emotion} {face.confidence:.0%}", face)
        for each in predictions
        for number, face in enumerate(each.faces)
    ]


def _upload(path: Path, name: str) -> Source:
    """An upload as a source of that name, without the folder it was stored in."""
    [source] = open_sources([str(path)])

    def frames() -> Iterator[Any]:
        for load in source.frames():
            yield lambda load=load: replace(load(), source=name)

    return replace(source, name=name, frames=frames)


def _without_pixels(prediction: Prediction) -> Prediction:
    return replace(prediction, frame=prediction.frame.without_image())


def _as_json(face: Face) -> dict[str, Any]:
    return {
        "box": [round(side, 1) for side in face.box[:4]],
        "track": face.track,
        "emotion": face.emotion,
        "colour": colour_of(list(face.probabilities).index(face.emotion)),
        "confidence": face.confidence,
        "probabilities": face.probabilities,
    }


def _progress(frames: int, total: int | None, seconds: float) -> str:
    if not total or frames < ESTIMATE_AFTER:
        return f"{counted(frames, 'frame')} read."
    left = max(total - frames, 0) * seconds / frames
    minutes, rest = divmod(round(left), 60)
    return f"{frames:,} of {total:,} frames read; about {f'{minutes} min ' if minutes else ''}{rest} s left."
