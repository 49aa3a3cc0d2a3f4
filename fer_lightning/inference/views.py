"""Several cameras on one scene: their frames brought together, and one decision for each person."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from fer_lightning.errors import InputError
from fer_lightning.inference.predictor import Face, Prediction
from fer_lightning.inference.sources import Frame, Source, open_sources

Match = Literal["largest", "order"]
View = tuple[Source, Iterator[Prediction]]
LARGEST_LAG_S = 0.5  # a view whose nearest frame is farther away has nothing to say about this moment


def open_views(names: Sequence[str]) -> list[list[Source]]:
    """The sources at each moment, one a view: folders give pictures of the same file name, videos and cameras go along.

    Returns:
        For folders a list of pictures for each name that every folder has; else one list of the videos or cameras.

    Raises:
        InputError: There are fewer than two views, they are of different kinds, or their file names share nothing.
    """
    if len(names) < 2:
        raise InputError(f"--views needs at least two sources of one scene, got {len(names)}")
    views = [open_sources([name]) for name in names]
    kinds = {source.kind for view in views for source in view}
    if len(kinds) == 1 and "image" not in kinds and all(len(view) == 1 for view in views):
        return [[source for [source] in views]]
    if kinds != {"image"}:
        raise InputError(
            f"--views needs videos only, cameras only or folders of images, got {', '.join(sorted(kinds))}"
        )
    if all(not Path(name).is_dir() for name in names):
        return [[source for view in views for source in view]]
    by_name = [
        {Path(source.name).relative_to(name).as_posix(): source for source in view}
        for name, view in zip(names, views, strict=True)
    ]
    shared = sorted(set.intersection(*(set(view) for view in by_name)))
    if not shared:
        raise InputError(f"{' and '.join(names)} have no file name in common: views are matched by their names")
    return [[view[name] for view in by_name] for name in shared]


def together(streams: Sequence[Iterator[Prediction]]) -> Iterator[list[Prediction]]:
    """For each frame of the first view those of the others that are nearest in time; a view may be missing."""
    first, *others = streams
    nearest = [_nearest(stream) for stream in others]
    for prediction in first:
        found = (at(prediction.frame.time_s or 0.0) for at in nearest)
        yield [prediction, *(other for other in found if other is not None)]


def _nearest(stream: Iterator[Prediction]) -> Callable[[float], Prediction | None]:
    """A function of time, which must not go back."""
    current, following = next(stream, None), next(stream, None)

    def distance(prediction: Prediction, time_s: float) -> float:
        return abs((prediction.frame.time_s or 0.0) - time_s)

    def at(time_s: float) -> Prediction | None:
        nonlocal current, following
        while following is not None and distance(following, time_s) <= distance(current, time_s):
            current, following = following, next(stream, None)
        return current if current is not None and distance(current, time_s) <= LARGEST_LAG_S else None

    return at


def fuse(predictions: Sequence[Prediction], *, match: Match = "largest") -> Prediction:
    """One decision from several views of a moment: probabilities averaged, weighted by how sure the detector was.

    Args:
        predictions: One a view; those without a face have no say.
        match: `largest` takes the largest face of each view for one person; `order` pairs faces from left to right,
            which needs as many in each view, and falls back to the largest where that is not so.
    """
    seen = [prediction.faces for prediction in predictions if prediction.faces]
    if match == "order" and len({len(faces) for faces in seen}) == 1:
        people = list(zip(*(sorted(faces, key=lambda face: face.box.x) for faces in seen), strict=True))
    else:
        people = [[faces[0] for faces in seen]] if seen else []
    frame = predictions[0].frame
    return Prediction(
        frame=Frame(
            source=" + ".join(prediction.frame.source for prediction in predictions),
            number=frame.number,
            time_s=frame.time_s,
        ),
        faces=[_fused(faces) for faces in people],
        readable=any(prediction.readable for prediction in predictions),
    )


def _fused(faces: Sequence[Face]) -> Face:
    # A cascade's scores may be negative for faces that it is least sure of: these still count a little.
    weights = [max(face.box.score, 0.1) for face in faces]
    best = max(faces, key=lambda face: face.box.score)
    probabilities = {
        name: sum(weight * face.probabilities[name] for weight, face in zip(weights, faces, strict=True)) / sum(weights)
        for name in best.probabilities
    }
    return replace(best, box=None, probabilities=probabilities, raw_probabilities=None)
