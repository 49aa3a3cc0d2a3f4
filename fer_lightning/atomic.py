"""Files that are written completely or not at all, and folders that no other process has."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to, and rename it to `path` if the block ends without an error."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def new_folder(path: Path) -> Path:
    """Make a folder, or if another process was first, in the same second say, the same with a number."""
    folder, numbers = path, count(2)
    while True:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not (folder.exists() or folder.is_symlink()):  # it is a folder above that is in the way
                raise
            folder = path.with_name(f"{path.name}_{next(numbers)}")
        else:
            return folder
