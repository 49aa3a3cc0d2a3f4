"""Protocols: which images are for training, for choosing the epoch and for reporting, as index arrays.

Every function takes a FaceIndex (and settings by keyword) and returns a Split. `val` is for choosing, `test` for
reporting; any may be empty, and without `val` the number of epochs is fixed: the best test epoch is never chosen.
"""

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from fer_lightning.data.faces import FaceIndex
from fer_lightning.errors import InputError

STAGES = ("train", "val", "test")
NOTHING = np.array([], dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Index arrays of a protocol, each sorted.

    Attributes:
        protocol: Name that is given with every number measured under the protocol.
        leaks: Whether the protocol puts near-copies of training images (frames of one recording, other images of one
            person) into `test`, so that its numbers can only be compared with papers that did the same.
    """

    protocol: str
    train: np.ndarray
    val: np.ndarray = field(default_factory=lambda: NOTHING)
    test: np.ndarray = field(default_factory=lambda: NOTHING)
    leaks: bool = False

    def __post_init__(self) -> None:
        everything = np.concatenate([self.train, self.val, self.test])
        if len(np.unique(everything)) != len(everything):
            raise AssertionError(f"protocol {self.protocol} put an image into two splits")

    def __getitem__(self, stage: str) -> np.ndarray:
        """The index array of `train`, `val` or `test`."""
        return getattr(self, stage)

    def into(self, positions: np.ndarray) -> "Split":
        """The same split for a larger index, from which the split index was selected by `positions`."""
        return replace(self, **{stage: positions[self[stage]] for stage in STAGES})


def official(index: FaceIndex, *, val_percent: int = 0, train_percent: int | None = None, seed: int = 0) -> Split:
    """The dataset's own split. FER2013: Training is `train`, PublicTest is `val`, PrivateTest is `test`.

    Args:
        index: Index with `splits`.
        val_percent: Stratified part of `train` to use as `val`, if the dataset has no validation split of its own.
        train_percent: Stratified part to keep of what `train` then has, the rest being in no split; None keeps all.
        seed: Seed for drawing those parts.
    """
    _check(seed)
    if index.splits is None:
        raise InputError(
            f"{index.dataset} has no official split: use protocol=random_80_10_10, "
            + ("protocol=subject_kfold, " if index.subjects is not None else "")
            + "or protocol=unsplit to measure a model on all of it"
        )
    if not 0 <= val_percent < 100:
        raise InputError(f"protocol.val_percent must be 0 to 99, got {val_percent}")
    if train_percent is not None and not 0 < train_percent < 100:
        raise InputError(f"protocol.train_percent must be 1 to 99, or null to keep all, got {train_percent}")
    stages = {stage: np.flatnonzero(index.splits == stage) for stage in STAGES}
    if val_percent and len(stages["val"]):
        raise InputError(f"{index.dataset} has a val split of its own: omit protocol.val_percent={val_percent}")
    if val_percent:
        size = round(len(stages["train"]) * val_percent / 100)
        asked, remedy = f"protocol.val_percent={val_percent}", "choose another, or 0 for no val"
        parts = _stratified(index, stages["train"], size, whole=stages["train"], seed=seed, asked=asked, remedy=remedy)
        stages["train"], stages["val"] = map(np.sort, parts)
    if train_percent is None:
        return Split(protocol="official", **stages)
    rest = len(stages["train"]) - round(len(stages["train"]) * train_percent / 100)
    asked, remedy = f"protocol.train_percent={train_percent}", "choose another, or null to keep all"
    train = stages["train"]
    kept, _ = _stratified(index, train, rest, whole=train, seed=seed, asked=asked, remedy=remedy)
    return Split(protocol=f"official_train_{train_percent}", **stages | {"train": np.sort(kept)})


def unsplit(index: FaceIndex) -> Split:
    """Every image is `test`, for measuring a model that was trained on others."""
    return Split(protocol="unsplit", train=NOTHING, test=np.arange(len(index.targets)))


def random(index: FaceIndex, *, percent: tuple[int, int, int], seed: int) -> Split:
    """A stratified random split of all images, regardless of person; only for comparison with papers that used it.

    Args:
        index: Index, whose own split is ignored if it has one.
        percent: Percentages of train, val and test, adding up to 100; val may be 0.
        seed: Seed of the split, independent of the run's seed.
    """
    _check(seed)
    name = "random_" + "_".join(str(part) for part in percent if part)
    if len(percent) != 3 or sum(percent) != 100 or min(percent) < 0 or percent[0] == 0 or percent[2] == 0:
        raise InputError(
            f"protocol {name}: percent must be three parts of 100 with train and test above 0, got {percent}"
        )
    count = len(index.targets)
    draw = partial(
        _stratified,
        index,
        whole=np.arange(count),
        seed=seed,
        asked=f"protocol {name}",
        remedy="add some, use a protocol with fewer splits (random_80_20), or only measure (unsplit)",
    )
    train, rest = draw(np.arange(count), round(count * (100 - percent[0]) / 100))
    if percent[1]:
        val, test = draw(rest, round(len(rest) * percent[2] / (percent[1] + percent[2])))
    else:
        val, test = NOTHING, rest
    return Split(protocol=name, train=np.sort(train), val=np.sort(val), test=np.sort(test), leaks=True)


def subject_kfold(index: FaceIndex, *, fold: int, n_folds: int, val_folds: int = 0, seed: int = 0) -> Split:
    """One fold of a cross-validation in which no person is in two splits; the folds' predictions are pooled.

    Args:
        index: Index with `subjects`.
        fold: The fold that is `test`, from 0.
        n_folds: Number of folds.
        val_folds: Number of following folds used to choose the epoch instead of for training; 0 fixes the epochs.
        seed: Seed of the folds, the same for every fold of a cross-validation.
    """
    _check(seed)
    if index.subjects is None:
        raise InputError(
            f"{index.dataset} does not say who is seen, so it cannot be split by subject: use "
            f"protocol={'random_80_10_10' if index.splits is None else 'official'}"
        )
    n_subjects = len(np.unique(index.subjects))
    if not 2 <= n_folds <= n_subjects:
        raise InputError(f"protocol.n_folds must be 2 to {n_subjects} (the number of subjects), got {n_folds}")
    if not 0 <= fold < n_folds:
        raise InputError(f"protocol.fold must be 0 to {n_folds - 1}, got {fold}")
    if not 0 <= val_folds <= n_folds - 2:
        raise InputError(f"protocol.val_folds must be 0 to {n_folds - 2}, got {val_folds}")
    kfold = StratifiedGroupKFold(n_splits=n_folds, shuffle=True, random_state=seed)
    try:
        folds = [test for _, test in kfold.split(index.targets, index.targets, groups=index.subjects)]
    except ValueError as error:
        raise InputError(
            f"protocol subject_kfold_{n_folds} cannot be stratified over {len(index.targets)} images ({error}): "
            "lower protocol.n_folds"
        ) from error
    rotated = folds[fold:] + folds[:fold]
    return Split(
        protocol=f"subject_kfold_{n_folds}",
        test=np.sort(rotated[0]),
        val=np.sort(np.concatenate([NOTHING, *rotated[1 : 1 + val_folds]])),
        train=np.sort(np.concatenate(rotated[1 + val_folds :])),
    )


def _check(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise InputError(f"protocol.seed must be 0 to {2**32 - 1}, got {seed}")


def _stratified(
    index: FaceIndex, positions: np.ndarray, size: int, *, whole: np.ndarray, seed: int, asked: str, remedy: str
) -> tuple[np.ndarray, np.ndarray]:
    """Draw `size` of the positions, with equal shares of each class; returns the rest and those.

    The InputError of what cannot be drawn counts the classes of `whole`, of which the positions are a part.
    """
    try:
        return train_test_split(positions, test_size=size, stratify=index.targets[positions], random_state=seed)
    except ValueError as error:
        targets = index.targets[whole]
        counts = np.bincount(targets, minlength=len(index.class_names))
        rarest = int(counts.argmin())
        raise InputError(
            f"{asked} cannot give each part images of each class: the rarest of {len(targets)} images, "
            f"{index.class_names[rarest]}, has {counts[rarest]} ({error}); {remedy}"
        ) from error
