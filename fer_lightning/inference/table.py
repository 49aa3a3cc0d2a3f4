"""The prediction table: one row per face, and one for each picture or frame without a face."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import RawIOBase, StringIO
from pathlib import Path
from typing import Any, Protocol

from fer_lightning.atomic import replacing
from fer_lightning.inference.predictor import Face, Prediction
from fer_lightning.text.file_names import printable

Row = dict[str, Any]
FORMATS = ("csv", "jsonl", "parquet")
WHERE = ("source", "frame", "time_s", "face", "track", "x", "y", "width", "height", "detector_score")


def columns(class_names: Sequence[str], *, smoothed: bool) -> list[str]:
    """Column names, in order; with smoothing, `raw_p_<class>` holds the single frame's probabilities."""
    raw = [f"raw_p_{name}" for name in class_names] if smoothed else []
    return [*WHERE, "emotion", "confidence", *(f"p_{name}" for name in class_names), *raw, "status"]


def rows(prediction: Prediction, *, abstain_below: float = 0.0) -> list[Row]:
    """One row per face, or one that says why there is none. Cells without a value are left out of the dict.

    Args:
        prediction: Prediction of one frame.
        abstain_below: Confidence below which a face gets the status `low_confidence`.
    """
    frame = prediction.frame
    where: Row = {"source": printable(frame.source), "frame": frame.number, "time_s": _rounded(frame.time_s, 3)}
    if not prediction.faces:
        return [where | {"status": "no_face" if prediction.readable else "unreadable"}]
    return [where | {"face": number} | _face_cells(face, abstain_below) for number, face in enumerate(prediction.faces)]


def _face_cells(face: Face, abstain_below: float) -> Row:
    place: Row = {}
    if face.box is not None:
        place = {name: _rounded(getattr(face.box, name), 1) for name in ("x", "y", "width", "height")}
        place["detector_score"] = _rounded(face.box.score, 3)
    raw = face.raw_probabilities or {}
    return {
        "track": face.track,
        **place,
        "emotion": face.emotion,
        "confidence": _rounded(face.confidence, 6),
        **{f"p_{name}": _rounded(value, 6) for name, value in face.probabilities.items()},
        **{f"raw_p_{name}": _rounded(value, 6) for name, value in raw.items()},
        "status": "ok" if face.confidence >= abstain_below else "low_confidence",
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


class TableWriter(Protocol):
    """Writes rows as they arrive."""

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows; after an OSError a csv or jsonl keeps the rows of earlier calls, and a parquet is incomplete."""
        ...


@contextmanager
def table_writer(path: Path, names: Sequence[str]) -> Iterator[TableWriter]:
    """Write a table in the format of the path's suffix, under a temporary name until the block ends."""
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            with _ParquetWriter(temporary, names) as writer:
                yield writer
        else:
            with temporary.open("wb", buffering=0) as file:
                yield CsvWriter(file, names) if path.suffix == ".csv" else JsonlWriter(file, names)


class _TextWriter:
    def __init__(self, file: RawIOBase, names: Sequence[str]) -> None:
        self.names = names
        self._file = file
        # Rows may be appended to an existing file; what was written to a pipe cannot be undone.
        self._complete = file.seek(0, os.SEEK_END) if file.seekable() else None

    def _write(self, text: str) -> None:
        data = text.encode()
        try:
            written = 0
            while written < len(data):
                written += self._file.write(data[written:]) or 0
        except OSError:
            if self._complete is not None:
                with suppress(OSError):  # a device cannot be cut; the first error is the one to tell
                    self._file.truncate(self._complete)  # removes a row that was written in part
            raise
        if self._complete is not None:
            self._complete += len(data)


class CsvWriter(_TextWriter):
    """CSV with a header; missing cells are empty."""

    def __init__(self, file: RawIOBase, names: Sequence[str]) -> None:
        super().__init__(file, names)
        self.write([{name: name for name in names}])

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows."""
        text = StringIO()
        csv.DictWriter(text, self.names, restval="", lineterminator="\n").writerows(rows)
        self._write(text.getvalue())


class JsonlWriter(_TextWriter):
    """One JSON object per line; missing cells are null."""

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows without buffering, so that a reader at the end of a pipe gets them at once."""
        self._write("".join(json.dumps({name: row.get(name) for name in self.names}) + "\n" for row in rows))


class _ParquetWriter:
    """Writes rows in groups: one group per call would be mostly headers."""

    GROUP = 4096

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = {"source": pa.string(), "emotion": pa.string(), "status": pa.string()}
        types |= {"frame": pa.int64(), "face": pa.int64(), "track": pa.int64()}
        self._schema = pa.schema([(name, types.get(name, pa.float64())) for name in names])
        self._writer = pq.ParquetWriter(path, self._schema)
        self._to_table = pa.Table.from_pylist
        self._waiting: list[Row] = []

    def write(self, rows: Iterable[Row]) -> None:
        self._waiting += rows
        if len(self._waiting) >= self.GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(self._to_table(self._waiting, schema=self._schema))
            self._waiting = []

    def __enter__(self) -> "_ParquetWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()
