"""`fer-predict SOURCE...`: faces and emotions from photos, folders, video and webcam, as a table and as pictures."""

import errno
import os
import signal
import sys
import time
from collections.abc import Generator, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

import cv2
import typer
from PIL import Image
from rich.console import Console

from fer_lightning.atomic import new_folder
from fer_lightning.command import run_command
from fer_lightning.errors import InputError
from fer_lightning.inference.backends import Device
from fer_lightning.inference.boxes import MAX_SIDE, MIN_FACE
from fer_lightning.inference.detectors import DetectorName
from fer_lightning.inference.haar import FINE
from fer_lightning.inference.predictor import Prediction, Predictor
from fer_lightning.inference.reading import predict_scenes, predict_sources
from fer_lightning.inference.results import Results
from fer_lightning.inference.sources import Source, open_sources
from fer_lightning.inference.table import FORMATS, JsonlWriter
from fer_lightning.inference.terminal import Tally, introduce, progress_bar, summarise
from fer_lightning.inference.tracking import SMOOTH_S
from fer_lightning.inference.views import Match, open_scenes
from fer_lightning.inference.window import WindowClosed, check_window, show_frame

Save = Literal["table", "images", "video", "all"]  # in addition to the table

# headings of --help
FACES = "Finding faces"
VIDEOS = "Videos and several cameras"
LIMITS = "Device and limits"


def main(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="Images, folders, glob patterns, videos, camera numbers, or - for stdin."
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option(help="ONNX model file, .ckpt, run folder, or newest. Default: the bundled model."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the results. Default: outputs/predictions/<date>_<time>.")
    ] = None,
    save: Annotated[
        Save, typer.Option(help="Pictures or videos to write in addition to the table, with the faces marked.")
    ] = "table",
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Table format: csv (default), jsonl, parquet, or several separated by commas; with --json alone none.",
        ),
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Rows as JSON lines on stdout, and nothing else there.")
    ] = False,
    anonymize: Annotated[
        bool, typer.Option("--anonymize", help="Hide the faces in every picture that is written or shown.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Show the annotated frames in a window.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    abstain_below: Annotated[
        float, typer.Option(min=0, max=1, help="Confidence below which a face's status is low_confidence.")
    ] = 0.0,
    detector: Annotated[
        DetectorName, typer.Option(help="none: each image is a face crop already.", rich_help_panel=FACES)
    ] = "haar",
    min_face: Annotated[
        float,
        typer.Option(
            help="Smallest face to find, in pixels; up to 1, as a fraction of the shorter side.", rich_help_panel=FACES
        ),
    ] = MIN_FACE,
    max_side: Annotated[
        int, typer.Option(min=FINE, help="Longest side for the search for faces, in pixels.", rich_help_panel=FACES)
    ] = MAX_SIDE,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Also look for faces seen from the side; slower.", rich_help_panel=FACES),
    ] = False,
    align: Annotated[
        bool, typer.Option("--align", help="First turn tilted heads upright by their eyes.", rich_help_panel=FACES)
    ] = False,
    smooth: Annotated[
        float,
        typer.Option(min=0, help="Seconds over which a video's probabilities are averaged.", rich_help_panel=VIDEOS),
    ] = SMOOTH_S,
    views: Annotated[
        bool,
        typer.Option(
            "--views",
            help="Treat the sources as views of one scene, and also write a fused result.",
            rich_help_panel=VIDEOS,
        ),
    ] = False,
    match: Annotated[
        Match,
        typer.Option(
            help="How to match faces across views: the largest of each view, or from left to right.",
            rich_help_panel=VIDEOS,
        ),
    ] = "largest",
    device: Annotated[Device, typer.Option(help="Device to run the network on.", rich_help_panel=LIMITS)] = "auto",
    batch_size: Annotated[
        int,
        typer.Option(min=1, help="Number of faces that the network processes together.", rich_help_panel=LIMITS),
    ] = 32,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Threads for decoding and detection. Default: one per core.", rich_help_panel=LIMITS),
    ] = None,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Largest image accepted, in pixels.", rich_help_panel=LIMITS)
    ] = 100_000_000,
) -> None:
    """Find faces and read their expressions. Everything stays on this machine."""
    formats = tuple(dict.fromkeys((format_ or "csv").split(",")))
    _check_options(
        formats, detector, min_face, max_side, align=align, profile=profile, show=show, views=views, match=match
    )
    if views and len(sources) < 2:
        raise typer.BadParameter("--views needs at least two sources of one scene, got 1")
    if anonymize and save == "table" and not show:
        raise typer.BadParameter("--anonymize hides faces in pictures, and none are written or shown: add --save")
    _prepare_process(max_pixels)
    console = Console(stderr=True, quiet=quiet)
    predictor = Predictor(
        model,
        detector=detector,
        min_face=min_face,
        max_side=max_side,
        profile=profile,
        align=align,
        batch_size=batch_size,
        workers=workers,
        device=device,
    )
    scenes = open_scenes(sources) if views else []
    found = list(chain.from_iterable(scenes)) if views else open_sources(sources)
    _check_save(save, {source.kind for source in found})
    if show:
        check_window()
    introduce(console, predictor)
    only_rows = json_ and save == "table" and format_ is None
    dated = Path("outputs/predictions") / time.strftime("%Y-%m-%d_%H-%M-%S")
    results = Results(
        output or (None if only_rows else new_folder(dated)),
        predictor.card.class_names,
        moving=any(source.moving for source in found),
        formats=formats,
        pictures=save in ("images", "all"),
        videos=save in ("video", "all"),
        smooth_s=smooth,
        abstain_below=abstain_below,
        anonymous=anonymize,
    )
    if json_:
        results.add_table(_rows_to_stdout(results.columns))
    results.refuse_overwriting(found)
    keep_images = results.pictures or results.videos or show
    if views:
        stream = predict_scenes(predictor, scenes, match, results, keep_images=keep_images)
    else:
        stream = predict_sources(predictor, found, results, keep_images=keep_images)
    tally = _predict(stream, results, console, None if views else _total(found), show=show)
    summarise(console, tally, results)
    if tally.stopped_by:
        raise InputError(tally.stopped_by)
    if 0 < tally.frames == tally.unreadable:
        raise InputError("nothing could be read")


