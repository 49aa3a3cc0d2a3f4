"""All files that prediction writes to a folder."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, fields
from functools import cached_property
from itertools import chain, count
from pathlib import Path
from typing import Any

from fer_lightning.errors import InputError
from fer_lightning.inference.events import Event, EventRecorder
from fer_lightning.inference.pictures import FilmWriter, VideoWriter, annotated_frame, write_picture
from fer_lightning.inference.predictor import Prediction
from fer_lightning.inference.sources import Source
from fer_lightning.inference.table import TableWriter, columns, rows, table_writer
from fer_lightning.inference.timeline import Timeline
from fer_lightning.inference.tracking import SMOOTH_S, Tracker
from fer_lightning.text.file_names import printable

LONGEST_NAME = 200  # bytes; most file systems allow 255, of which numbers, suffixes and temporary names need some
PROBLEM = ("source", "frame", "problem")
EVENT = tuple(field.name for field in fields(Event))
TABLE_BEGINNINGS = {"predictions.csv": "source,", "predictions.jsonl": '{"source":', "predictions.parquet": "PAR1"}
LONGEST_GAP_S = 1.0  # how long a person may be out of sight and keep number and event
FRAMES_OF_A_GAP = 2.5  # the same, where frames come more slowly: one of them may lack the face
PLAIN_FPS = 25.0  # frame rate of an annotated video if its source has none
LONGEST_STILL_S = 10.0  # longest time to show one frame in it; a longer gap is a clock that jumped


class Results:
    """Writes predictions as they arrive; when the block ends, for whatever reason, all files are complete.

    The folder contains `predictions.<format>`, `problems.csv` (what could not be read, and why), `events.csv`, and one
    file per source in `pictures/`, `videos/` and `timelines/`.

    Args:
        folder: Created if it is missing; None writes nothing.
        class_names: Class names of the model, in label order.
        moving: Whether videos are among the sources, for whose smoothing the table has columns.
        formats: Formats of the table: `csv`, `jsonl`, `parquet`.
        pictures: Write each picture with its faces marked.
        videos: Write each video with its faces marked.
        smooth_s: Smoothing time of the `Tracker`.
        abstain_below: Confidence below which a face's status is `low_confidence`.
        anonymous: Hide the faces in all written pictures and videos.
        video_writer: Function that opens an annotated video, given its path and frames per second.

    Attributes:
        columns: Columns of the table.
        problems: What could not be read so far, or not in whole: a sentence each, for people.
    """

    def __init__(
        self,
        folder: Path | None,
        class_names: Sequence[str],
        *,
        moving: bool = True,
        formats: Sequence[str] = ("csv",),
        pictures: bool = False,
        videos: bool = False,
        smooth_s: float = SMOOTH_S,
        abstain_below: float = 0.0,
        anonymous: bool = False,
        video_writer: Callable[[Path, float], FilmWriter] = VideoWriter,
    ) -> None:
        self.folder = folder
        self.class_names = tuple(class_names)
        self.moving = moving
        self.pictures = pictures
        self.videos = videos
        self.smooth_s = smooth_s if moving else 0.0
        self.columns = columns(class_names, smoothed=self.smooth_s > 0)
        self.abstain_below = abstain_below
        self.anonymous = anonymous
        self.video_writer = video_writer
        self.problems: list[str] = []
        self._formats = formats
        self._tables: list[TableWriter] = []
        self._open: list[AbstractContextManager[TableWriter]] = []
        self._given: set[str] = set()
        self._earlier: list[Path] = []
        self._has_rows = False

    def add_table(self, table: TableWriter) -> None:
        """Write the rows to this table too; it is closed by who opened it."""
        self._tables.append(table)

    def __enter__(self) -> "Results":
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            earlier = self._earlier_tables()
            self._refuse_other_files(known=bool(earlier))
            self._earlier = [self.folder / name for name in earlier]
            with ExitStack() as stack:
                for suffix in self._formats:
                    self._tables.append(self._table(f"predictions.{suffix}", self.columns))
                    stack.push(self._open[-1])
                stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        """Close each table separately, so that one that failed on a full disk does not affect the others.

        If an error came before the first row, no table is written, and those of an earlier prediction stay.
        """
        failed, in_vain = None, error[0] is not None and not self._has_rows
        for path in () if in_vain else self._earlier:
            path.unlink(missing_ok=True)
        for table in reversed(self._open):
            try:
                table.__exit__(*(error if in_vain else (None, None, None)))
            except OSError as full:
                failed = full
        if failed is not None:
            raise failed

    def refuse_overwriting(self, sources: Sequence[Source]) -> None:
        """Raise InputError if a picture or video would be written over one of the sources."""
        written = [name for name, wanted in (("pictures", self.pictures), ("videos", self.videos)) if wanted]
        if self.folder is None or not written:
            return
        # A Path raises at a link to itself.
        places = {Path(os.path.realpath(self.folder / name)) for name in written}
        for source in sources:
            if Path(os.path.realpath(source.name)).parent in places:
                raise InputError(f"{source.name} might be written over: choose an --output other than {self.folder}")

    def _earlier_tables(self) -> list[str]:
        """The tables of an earlier prediction, which would be about other sources; InputError for anybody else's."""
        beginnings = {"problems.csv": ",".join(PROBLEM), "events.csv": ",".join(EVENT)} | TABLE_BEGINNINGS
        earlier = [name for name in beginnings if (self.folder / name).exists()]
        for path, beginning in ((self.folder / name, beginnings[name]) for name in earlier):
            with path.open("rb") as file:
                found = file.read(len(beginning)).decode(errors="replace")
            if found not in ("", beginning):
                raise InputError(f"{path} is not of fer-predict, and would be lost: choose another --output")
        return earlier

    def _refuse_other_files(self, *, known: bool) -> None:
        """Refuse a folder with files of somebody else, or with shown faces, among which hidden ones would lie.

        It is `known` as fer-predict's by its tables.
        """
        written = {"pictures": self.pictures, "videos": self.videos, "timelines": self.moving}
        for path in (self.folder / name for name in written):
            if not any(path.glob("*")):
                continue
            if self.anonymous and path.name != "timelines":
                raise InputError(f"{path} has pictures of an earlier run: choose another --output")
            if written[path.name] and not known:
                raise InputError(f"{path} has files that are not of fer-predict: choose another --output")

    def _table(self, name: str, names: Sequence[str]) -> TableWriter:
        opened = table_writer(self.folder / name, names)
        table = opened.__enter__()
        self._open.append(opened)
        return table

    def add_picture(self, prediction: Prediction) -> Prediction:
        """Add a picture that does not belong to a video."""
        if self.folder is not None and self.pictures and prediction.readable:
            path = self.folder / "pictures" / self.file_name(prediction.frame.source, ".jpg")
            path.parent.mkdir(exist_ok=True)
            write_picture(path, annotated_frame(prediction, anonymous=self.anonymous))
        return self.add_rows(prediction)

    @contextmanager
    def video(self, source: Source) -> Iterator["VideoResults"]:
        """The results of one video or camera; events and timeline are written when the block ends, even by an error."""
        video = VideoResults(self, source)
        try:
            yield video
        finally:
            video.close()

    def add_rows(self, prediction: Prediction) -> Prediction:
        """Add a prediction to the tables alone, and its problem if it has one."""
        for table in self._tables:
            table.write(rows(prediction, abstain_below=self.abstain_below))
        self._has_rows = True
        frame = prediction.frame
        if frame.problem:
            self.problems.append(f"{frame.source} {frame.problem}")
        if frame.problem and self.folder is not None:
            row = {"source": printable(frame.source), "frame": frame.number, "problem": frame.problem}
            self._problem_table.write([row])
        return prediction

    @cached_property
    def _problem_table(self) -> TableWriter:
        return self._table("problems.csv", PROBLEM)

    @cached_property
    def event_table(self) -> TableWriter:
        """The table of all videos' events, opened by the first one."""
        return self._table("events.csv", EVENT)

    def file_name(self, source: str, suffix: str) -> str:
        """A file name for each source: its own name, with a number if another file has the same name."""
        stem = "".join(letter if letter.isalnum() or letter in "-_. " else "_" for letter in Path(source).stem)
        stem = stem.encode()[:LONGEST_NAME].decode(errors="ignore")
        return f"{free_name(stem, self._given)}{suffix}"


