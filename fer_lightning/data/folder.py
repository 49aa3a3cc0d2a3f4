"""Any folder of class folders: `<class>/image.jpg`, or `train/<class>/image.jpg` with `val` and `test` beside it."""

import logging
from pathlib import Path
from unicodedata import normalize

import numpy as np

from fer_lightning.data.faces import FaceIndex
from fer_lightning.data.tree import FileTree, find_tree, is_image
from fer_lightning.errors import InputError

log = logging.getLogger(__name__)

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def read_folder(root: str | Path | None = None) -> FaceIndex:
    """Index a folder (or zip) of class folders; the classes are the folders' names, sorted.

    The dataset is called by the root's name: folders of two names are two datasets, and one that has grown is still the
    same.

    Args:
        root: Folder or zip; None looks in `data/folder`, then `$FER_DATA/folder`.

    Raises:
        InputError: There are no images, images outside class folders, or fewer than two classes.
    """
    tree = find_tree(
        "folder",
        root,
        holds=lambda name: "/" in name and is_image(name),
        expected="class folders with images (<class>/image.jpg or train/<class>/image.jpg)",
        download="a dataset or collect images into one folder per class",
    )
    index = index_class_folders(tree, "folder" if root is None else _dataset_name(Path(root)))
    log.info("%s: the classes are %s", tree.path, ", ".join(index.class_names))
    return index


def _dataset_name(root: Path) -> str:
    name = root.stem if root.is_file() else root.resolve().name
    return "folder" if name == "folder" else f"folder {name}"


def index_class_folders(tree: FileTree, dataset: str) -> FaceIndex:
    """Index the images of a tree by their folders; raises InputError as `read_folder` does."""
    names = tree.images()
    if empty := tree.empty_folders():
        raise InputError(f"{tree.path}: the folder {', '.join(empty)} is empty; fill it or remove it")
    if not names:
        raise InputError(f"{tree.path} holds no image below its folders ({len(tree.names)} other files)")
    if strange := sorted(set(tree.names) - set(names)):
        log.warning("%s: %d files are not images and are left out, first %s", tree.path, len(strange), strange[0])
        folders = {name.rpartition("/")[0] for name in strange} - {name.rpartition("/")[0] for name in names} - {""}
        if folders:
            log.warning("%s: no image is in %s, which is not counted as a class", tree.path, ", ".join(sorted(folders)))
    parts = _without_common_level([name.split("/")[:-1] for name in names])
    has_splits = _has_splits(tree, names, parts)
    folders = [part[1:] for part in parts] if has_splits else parts  # the class's, and those in it
    labels = [_label(tree, name, below) for name, below in zip(names, folders, strict=True)]
    class_names = tuple(sorted(set(labels)))
    if not {name.lower() for name in class_names} - SPLITS.keys():
        raise InputError(
            f"{tree.path} has the splits {', '.join(class_names)}, but no class folders in them: put each image in one "
            "named after its class, as train/happy/1.png"
        )
    if all(len(below) > 1 and below[1].lower() in SPLITS for below in folders):
        raise InputError(
            f"{tree.path}: {names[0]} lies in a split's folder inside its class's; put it the other way round, "
            "train/<class> beside val/<class> and test/<class>"
        )
    if len(class_names) < 2:
        raise InputError(f"{tree.path} has images of one class only, {class_names[0]!r}: at least two are needed")
    return FaceIndex(
        dataset=dataset,
        class_names=class_names,
        names=names,
        targets=np.array([class_names.index(label) for label in labels], dtype=np.int64),
        read=tree.decoder(names),
        source_key=tree.key(),
        splits=np.array([SPLITS[part[0].lower()] for part in parts]) if has_splits else None,
    )


def _without_common_level(parts: list[list[str]]) -> list[list[str]]:
    """Drop folders that contain every image, such as an archive's own name above its classes, but not a lone split."""
    while len(first := {part[0] for part in parts if part}) == 1 and any(len(part) > 1 for part in parts):
        if first.pop().lower() in SPLITS:
            break
        parts = [part[1:] for part in parts]
    return parts


def _has_splits(tree: FileTree, names: list[str], parts: list[list[str]]) -> bool:
    """Whether the level above the classes is train, val and test; a mixture of the two layouts is refused."""
    in_split = [len(part) > 1 and part[0].lower() in SPLITS for part in parts]
    if any(in_split) and not all(in_split):
        raise InputError(
            f"{tree.path}: {names[in_split.index(True)]} lies in a split's folder, but {names[in_split.index(False)]} "
            "does not; put every image below train/<class>, val/<class> or test/<class>, or none"
        )
    return all(in_split)


def _label(tree: FileTree, name: str, folders: list[str]) -> str:
    if not folders:
        raise InputError(f"{tree.path}: {name} lies in no class folder; put it in one named after its class")
    return normalize("NFC", folders[0])  # some systems write an accent as a letter of its own
