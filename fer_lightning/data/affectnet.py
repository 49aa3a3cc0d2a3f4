"""AffectNet (Mollahosseini et al., 2019): web faces in colour, 8 expressions, in any of its usual layouts.

* official: `train_set/` and `val_set/`, each with `images/<id>.jpg` and `annotations/<id>_exp.npy` (0 to 7; 8 to 10
  mean that there is no expression to name). Papers report on its validation split, so it is `test` here.
* Kaggle: `labels.csv` with the columns `pth` and `label`, beside class folders whose names may contradict it.
* class folders, with or without a train/val/test level; a lone val is AffectNet's own, and so `test` here too.
"""

import io
import logging
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pandas as pd
from rich.progress import track

from fer_lightning.data.faces import FaceIndex
from fer_lightning.data.folder import index_class_folders
from fer_lightning.data.tree import FileTree, find_tree
from fer_lightning.errors import InputError
from fer_lightning.labels import AFFECTNET_CLASSES, AFFECTNET_NUMBERS, canonical

log = logging.getLogger(__name__)

SPLITS = {"train_set": "train", "val_set": "test"}
ANNOTATION = re.compile(rf"(?P<place>(?:.*/)?(?P<split>{'|'.join(SPLITS)}))/annotations/(?P<id>[^/]+)_exp\.npy$")
UNNAMED = {8: "none", 9: "uncertain", 10: "no face"}
CSV_NAME = "labels.csv"


class _Labels(NamedTuple):
    """The labels of a layout: for each image its path, the word of its expression, and its split if there is one."""

    names: list[str]
    words: list[str]
    splits: list[str] | None


def read_affectnet(root: str | Path | None = None, *, exclude: Sequence[str] | str = ()) -> FaceIndex:
    """Index AffectNet, zip or unpacked.

    Args:
        root: Folder or zip; None looks in `data/affectnet`, then `$FER_DATA/affectnet`.
        exclude: Classes to leave out: `contempt` gives what papers call AffectNet-7.

    Raises:
        InputError: The dataset is not found, an expression has an unknown name or number, or a class has no images.
    """
    classes = {canonical(name) for name in ([exclude] if isinstance(exclude, str) else exclude)}
    if unknown := classes - set(AFFECTNET_CLASSES):
        raise InputError(
            f"data.reader.exclude has {', '.join(sorted(unknown))}, but the classes are {', '.join(AFFECTNET_CLASSES)}"
        )
    tree = find_tree(
        "affectnet",
        root,
        holds=lambda name: _is_csv(name) or ANNOTATION.search(name) is not None or _in_class_folder(name),
        expected="AffectNet (train_set/ and val_set/ with images/ and annotations/, labels.csv, or class folders)",
        download="AffectNet from its authors, who ask for a signed agreement",
    )
    labels = _labels(tree)
    class_names = tuple(name for name in AFFECTNET_CLASSES if name not in classes)
    if missing := set(class_names) - set(labels.words):
        raise InputError(
            f"{tree.path} has no image of class {', '.join(sorted(missing))}: complete the download, or set "
            f"'data.reader.exclude=[{','.join(sorted(missing | classes))}]'"
        )
    kept = [i for i, word in enumerate(labels.words) if word not in classes]
    names = [labels.names[i] for i in kept]
    return FaceIndex(
        dataset="affectnet",
        class_names=class_names,
        names=names,
        targets=np.array([class_names.index(labels.words[i]) for i in kept], dtype=np.int64),
        read=tree.decoder(names),
        source_key=f"{tree.key()} {sorted(classes)}",
        splits=None if labels.splits is None else np.array([labels.splits[i] for i in kept]),
    )


def _labels(tree: FileTree) -> _Labels:
    """The labels, read from whichever layout is found."""
    if annotations := [match for name in tree.names if (match := ANNOTATION.search(name))]:
        return _official(tree, annotations)
    if csv_names := list(filter(_is_csv, tree.names)):
        if len(csv_names) > 1:
            raise InputError(
                f"{tree.path} holds {' and '.join(csv_names)}: keep one, or name its folder with data.root=DIR"
            )
        return _kaggle(tree, csv_names[0])
    index = index_class_folders(tree, "affectnet")
    words = [_known(index.class_names[target], f"{tree.path}: the class directory") for target in index.targets]
    return _Labels(list(index.names), words, None if index.splits is None else _splits(index.splits))


