"""Several views of one scene: their frames are matched in time, with one decision for each person."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from fer_lightning.errors import InputError
from fer_lightning.inference.predictor import Face, Prediction
from fer_lightning.inference.sources import Frame, Source, open_sources

Match = Literal["largest", "order"]
LARGEST_LAG_S = 0.5  # a view whose nearest frame is further away is ignored at that moment


def open_scenes(names: Sequence[str]) -> list[list[Source]]:
    """The sources that belong to one scene: pictures with the same file name in each folder, or all videos or cameras.

    Returns:
        For folders and patterns, one list of pictures for each file name; else a single list of the views.

    Raises:
        InputError: The views are of different kinds, share no file name, or one has two pictures of one name.
    """
    start = time.monotonic()  # one clock for all cameras, whenever each is ready
    views = [open_sources([name], start=start) for name in names]
    kinds = {source.kind for view in views for source in view}
    if len(kinds) == 1 and "image" not in kinds and all(len(view) == 1 for view in views):
        return [[source for [source] in views]]
    if kinds != {"image"}:
        raise InputError(
            "--views needs one video per view, one camera per view, or folders of images, got "
            f"{', '.join(f'{len(view)} of {name}' for name, view in zip(names, views, strict=True))}"
        )
    if all(len(view) == 1 and view[0].name == name for name, view in zip(names, views, strict=True)):
        return [[source for [source] in views]]
    by_name = [_by_name(name, view) for name, view in zip(names, views, strict=True)]
    if not set.intersection(*(set(view) for view in by_name)):
        raise InputError(f"{' and '.join(names)} have no file name in common: views are matched by their names")
    return [[view[name] for view in by_name if name in view] for name in sorted(set().union(*by_name))]


def _by_name(place: str, view: Sequence[Source]) -> dict[str, Source]:
    found: dict[str, Source] = {}
    for source in view:
        other = found.setdefault(_name_within(place, source), source)
        if other is not source:
            raise InputError(
                f"{other.name} and {source.name} have the same file name, by which views are matched: give folders "
                "instead of patterns"
            )
    return found


def _name_within(place: str, source: Source) -> str:
    """A picture's path below a folder, or its file name if a pattern found it."""
    path = Path(source.name)
    return path.relative_to(place).as_posix() if Path(place).is_dir() else path.name


def matched_in_time(streams: Sequence[Iterator[Prediction]]) -> Iterator[list[Prediction]]:
    """For each frame of the first view, the nearest frames in time of the others; a view may be missing.

    When the first view ends, the others go on without it.
    """
    first, *others = streams
    followers = [_Follower(stream) for stream in others]
    for prediction in first:
        found = (follower.at(_time(prediction)) for follower in followers)
        yield [prediction, *(other for other in found if other is not None)]
    if followers:
        yield from matched_in_time([follower.rest() for follower in followers])


class _Follower:
    """A view that returns its frame nearest to a given time, which must not decrease."""

    def __init__(self, stream: Iterator[Prediction]) -> None:
        self._stream = stream
        self._current, self._following = next(stream, None), next(stream, None)
        self._used = False  # whether a moment had the current frame

    def at(self, time_s: float) -> Prediction | None:
        while self._following is not None and self._lag(self._following, time_s) <= self._lag(self._current, time_s):
            self._current, self._following, self._used = self._following, next(self._stream, None), False
        near = self._current is not None and self._lag(self._current, time_s) <= LARGEST_LAG_S
        self._used |= near
        return self._current if near else None

    def rest(self) -> Iterator[Prediction]:
        """The frames after those that moments had."""
        if self._current is not None and not self._used:
            yield self._current
        if self._following is not None:
            yield self._following
            yield from self._stream

    def _lag(self, prediction: Prediction, time_s: float) -> float:
        return abs(_time(prediction) - time_s)


def _time(prediction: Prediction) -> float:
    return prediction.frame.time_s or 0.0


def fuse(predictions: Sequence[Prediction], source: str, *, number: int = 0, match: Match = "largest") -> Prediction:
    """One decision from several views of a moment: probabilities averaged with the detector's scores as weights.

    Args:
        predictions: One prediction per view; those without a face are ignored.
        source: Name of the fused views.
        number: The moment's number among those of the scene.
        match: `largest` treats the largest face of each view as one person; `order` pairs faces from left to right,
            which needs the same number in each view, and otherwise falls back to `largest`.
    """
    seen = [prediction.faces for prediction in predictions if prediction.faces]
    if match == "order" and len({len(faces) for faces in seen}) == 1:
        people = list(zip(*(sorted(faces, key=lambda face: face.box.x) for faces in seen), strict=True))
    else:
        people = [[faces[0] for faces in seen]] if seen else []
    return Prediction(
        frame=Frame(source=source, number=number, time_s=predictions[0].frame.time_s),
        faces=[_fused(faces) for faces in people],
        readable=any(prediction.readable for prediction in predictions),
    )


def _fused(faces: Sequence[Face]) -> Face:
    # A cascade's scores may be negative for its least certain faces, which still get a small weight.
    weights = [max(face.box.score, 0.1) for face in faces]
    best = max(faces, key=lambda face: face.box.score)
    probabilities = {
        name: sum(weight * face.probabilities[name] for weight, face in zip(weights, faces, strict=True)) / sum(weights)
        for name in best.probabilities
    }
    # Each view has its own numbering of people.
    return replace(best, box=None, track=None, probabilities=probabilities, raw_probabilities=None)
