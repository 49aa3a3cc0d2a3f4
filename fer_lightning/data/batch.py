"""The batches that a loader gives to the network.   Shapes: N batch, C channels, S side in pixels."""

from typing import NamedTuple

from torch import Tensor


class FaceBatch(NamedTuple):
    """images float32 (N, C, S, S); targets int64 (N,); indices int64 (N,), positions in the dataset's FaceIndex.

    If whole batches are augmented, the loader's images are uint8; the network still sees float32.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
