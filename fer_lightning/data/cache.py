"""Every image decoded once, into one memory-mapped array of bytes on disk; too many for that, whenever it is needed.

A cache is a folder `<dataset>-<key>/` with `images.npy`, uint8 (N, S, S) or (N, S, S, 3), `digests.npy`, uint8 (N, 16),
hashes of the pixels as they were before resizing, and `skipped.json`. Where the images are decoded on demand, the first
is missing, but each was decoded once for the other two. The key is a hash of the source's files and of the
preprocessing, so that a change of either builds another one. It is built under a temporary name and renamed when
complete; a second run that wants the same cache waits for the first.
"""

import hashlib
import json
import math
import os
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
        images: The file of the array, one row for each image of the index, or what decodes them on demand.
        digests: uint8 (N, 16), a hash of each image as the dataset has it, whatever its size here.
        skipped: Images that do not decode, position in the index -> why; their rows are blank.
    """

    images: "Path | DecodedOnDemand"
    digests: np.ndarray = field(compare=False)
    skipped: dict[int, str]

    @property
    def on_demand(self) -> bool:
        """Whether images are too many to be kept, so that each is decoded whenever it is needed."""
        return isinstance(self.images, DecodedOnDemand)

    def open(self) -> "np.ndarray | DecodedOnDemand":
        """Map the images into memory, read-only, or give what decodes those that are asked for by an index array."""
        return np.load(self.images, mmap_mode="r") if isinstance(self.images, Path) else self.images


@dataclass(frozen=True, kw_only=True)
class DecodedOnDemand:
    """Stands for the array of images (N, S, S) or (N, S, S, 3), of which it knows to give rows."""

    index: FaceIndex
    preprocess: Preprocess

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        images = [self.preprocess.prepare(self.index.read(int(i))) for i in rows]
        return np.array(images, np.uint8).reshape(-1, *_shape(self.preprocess))


@dataclass(frozen=True)
class Faces:
    """The rows of some images, read when they are asked for by their positions among these."""

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
    most_gb: float = 8.0,
) -> FaceCache:
    """Find the cache of a dataset under a preprocessing, or build it.

    Args:
        index: Of the dataset.
        preprocess: Its `prepare` is applied to each image.
        cache_dir: Where caches lie.
        on_bad_image: Whether an image that does not decode is an error, or is listed.
        most_gb: The most that the decoded images may take; beyond it they are decoded on demand.

    Raises:
        InputError: An image does not decode and `on_bad_image` is `fail`, or `cache_dir` cannot be written.
    """
    if on_bad_image not in ("fail", "skip"):
        raise InputError(f"data.on_bad_image must be fail or skip, got {on_bad_image!r}")
    keeps_images = len(index.names) * math.prod(_shape(preprocess)) <= most_gb * 1e9
    place = Path(cache_dir) / f"{index.dataset}-{_key(index, preprocess, keeps_images)}"
    if not place.exists():
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{place}.lock"):
                if not place.exists():
                    _build(index, preprocess, place, on_bad_image, keeps_images)
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
        images=place / "images.npy" if keeps_images else DecodedOnDemand(index=index, preprocess=preprocess),
        digests=np.load(place / "digests.npy", mmap_mode="r"),
        skipped=skipped,
    )


def _shape(preprocess: Preprocess) -> tuple[int, ...]:
    """Of one prepared image."""
    side = preprocess.size
    return (side, side) if preprocess.channels == 1 else (side, side, preprocess.channels)


def _key(index: FaceIndex, preprocess: Preprocess, keeps_images: bool) -> str:
    facts = [FORMAT, index.source_key, dict(preprocess.prepare_key()), *([] if keeps_images else ["digests only"])]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _build(index: FaceIndex, preprocess: Preprocess, place: Path, on_bad_image: str, keeps_images: bool) -> None:
    building = place.with_name(f"{place.name}-building")  # one at a time: the lock is held
    shutil.rmtree(building, ignore_errors=True)  # of a build that was killed
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
    """Write all images to a .npy file, in order, and return their digests and those that do not decode."""
    shape = _shape(preprocess)
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
