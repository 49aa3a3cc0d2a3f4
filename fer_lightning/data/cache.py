"""Every image decoded once, into one memory-mapped array of bytes on disk; or, if there are too many, on demand.

A cache is a folder `<dataset>-<key>/` with `images.npy`, uint8 (N, S, S) or (N, S, S, 3), `digests.npy`, uint8 (N, 16),
hashes of the pixels before resizing, and `skipped.json`. If images are decoded on demand, `images.npy` is missing, but
each image was decoded once for the other two files. The key is a hash of the source's files and of the preprocessing,
so that a change of either builds a new cache. It is built under a temporary name and renamed when complete; a second
run that needs the same cache waits for the first.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
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
        images: The file of the array, one row for each image of the index, or an object that decodes them on demand.
        digests: uint8 (N, 16), a hash of each image in its original size.
        skipped: Images that cannot be decoded, position in the index -> reason; their rows are blank.
    """

    images: "Path | DecodedOnDemand"
    digests: np.ndarray = field(compare=False)
    skipped: dict[int, str]

    @property
    def on_demand(self) -> bool:
        """Whether there are too many images to keep, so that each is decoded when it is needed."""
        return isinstance(self.images, DecodedOnDemand)

    def open(self) -> "np.ndarray | DecodedOnDemand":
        """Map the images into memory, read-only, or return an object that decodes the rows of an index array."""
        return np.load(self.images, mmap_mode="r") if isinstance(self.images, Path) else self.images


@dataclass(frozen=True, kw_only=True)
class DecodedOnDemand:
    """Stands in for the array of images (N, S, S) or (N, S, S, 3): indexing it decodes the rows."""

    index: FaceIndex
    preprocess: Preprocess

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        images = [self.preprocess.prepare(self.index.read(int(i))) for i in rows]
        return np.array(images, np.uint8).reshape(-1, *_shape(self.preprocess))


@dataclass(frozen=True)
class Faces:
    """A selection of images, read when they are indexed by their positions in the selection."""

    images: np.ndarray | DecodedOnDemand
    rows: np.ndarray

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        return self.images[self.rows[positions]]


def cached_faces(
    index: FaceIndex,
    preprocess: Preprocess,
    cache_dir: str | Path,
    *,
    on_bad_image: Literal["fail", "skip"] = "fail",
    cache_gb: float = 8.0,
) -> FaceCache:
    """Find the cache of a dataset under a preprocessing, or build it.

    Args:
        index: Index of the dataset.
        preprocess: Preprocessing, whose `prepare` is applied to each image.
        cache_dir: Folder of all caches.
        on_bad_image: `fail` raises an error for an image that cannot be decoded, `skip` lists it.
        cache_gb: Largest size of the decoded images; above it they are decoded on demand.

    Raises:
        InputError: An image cannot be decoded and `on_bad_image` is `fail`, or `cache_dir` cannot be written.
    """
    if on_bad_image not in ("fail", "skip"):
        raise InputError(f"data.on_bad_image must be fail or skip, got {on_bad_image!r}")
    keeps_images = len(index.names) * math.prod(_shape(preprocess)) <= cache_gb * 1e9
    place = Path(cache_dir) / f"{index.dataset}-{_key(index, preprocess, keeps_images)}"
    if not place.exists() or _repaired(index, preprocess, _skipped(place)):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{place}.lock"):
                if not place.exists() or _repaired(index, preprocess, _skipped(place)):
                    shutil.rmtree(place, ignore_errors=True)
                    _build(index, preprocess, place, on_bad_image, keeps_images)
        except OSError as error:
            raise InputError(
                f"cannot write the decoded images of {index.dataset} to {place} ({error.strerror or error}): "
                "free some space there, or choose another place with data.cache_dir=DIR"
            ) from error
    skipped = _skipped(place)
    if skipped and on_bad_image == "fail":
        first = next(iter(skipped))
        raise _bad_image_error(index, f"{index.names[first]} {skipped[first]}")
    return FaceCache(
        images=place / "images.npy" if keeps_images else DecodedOnDemand(index=index, preprocess=preprocess),
        digests=np.load(place / "digests.npy", mmap_mode="r"),
        skipped=skipped,
    )


def _skipped(place: Path) -> dict[int, str]:
    return {int(i): reason for i, reason in json.loads((place / "skipped.json").read_text()).items()}


def _repaired(index: FaceIndex, preprocess: Preprocess, skipped: Iterable[int]) -> bool:
    """Whether an image can be decoded that could not be: an archive's list has the same sums after a good download."""
    for i in skipped:
        with suppress(BadImageError):
            preprocess.prepare(index.read(i))
            return True
    return False


def _shape(preprocess: Preprocess) -> tuple[int, ...]:
    """The shape of one prepared image."""
    side = preprocess.size
    return (side, side) if preprocess.channels == 1 else (side, side, preprocess.channels)


def _key(index: FaceIndex, preprocess: Preprocess, keeps_images: bool) -> str:
    facts = [FORMAT, index.source_key, dict(preprocess.prepare_key()), *([] if keeps_images else ["digests only"])]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _build(index: FaceIndex, preprocess: Preprocess, place: Path, on_bad_image: str, keeps_images: bool) -> None:
    building = place.with_name(f"{place.name}-building")  # one at a time: the lock is held
    shutil.rmtree(building, ignore_errors=True)  # left by a build that was killed
    building.mkdir()
    try:
        path = building / "images.npy" if keeps_images else Path(os.devnull)
        digests, skipped = _decode(index, preprocess, path, on_bad_image)
        np.save(building / "digests.npy", digests)
        (building / "skipped.json").write_text(json.dumps(skipped, indent=1))
        building.rename(place)
    finally:
        shutil.rmtree(building, ignore_errors=True)  # nothing is left there once it has been renamed


def _decode(
    index: FaceIndex, preprocess: Preprocess, path: Path, on_bad_image: str
) -> tuple[np.ndarray, dict[int, str]]:
    """Write all images to a .npy file, in order, and return their digests and those that cannot be decoded."""
    shape = _shape(preprocess)
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(index.names), *shape)}
    digests, skipped = np.zeros((len(index.names), 16), np.uint8), {}
    # Plain writes, not a memory map: a full disk then raises an error here instead of a bus error later.
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
    """A hash of the pixels; a grey image has the same one whether its file stores one channel or three."""
    if image.ndim == 3 and (image == image[..., :1]).all():
        image = image[..., 0]
    content = repr(image.shape).encode() + image.tobytes()
    return np.frombuffer(hashlib.blake2b(content, digest_size=16).digest(), np.uint8)


def _bad_image_error(index: FaceIndex, what: str) -> InputError:
    return InputError(f"{index.dataset}: {what}; replace it, or leave such images out with data.on_bad_image=skip")
