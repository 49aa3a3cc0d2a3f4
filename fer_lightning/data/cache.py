"""Every image decoded once, into one memory-mapped array of bytes on disk.

A cache is a folder `<dataset>-<key>/` with `images.npy`, uint8 (N, S, S) or (N, S, S, 3), `digests.npy`, uint8 (N, 16),
hashes of the pixels as they were before resizing, and `skipped.json`. The key
is a hash of the source's files and of the preprocessing, so that a change of either builds another one. It is built
under a temporary name and renamed when complete; a second run that wants the same cache waits for the first.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from filelock import FileLock
from rich.progress import track

from fer_lightning.data.faces import FaceIndex
from fer_lightning.errors import InputError
from fer_lightning.images import BadImageError
from fer_lightning.preprocess import Preprocess

FORMAT = 2  # raise when the layout of a cache or the decoding changes


@dataclass(frozen=True, kw_only=True)
class FaceCache:
    """A complete cache on disk.

    Attributes:
        images_path: The array, one row for each image of the index.
        digests: uint8 (N, 16), a hash of each image as the dataset has it, whatever its size here.
        skipped: Images that do not decode, position in the index -> why; their rows are blank.
    """

    images_path: Path
    digests: np.ndarray = field(compare=False)
    skipped: dict[int, str]

    def open(self) -> np.ndarray:
        """Map the images into memory, read-only."""
        return np.load(self.images_path, mmap_mode="r")


def cached_faces(
    index: FaceIndex, preprocess: Preprocess, cache_dir: str | Path, *, on_bad_image: Literal["fail", "skip"] = "fail"
) -> FaceCache:
    """Find the cache of a dataset under a preprocessing, or build it.

    Raises:
        InputError: An image does not decode and `on_bad_image` is `fail`, or `cache_dir` cannot be written.
    """
    if on_bad_image not in ("fail", "skip"):
        raise InputError(f"data.on_bad_image must be fail or skip, got {on_bad_image!r}")
    place = Path(cache_dir) / f"{index.dataset}-{_key(index, preprocess)}"
    if not place.exists():
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{place}.lock"):
                if not place.exists():
                    _build(index, preprocess, place, on_bad_image)
        except OSError as error:
            raise InputError(
                f"cannot write the decoded images of {index.dataset} to {place} ({error.strerror or error}): "
                "free some space there, or choose another place with data.cache_dir=DIR"
            ) from error
    skipped = {int(i): reason for i, reason in json.loads((place / "skipped.json").read_text()).items()}
    if skipped and on_bad_image == "fail":
        first = next(iter(skipped))
        raise _bad_image_error(index, f"{index.names[first]} {skipped[first]}")
    return FaceCache(
        images_path=place / "images.npy", digests=np.load(place / "digests.npy", mmap_mode="r"), skipped=skipped
    )


def _key(index: FaceIndex, preprocess: Preprocess) -> str:
    facts = [FORMAT, index.source_key, dict(preprocess.prepare_key())]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _build(index: FaceIndex, preprocess: Preprocess, place: Path, on_bad_image: str) -> None:
    building = place.with_name(f"{place.name}-building")  # one at a time: the lock is held
    shutil.rmtree(building, ignore_errors=True)  # of a build that was killed
    building.mkdir()
    try:
        digests, skipped = _decode(index, preprocess, building / "images.npy", on_bad_image)
        np.save(building / "digests.npy", digests)
        (building / "skipped.json").write_text(json.dumps(skipped, indent=1))
        building.rename(place)
    finally:
        shutil.rmtree(building, ignore_errors=True)  # nothing is left there once it has been renamed


def _decode(
    index: FaceIndex, preprocess: Preprocess, path: Path, on_bad_image: str
) -> tuple[np.ndarray, dict[int, str]]:
    """Write all images to a .npy file, in order, and return their digests and those that do not decode."""
    shape = (preprocess.size, preprocess.size) + (() if preprocess.channels == 1 else (preprocess.channels,))
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(index.names), *shape)}
    digests, skipped = np.zeros((len(index.names), 16), np.uint8), {}
    # Plain writes, not a memory map: a full disk is then an error here and not a bus error later.
    with path.open("wb") as file:
        np.lib.format.write_array_header_2_0(file, header)
        for i in track(range(len(index.names)), description=f"Decoding {index.dataset}"):
            try:
                decoded = index.read(i)
                digests[i] = _digest(decoded)
                image = preprocess.prepare(decoded)
            except BadImageError as error:
                if on_bad_image == "fail":
                    raise _bad_image_error(index, str(error)) from error
                skipped[i] = error.reason
                image = np.zeros(shape, np.uint8)
            file.write(image.tobytes())
    return digests, skipped


def _digest(image: np.ndarray) -> np.ndarray:
    """Of the pixels; a gray picture has the same however its file keeps it."""
    if image.ndim == 3 and (image == image[..., :1]).all():
        image = image[..., 0]
    content = repr(image.shape).encode() + image.tobytes()
    return np.frombuffer(hashlib.blake2b(content, digest_size=16).digest(), np.uint8)


def _bad_image_error(index: FaceIndex, what: str) -> InputError:
    return InputError(f"{index.dataset}: {what}; replace it, or leave such images out with data.on_bad_image=skip")
