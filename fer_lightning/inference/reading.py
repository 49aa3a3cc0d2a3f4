"""From sources through a Predictor into Results: the loop shared by the command and the page."""

from collections.abc import Generator
from contextlib import ExitStack
from itertools import chain, groupby

from fer_lightning.inference.predictor import Prediction, Predictor
from fer_lightning.inference.results import Results
from fer_lightning.inference.sources import Source
from fer_lightning.inference.views import Match, fuse, matched_in_time


def predict_sources(
    predictor: Predictor, sources: list[Source], results: Results, *, keep_images: bool
) -> Generator[Prediction, None, None]:
    """Predict on pictures in one stream, so that they share batches, and on each video separately."""
    for _, group in groupby(sources, key=lambda source: id(source) if source.moving else None):
        first, *others = group
        frames = chain.from_iterable(source.frames() for source in (first, *others))
        predictions = predictor.predict_all(frames, keep_images=keep_images, wait_for_batch=not first.live)
        if first.moving:
            with results.video(first) as video:
                yield from map(video.add, predictions)
        else:
            yield from map(results.add_picture, predictions)


def predict_scenes(
    predictor: Predictor, scenes: list[list[Source]], match: Match, results: Results, *, keep_images: bool
) -> Generator[Prediction, None, None]:
    """Write each view's own rows and, where there are several, fused ones; yield the latter, or the only view's."""
    for views in scenes:
        with ExitStack() as stack:
            streams = []
            for source in views:
                predictions = predictor.predict_all(
                    source.frames(), keep_images=keep_images, wait_for_batch=not source.live
                )
                add = stack.enter_context(results.video(source)).add if source.moving else results.add_picture
                streams.append(map(add, predictions))
            name = " + ".join(source.name for source in views)
            for number, moment in enumerate(matched_in_time(streams)):
                fused = fuse(moment, name, number=number, match=match)
                yield results.add_rows(fused) if len(views) > 1 else fused
