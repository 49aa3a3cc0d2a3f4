"""What a reader returns: every face of a dataset by name and label, with no pixel decoded yet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from fer_lightning.errors import InputError


class BadImageError(InputError):
    """An image that does not decode."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} {reason}")
        self.name = name
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class FaceIndex:
    """The faces of one dataset.

    Attributes:
        dataset: Its name: `ckplus`, `fer2013`, ...
        class_names: In label order.
        names: One per image, unique: the file's path below the root, or the row of a csv.
        targets: int64 (N,), indices into `class_names`.
        read: Decodes image i to uint8 (H, W) or BGR (H, W, 3); raises BadImageError.
        source_key: Changes when the files behind `read` do.
        splits: The dataset's own split of each image, `train`, `val` or `test`; None where it has none.
        subjects: Who is seen; None where the dataset does not say.
        sequences: Which recording an image was taken from; None likewise.
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

    def __post_init__(self) -> None:
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


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode a JPEG, PNG or other image file's bytes to uint8 BGR (H, W, 3)."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # no bytes at all, or a header that claims more pixels than OpenCV allows
        image = None
    if image is None:
        raise BadImageError(name, f"({len(data)} bytes) does not decode as an image")
    if _is_cut_short(data):
        raise BadImageError(name, f"({len(data)} bytes) is cut short")
    return image


def _is_cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end marker: older OpenCV decodes such a file without complaint, the rest gray.

    The marker may be far from the file's end: telephones put a video behind a photo.
    """
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in data
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data
    return False
