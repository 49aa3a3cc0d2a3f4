"""The embedded dataset: faces drawn from a seed, with nothing to download."""

import functools

import numpy as np

from fer_lightning.data.drawing import DRAWING_VERSION, render_face
from fer_lightning.data.faces import FaceIndex
from fer_lightning.errors import InputError
from fer_lightning.labels import FER2013_CLASSES


def read_synthetic(
    *, train: int = 5600, val: int = 700, test: int = 700, subjects: int = 140, seed: int = 0
) -> FaceIndex:
    """Index the synthetic faces; an image is drawn when it is read.

    Classes are balanced within each split, and no subject is in two splits.

    Args:
        train: Number of training images; 0 for none.
        val: Number of validation images; 0 for none.
        test: Number of test images; 0 for none.
        subjects: Number of people, distributed over the splits 80/10/10.
        seed: Seed of who and what is seen where; image i has a seed of its own, derived from this one and i. A person
            looks the same under every seed.

    Raises:
        InputError: A split is too small for all classes, or there are too few subjects for all splits.
    """
    counts = {"train": train, "val": val, "test": test}
    classes = len(FER2013_CLASSES)
    for split, count in counts.items():
        if count != 0 and count < classes:
            raise InputError(f"{split}={count} images cannot show {classes} expressions: give 0 or at least {classes}")
    if seed < 0:
        raise InputError(f"seed={seed} cannot be drawn from: give 0 or more")
    if subjects < 10:
        raise InputError(f"subjects={subjects} people cannot be distributed 80/10/10: give at least 10")

    rng = np.random.default_rng(seed)
    people = np.split(rng.permutation(subjects), [subjects * 8 // 10, subjects * 9 // 10])
    splits = np.repeat(list(counts), list(counts.values()))
    targets = np.concatenate([rng.permutation(np.arange(count) % classes) for count in counts.values()])
    seen = np.concatenate(
        [rng.permutation(np.resize(some, count)) for some, count in zip(people, counts.values(), strict=True)]
    )
    seeds = np.random.SeedSequence(seed).generate_state(len(targets), np.uint64)
    return FaceIndex(
        dataset="synthetic",
        class_names=FER2013_CLASSES,
        names=[
            f"{split}/{FER2013_CLASSES[target]}/S{subject:03d}_{i:06d}.png"
            for i, (split, target, subject) in enumerate(zip(splits, targets, seen, strict=True))
        ],
        targets=targets,
        read=functools.partial(_read, targets, seen, seeds),
        source_key=f"synthetic-v{DRAWING_VERSION}-{train}-{val}-{test}-{subjects}-{seed}",
        splits=splits,
        subjects=np.array([f"S{subject:03d}" for subject in seen]),
    )


def _read(targets: np.ndarray, subjects: np.ndarray, seeds: np.ndarray, i: int) -> np.ndarray:
    return render_face(int(targets[i]), subject=int(subjects[i]), seed=int(seeds[i]))