def free_name(name: str, taken: set[str]) -> str:
    """A name, with a number if it is taken, and takes it; some file systems ignore case."""
    numbered = chain([name], (f"{name}_{number}" for number in count(2)))
    free = next(each for each in numbered if each.lower() not in taken)
    taken.add(free.lower())
    return free


class VideoResults:
    """Tracks, events, timeline and annotated copy of one video."""

    def __init__(self, results: Results, source: Source) -> None:
        self._results = results
        self._name = results.file_name(source.name, "")
        self._source = source
        gap_s = max(LONGEST_GAP_S, FRAMES_OF_A_GAP / source.fps) if source.fps else LONGEST_GAP_S
        self._tracker = Tracker(smooth_s=results.smooth_s, gap_s=gap_s)
        self._events = EventRecorder(gap_s=gap_s)
        self._timeline = Timeline(results.class_names)
        self._writer: FilmWriter | None = None
        self._fps = source.fps or PLAIN_FPS
        self._first_s = 0.0
        self._written = 0
        if results.folder is not None and results.videos:
            (results.folder / "videos").mkdir(exist_ok=True)
            path = results.folder / "videos" / f"{self._name}.mp4"
            self._writer = results.video_writer(path, self._fps)

    def add(self, prediction: Prediction) -> Prediction:
        """Add the next frame, and return it with people numbered and probabilities smoothed."""
        prediction = self._tracker.follow(prediction)
        self._events.add(prediction)
        self._timeline.add(prediction)
        if self._writer is not None and prediction.readable:
            self._film(prediction)
        return self._results.add_rows(prediction)

    def _film(self, prediction: Prediction) -> None:
        """Show a frame until the next frame's time: a camera has no fixed rate, and a file's rate may vary."""
        if not self._written:
            self._first_s = prediction.frame.time_s
        due = round((prediction.frame.time_s - self._first_s) * self._fps) + 1
        too_many = due - self._written - max(1, round(LONGEST_STILL_S * self._fps))
        if too_many > 0:
            self._first_s += too_many / self._fps
            due -= too_many
        if due > self._written:
            image = annotated_frame(prediction, anonymous=self._results.anonymous, bars=True)
            for _ in range(due - self._written):
                self._writer.write(image)
            self._written = due

    def close(self) -> None:
        """Finish the annotated copy; then write the events and the timeline, which are known only at the end."""
        try:
            if self._writer is not None:
                self._writer.close()
        finally:
            if self._results.folder is not None:
                self._write_events_and_timeline(self._results.folder)

    def _write_events_and_timeline(self, folder: Path) -> None:
        self._results.event_table.write(
            {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(event).items()}
            for event in self._events.finish()
        )
        self._timeline.write(folder / "timelines" / f"{self._name}.png", self._source.name)