def _rows_to_stdout(names: Sequence[str]) -> JsonlWriter:
    return JsonlWriter(open(sys.stdout.fileno(), "wb", buffering=0, closefd=False), names)


def _check_options(
    formats: tuple[str, ...],
    detector: DetectorName,
    min_face: float,
    max_side: int,
    *,
    align: bool,
    profile: bool,
    show: bool,
    views: bool,
    match: Match,
) -> None:
    unknown = sorted(set(formats) - set(FORMATS))
    for wrong, why in (
        (unknown, f"--format {', '.join(unknown)}: choose from {', '.join(FORMATS)}"),
        (min_face <= 0, f"--min-face must be above 0, got {min_face}"),
        (
            detector == "none" and (min_face, max_side) != (MIN_FACE, MAX_SIDE),
            "--min-face and --max-side are for the search for faces: --detector none does not search",
        ),
        (align and detector == "none", "--align needs a detector: --detector none takes faces as they are"),
        (profile and detector != "haar", "--profile works only with --detector haar"),
        (show and views, "--show shows one source: omit --views"),
        (match != "largest" and not views, f"--match {match} matches the faces of several views: add --views"),
    ):
        if wrong:
            raise typer.BadParameter(why)


def _check_save(save: Save, kinds: set[str]) -> None:
    if save == "images" and "image" not in kinds:
        raise typer.BadParameter("--save images marks pictures, and there are only films: use --save video")
    if save == "video" and kinds == {"image"}:
        raise typer.BadParameter("--save video marks films, and there are only pictures: use --save images")


def _prepare_process(max_pixels: int) -> None:
    """Set what holds for the whole process: how it is stopped, how large a picture may be, who may print."""
    for name in ("SIGTERM", "SIGHUP"):  # as with Ctrl-C, the results so far are kept
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores the hang-up
            signal.signal(number, signal.default_int_handler)
    Image.MAX_IMAGE_PIXELS = max_pixels
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # we report unreadable files ourselves


def _predict(
    stream: Generator[Prediction, None, None], results: Results, console: Console, total: int | None, *, show: bool
) -> Tally:
    """Consume all predictions; if Ctrl-C or a full disk stops this midway, the results so far are kept.

    Raises:
        KeyboardInterrupt: Ctrl-C came before there was any result.
    """
    tally = Tally()
    with results, progress_bar(console) as progress:
        task = progress.add_task("Reading", total=total, rate="")
        try:
            for prediction in stream:
                tally.add(prediction)
                progress.update(task, advance=1, rate=f"{tally.frames / tally.seconds:.1f}/s")
                if show:
                    show_frame(prediction, tally.frames / tally.seconds, anonymous=results.anonymous)
        except (KeyboardInterrupt, WindowClosed):
            if not tally.frames:
                raise
            console.print("Stopped; the results so far are kept.")
        except BrokenPipeError:
            if results.folder is not None:  # the reader of the rows has closed the pipe
                console.print("Stopped, as nobody reads the rows any more; the results so far are kept.")
        except OSError as error:
            tally.stopped_by = _why_stopped(error, tally.frames, results)
        finally:
            try:
                stream.close()  # finishes the videos before the tables
            except OSError as error:
                tally.stopped_by = _why_stopped(error, tally.frames, results)
    return tally


def _why_stopped(error: OSError, frames: int, results: Results) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "free some space there, or choose" if full else "choose"
    return (
        f"stopped after {frames} images, which all tables except parquet contain: {error.strerror or error} "
        f"({error.filename or results.folder or 'stdout'}); {remedy} another --output"
    )


def _total(sources: list[Source]) -> int | None:
    counts = [source.count for source in sources]
    return None if None in counts else sum(counts)


def run() -> None:
    """Entry point of the command."""
    run_command(main)


if __name__ == "__main__":
    run()
