"""FER2013 (Goodfellow et al., 2013): 35,887 web faces, 48 x 48 grey, with an official three-way split.

Its parts are called Training, PublicTest and PrivateTest. Training is for training, PublicTest for choosing the epoch,
and PrivateTest is reported once: from here on they are always `train`, `val` and `test`.
"""

import re
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from fer_lightning.data.faces import FaceIndex
from fer_lightning.data.tree import FileTree, find_tree
from fer_lightning.errors import InputError
from fer_lightning.images import BadImageError
from fer_lightning.labels import FER2013_CLASSES, canonical

SPLITS = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
CSV_NAMES = ("fer2013.csv", "icml_face_data.csv")
FILE_NAME = re.compile(rf"(?P<folder>[^/]+)/(?P<usage>{'|'.join(SPLITS)})_[^/]*$")
NAMED = "<class>/Training_*.jpg, PublicTest_*.jpg or PrivateTest_*.jpg"
SIDE = 48


def read_fer2013(root: str | Path | None = None) -> FaceIndex:
    """Index FER2013 from its image folders or its csv, zip or unpacked.

    Args:
        root: Folder or zip; None looks in `data/fer2013`, then `$FER_DATA/fer2013`.

    Raises:
        InputError: The dataset is not found or there twice, a class or split is unknown, or a label is out of range.
    """
    tree = find_tree(
        "fer2013",
        root,
        holds=lambda name: _is_csv(name) or FILE_NAME.search(name) is not None,
        expected="FER2013 images (train/<class>/Training_*.jpg, test/<class>/PublicTest_*.jpg) or fer2013.csv",
        download="'FER-2013' (archive.zip) from Kaggle: msambare/fer2013, or fer2013.csv / icml_face_data.csv from the "
        "challenges-in-representation-learning competition",
    )
    csv_names = [name for name in tree.names if _is_csv(name)]
    sources = csv_names + [name for name in tree.names if FILE_NAME.search(name)][:1]
    if csv_names and len(sources) > 1:
        raise InputError(f"{tree.path} holds FER2013 more than once, as {' and '.join(sources)}: move all but one away")
    return _index_csv(tree, csv_names[0]) if csv_names else _index_folders(tree)


def _is_csv(name: str) -> bool:
    return name.rsplit("/", 1)[-1] in CSV_NAMES


def _index_folders(tree: FileTree) -> FaceIndex:
    names = tree.images()
    matches = [tree.parse(name, FILE_NAME, FER2013_CLASSES, named=NAMED) for name in names]
    targets = [FER2013_CLASSES.index(canonical(match["folder"])) for match in matches]
    return FaceIndex(
        dataset="fer2013",
        class_names=FER2013_CLASSES,
        names=names,
        targets=np.array(targets, dtype=np.int64),
        read=tree.decoder(names),
        source_key=tree.key(),
        splits=np.array([SPLITS[match["usage"]] for match in matches]),
        lacks=_absent({match["usage"] for match in matches}),
    )


def _index_csv(tree: FileTree, csv_name: str) -> FaceIndex:
    """Index the columns `emotion, pixels, Usage`, in any order, with or without icml_face_data.csv's leading spaces."""
    table = _Csv(tree, csv_name)
    rows = table.columns(["emotion", "Usage"])
    usages = rows["Usage"].astype(str).str.strip()
    unknown = ~usages.isin(list(SPLITS))
    if unknown.any():
        row = int(np.argmax(unknown))
        raise InputError(
            f"{csv_name}: {table.name(row)} has Usage {usages[row]!r}; it must be one of {', '.join(SPLITS)}"
        )
    labels = pd.to_numeric(rows["emotion"], errors="coerce")
    unreadable = labels % 1 != 0
    if unreadable.any():
        row = int(np.argmax(unreadable))
        raise InputError(
            f"{csv_name}: {table.name(row)} has emotion {rows['emotion'][row]!r}; it must be a number from 0 to 6"
        )
    return FaceIndex(
        dataset="fer2013",
        class_names=FER2013_CLASSES,
        names=[table.name(row) for row in range(len(rows))],
        targets=labels.to_numpy(np.int64),
        read=table.image,
        source_key=tree.key(),
        splits=usages.map(SPLITS).to_numpy(str),
        lacks=_absent(set(usages)),
    )


def _absent(usages: set[str]) -> str | None:
    return ", ".join(usage for usage in SPLITS if usage not in usages) or None


class _Csv:
    """fer2013.csv or icml_face_data.csv; the pixels, 290 MB of text, are read only when an image is needed."""

    def __init__(self, tree: FileTree, csv_name: str) -> None:
        self._tree = tree
        self._csv_name = csv_name

    def name(self, row: int) -> str:
        """The line number as in an editor, if no line is blank: the header is line 1."""
        return f"line {row + 2}"

    def columns(self, wanted: list[str]) -> pd.DataFrame:
        """The wanted columns, by their names without surrounding spaces."""
        table = self._tree.read_csv(self._csv_name, usecols=lambda column: column.strip() in wanted, index_col=False)
        table.columns = table.columns.str.strip()
        if missing := [column for column in wanted if column not in table]:
            raise InputError(
                f"{self._csv_name} has no column {', '.join(missing)}: it must have emotion, pixels and Usage"
            )
        return table

    @cached_property
    def _pixels(self) -> pd.Series:
        return self.columns(["pixels"])["pixels"]

    def image(self, row: int) -> np.ndarray:
        """The image of one row, uint8 (48, 48)."""
        words = str(self._pixels[row]).split()
        if row == len(self._pixels) - 1:
            del self._pixels  # frees the text, which is not needed after the last row
        if len(words) != SIDE * SIDE:
            raise BadImageError(
                self.name(row), f"of {self._csv_name} has {len(words)} pixels; it must have {SIDE * SIDE}"
            )
        try:
            return np.array(words, dtype=np.uint8).reshape(SIDE, SIDE)
        except (ValueError, OverflowError) as error:
            raise BadImageError(
                self.name(row), f"of {self._csv_name} has a pixel that is not 0 to 255 ({error})"
            ) from error
