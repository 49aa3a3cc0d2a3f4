"""Uniform access to a directory or a zip archive: files by their path below the root."""

import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NoReturn

import numpy as np
import pandas as pd

from fer_lightning.errors import InputError
from fer_lightning.images import IMAGE_SUFFIXES, BadImageError, decode_image
from fer_lightning.labels import canonical
from fer_lightning.text.file_names import is_utf8, printable

# Errors raised when reading a damaged, missing or encrypted file, inside an archive or not.
READ_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError)


class FileTree:
    """The files below a directory or inside a zip archive; hidden files and macOS's `__MACOSX` are not listed.

    Attributes:
        path: The directory or the archive.
        names: POSIX paths relative to it, sorted.

    Raises:
        InputError: `path` looks like an archive, but cannot be read as one, or a file's name is not UTF-8.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        stamps = _zip_stamps(path) if path.is_file() else _directory_stamps(path)
        self._stamps = {name: stamps[name] for name in sorted(stamps) if not _is_hidden(name)}
        self._archives: dict[int, zipfile.ZipFile] = {}
        self.names = tuple(name for name in self._stamps if not name.endswith("/"))
        self._folders = tuple(name for name in self._stamps if name.endswith("/"))
        if unwritable := [name for name in self.names if not is_utf8(name)]:
            raise InputError(
                f"{path} holds {printable(unwritable[0])}, whose name is not UTF-8, so that no table could name it: "
                "rename it (convmv -f latin1 -t utf-8 does)"
            )

    def images(self) -> list[str]:
        """The names with the suffix of an image file."""
        return [name for name in self.names if is_image(name)]

    def empty_folders(self) -> list[str]:
        """Folders with nothing in them, each ending in a slash."""
        return [folder for folder in self._folders if not any(name.startswith(folder) for name in self.names)]

    def key(self) -> str:
        """A hash of names and sizes, with checksums (zip) or modification times (directory)."""
        return hashlib.sha256(repr([(str(self.path), self._stamps)]).encode()).hexdigest()

    def open(self, name: str) -> BinaryIO:
        """Open one file for reading bytes."""
        return self._archive.open(name) if self.path.is_file() else (self.path / name).open("rb")

    def read(self, name: str) -> bytes:
        """One file's bytes.

        Raises:
            BadImageError: The file is damaged in the archive, does not exist, or is a broken link.
            InputError: The disk cannot read it, which says nothing about the image and may be temporary.
        """
        try:
            with self.open(name) as file:
                return file.read()
        except (FileNotFoundError, KeyError) as error:  # a broken link, or a list that names a missing file
            raise BadImageError(name, f"cannot be read from {self.path} ({error})") from error
        except OSError as error:
            raise InputError(
                f"{name} cannot be read from {self.path} ({error.strerror or error}): check its permissions, or try "
                "again when its disk responds"
            ) from error
        except READ_ERRORS as error:
            raise BadImageError(name, f"cannot be read from {self.path} ({error})") from error

    def parse(self, name: str, pattern: re.Pattern[str], class_names: Sequence[str], named: str) -> re.Match[str]:
        """Match an image's path with a dataset's pattern, whose group `folder` is its class.

        Raises:
            InputError: The path is not `named`, in words, as the dataset's are, or its class is another.
        """
        if (match := pattern.search(name)) is None:
            raise InputError(
                f"{self.path}: {name} is not named {named}; remove or rename it, or use data=folder for images of "
                "your own"
            )
        if canonical(match["folder"]) not in class_names:
            raise InputError(
                f"{self.path}: the class directory {match['folder']!r} is none of {', '.join(class_names)}; rename it, "
                "or use data=folder for classes of your own"
            )
        return match

    def read_csv(self, name: str, **options: Any) -> pd.DataFrame:
        """Read a table of text.

        Args:
            name: Its path below the root.
            options: Further arguments of `pandas.read_csv`.

        Raises:
            InputError: It cannot be read as csv.
        """
        try:
            with self.open(name) as file:
                return pd.read_csv(file, dtype=str, **options)
        except (ValueError, *READ_ERRORS) as error:
            raise InputError(f"{self.path / name} is not a readable csv file ({error})") from error

    def decoder(self, names: Sequence[str]) -> Callable[[int], np.ndarray]:
        """A function that decodes the image names[i] to uint8 BGR (H, W, 3) and can be sent to another process."""
        return partial(_decode, self, names)

    @property
    def _archive(self) -> zipfile.ZipFile:
        """The archive, opened once per process: forked processes would move each other's position in a shared file."""
        if os.getpid() not in self._archives:
            self._archives = {os.getpid(): zipfile.ZipFile(self.path)}
        return self._archives[os.getpid()]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_archives": {}}


