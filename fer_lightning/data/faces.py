"""What a reader returns: every face of a dataset by name and label, with no image decoded yet."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fer_lightning.errors import InputError


@dataclass(frozen=True, kw_only=True)
class FaceIndex:
    """The faces of one dataset.

    Attributes:
        dataset: Name of the dataset: `ckplus`, `fer2013`, ...
        class_names: Class names, in label order.
        names: Unique name of each image: the file's path below the root, or the row of a csv.
        targets: int64 (N,), indices into `class_names`.
        read: Decodes image i to uint8 (H, W) or BGR (H, W, 3); raises BadImageError.
        source_key: Key that changes when the files behind `read` change.
        splits: The dataset's own split of each image, `train`, `val` or `test`; None if it has none.
        subjects: The person in each image; None if the dataset does not say.
        sequences: The recording from which each image was taken; None if the dataset does not say.
        lacks: The part of the dataset that this copy is without, in words; None if it is whole.
    """

    dataset: str
    class_names: tuple[str, ...]
    names: Sequence[str]
    targets: np.ndarray
    read: Callable[[int], np.ndarray]
    source_key: str
    splits: np.ndarray | None = None
    subjects: np.ndarray | None = None
    sequences: np.ndarray | None = None
    lacks: str | None = None

    def __post_init__(self) -> None:
        if repeated := [name for name, count in Counter(self.names).items() if count > 1]:
            raise InputError(f"{self.dataset}: {repeated[0]} is listed twice")
        # torchmetrics does not check targets for logits: a label out of range has to be caught here.
        outside = np.flatnonzero((self.targets < 0) | (self.targets >= len(self.class_names)))
        if len(outside):
            raise InputError(
                f"{self.names[outside[0]]} has label {self.targets[outside[0]]}, but {self.dataset} has classes 0 to "
                f"{len(self.class_names) - 1} ({', '.join(self.class_names)})"
            )
        counts = np.bincount(self.targets, minlength=len(self.class_names))
        if not counts.all():
            empty = [name for name, count in zip(self.class_names, counts, strict=True) if count == 0]
            raise InputError(
                f"{self.dataset} has no image of class {', '.join(empty)}: {len(self.targets)} images were found; "
                "complete the download or remove the empty class"
            )

    def select(self, positions: np.ndarray) -> "FaceIndex":
        """The faces at these positions, renumbered."""

        def pick(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[positions]

        return replace(
            self,
            names=[self.names[i] for i in positions],
            targets=self.targets[positions],
            read=lambda i: self.read(int(positions[i])),
            splits=pick(self.splits),
            subjects=pick(self.subjects),
            sequences=pick(self.sequences),
        )
