"""Fingerprints of a dataset and its splits."""

import hashlib
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np

from fer_lightning.data.cache import FaceCache
from fer_lightning.data.faces import FaceIndex
from fer_lightning.data.splits import STAGES, Split

NO_IMAGES = hashlib.sha256().hexdigest()  # the hash of a split that is empty
PIXELS = 16  # bytes of an image's hash, before its label


def fingerprint(index: FaceIndex, split: Split, cache: FaceCache) -> dict[str, Any]:
    """Protocol, and counts and a hash of pixels and labels per split, as plain data.

    The hash does not depend on file names or order, so that a zip, its folder and the csv of the same pixels agree, nor
    on the preprocessing, so that networks with other input sizes can be compared; a split's hash `pixels` does not
    depend on the labels either. `duplicates` counts the images of a split whose exact pixels are also in `train`.
    """
    digests = {stage: _digests(index, cache, split[stage]) for stage in STAGES}
    known = {digest[:PIXELS] for digest in digests["train"]}
    return {
        "dataset": index.dataset,
        "protocol": split.protocol,
        "leaks": split.leaks,
        "sha256": _hash(chain.from_iterable(digests.values())),
        "skipped": [index.names[i] for i in cache.skipped],
        "splits": {
            stage: {
                "count": len(digests[stage]),
                "classes": _counts(index, split[stage]),
                "sha256": _hash(digests[stage]),
                "pixels": _hash(digest[:PIXELS] for digest in digests[stage]),
            }
            for stage in STAGES
        },
        "duplicates": {stage: sum(digest[:PIXELS] in known for digest in digests[stage]) for stage in STAGES[1:]},
    }


def _digests(index: FaceIndex, cache: FaceCache, positions: np.ndarray) -> list[bytes]:
    """The hash of each image's pixels, then its label."""
    return [cache.digests[i].tobytes() + int(index.targets[i]).to_bytes(2) for i in positions]


def _hash(digests: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def _counts(index: FaceIndex, positions: np.ndarray) -> dict[str, int]:
    counts = np.bincount(index.targets[positions], minlength=len(index.class_names))
    return dict(zip(index.class_names, counts.tolist(), strict=True))