def _splits(found: np.ndarray) -> list[str]:
    renamed = {} if "test" in found else {"val": "test"}
    return [renamed.get(split, split) for split in found]


def _official(tree: FileTree, annotations: list[re.Match[str]]) -> _Labels:
    labels = _Labels([], [], [])
    unnamed = dict.fromkeys(UNNAMED, 0)
    _warn_of_unlisted(tree, {_image(match) for match in annotations}, "an annotation")
    for match in track(annotations, description="Reading annotations"):
        number = _number(tree, match.string)
        if number in UNNAMED:
            unnamed[number] += 1
            continue
        labels.names.append(_image(match))
        labels.words.append(AFFECTNET_NUMBERS[number])
        labels.splits.append(SPLITS[match["split"]])
    if any(unnamed.values()):
        counts = ", ".join(f"{count} {UNNAMED[number]}" for number, count in unnamed.items())
        log.warning("%s: images without an expression are left out: %s", tree.path, counts)
    return labels


def _image(annotation: re.Match[str]) -> str:
    return f"{annotation['place']}/images/{annotation['id']}.jpg"


def _number(tree: FileTree, name: str) -> int:
    """The expression in one annotation, which AffectNet stores as a number or as text."""
    content = io.BytesIO(tree.read(name))
    try:
        number = int(str(np.lib.format.read_array(content, allow_pickle=False)))
    except ValueError as error:
        raise InputError(f"{tree.path}: {name} holds no number ({error}); download it again or remove it") from error
    if not 0 <= number < len(AFFECTNET_NUMBERS) + len(UNNAMED):
        raise InputError(
            f"{tree.path}: {name} holds expression {number}, but AffectNet has 0 to 10; correct it or remove it"
        )
    return number


def _kaggle(tree: FileTree, csv_name: str) -> _Labels:
    table = tree.read_csv(csv_name)
    if missing := {"pth", "label"} - set(table.columns):
        raise InputError(f"{tree.path / csv_name} has no column {', '.join(sorted(missing))}: it needs pth and label")
    if (incomplete := table[["pth", "label"]].isna().any(axis=1)).any():
        raise InputError(f"{tree.path / csv_name}: line {incomplete.idxmax() + 2} lacks its pth or label")
    above = PurePosixPath(csv_name).parent
    words = [
        _known(label, f"{tree.path / csv_name}: line {line} has the label")
        for line, label in enumerate(table["label"], start=2)
    ]
    rows = pd.DataFrame({"name": [str(above / path) for path in table["pth"]], "word": words}).drop_duplicates()
    if (again := rows["name"].duplicated()).any():
        raise InputError(
            f"{tree.path / csv_name} gives {rows['name'][again.idxmax()]} two labels: keep one of the two lines"
        )
    if len(rows) < len(table):
        log.warning("%s: %d lines repeat another and count once", tree.path / csv_name, len(table) - len(rows))
    _warn_of_unlisted(tree, set(rows["name"]), f"a line in {csv_name}")
    return _Labels(rows["name"].tolist(), rows["word"].tolist(), None)


def _warn_of_unlisted(tree: FileTree, listed: set[str], lacking: str) -> None:
    if unlisted := [name for name in tree.images() if name not in listed]:
        log.warning(
            "%s: %d images without %s are left out, the first %s", tree.path, len(unlisted), lacking, unlisted[0]
        )


def _known(label: str, where: str) -> str:
    if (word := canonical(label)) not in AFFECTNET_CLASSES:
        raise InputError(f"{where} {label!r}, which AffectNet does not have: {', '.join(AFFECTNET_CLASSES)}")
    return word


def _is_csv(name: str) -> bool:
    return PurePosixPath(name).name == CSV_NAME


def _in_class_folder(name: str) -> bool:
    return canonical(PurePosixPath(name).parent.name) in AFFECTNET_CLASSES