def _decode(tree: FileTree, names: Sequence[str], i: int) -> np.ndarray:
    return decode_image(tree.read(names[i]), names[i])


def is_image(name: str) -> bool:
    """Whether a file is an image by its suffix."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def find_tree(
    dataset: str, root: str | Path | None, *, holds: Callable[[str], bool], expected: str, download: str
) -> FileTree:
    """Find a dataset's files as the user has them: unpacked below `root`, a zip archive in it, or `root` itself a zip.

    Args:
        dataset: Folder to look for if `root` is None: `data/<dataset>`, `$FER_DATA/<dataset>`.
        root: A directory or an archive.
        holds: Function that tells whether a file name belongs to the dataset.
        expected: Description of the expected files, for the error.
        download: Description of where to get them, for the error.

    Raises:
        InputError: The place does not exist, has no files of the dataset, or has more than one archive of it.
    """
    places = [Path(root)] if root is not None else _default_places(dataset)
    for place in places:
        if not place.exists():
            continue
        if any(map(holds, (tree := FileTree(place)).names)):
            return tree
        archives = [FileTree(path) for path in sorted(place.glob("*.zip"))] if place.is_dir() else []
        if len(fitting := [archive for archive in archives if any(map(holds, archive.names))]) > 1:
            raise InputError(
                f"{place} holds several archives of {dataset}, {' and '.join(tree.path.name for tree in fitting)}: "
                "unpack them there, or name one with data.root=ARCHIVE"
            )
        if fitting:
            return fitting[0]
    tried = " and ".join(str(place.absolute()) for place in places)
    raise InputError(
        f"no {expected} found in {tried}: download {download}, put it there (zip or unpacked), or give its place "
        f"with data.root=DIR"
    )


def _default_places(dataset: str) -> list[Path]:
    places = [Path("data") / dataset]
    if "FER_DATA" in os.environ:
        places.append(Path(os.environ["FER_DATA"]) / dataset)
    return places


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _zip_stamps(path: Path) -> dict[str, tuple[int, int]]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {info.filename: (info.file_size, info.CRC) for info in archive.infolist()}
    except (zipfile.BadZipFile, EOFError) as error:
        raise InputError(
            f"{path} ({path.stat().st_size:,} bytes) is cut short or not a zip archive ({error}): download it again, "
            "or, if it is not an archive, give the folder that holds it with data.root=DIR"
        ) from error
    except OSError as error:
        _refuse(error)


def _directory_stamps(path: Path) -> dict[str, tuple[int, int]]:
    stamps = {}
    for folder, subfolders, files in os.walk(path, followlinks=True, onerror=_refuse):
        _refuse_loop(Path(folder), path)
        for file in files:
            full = os.path.join(folder, file)  # noqa: PTH118 - pathlib doubles the time on 36,000 files
            # A broken link is listed too; reading it fails later, with its name.
            stat = os.stat(full) if os.path.exists(full) else os.lstat(full)  # noqa: PTH110, PTH116
            stamps[os.path.relpath(full, path).replace(os.sep, "/")] = (stat.st_size, stat.st_mtime_ns)
        if not files and not subfolders:
            stamps[os.path.relpath(folder, path).replace(os.sep, "/") + "/"] = (0, 0)
    return stamps


def _refuse_loop(folder: Path, root: Path) -> None:
    """Raise an error for a link to a folder that it lies in, in which os.walk would find the same images for ever."""
    above = [parent for parent in folder.parents if parent == root or root in parent.parents]
    if folder.resolve() in {parent.resolve() for parent in above}:
        raise InputError(f"{folder} is a link to a folder that holds it: remove the link")


def _refuse(error: OSError) -> NoReturn:
    """Raise an error for an unreadable folder, which os.walk would skip silently."""
    raise InputError(f"{error.filename} cannot be read ({error.strerror}): make it readable") from error
