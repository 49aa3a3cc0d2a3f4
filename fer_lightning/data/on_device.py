"""Input on the training device: images that stay there, and augmentation of whole batches.

Shapes: M images of a split, N images of a batch, C channels, S side in pixels.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fer_lightning.data.batch import FaceBatch
from fer_lightning.errors import InputError

log = logging.getLogger(__name__)

MOST = 0.5  # largest share of the device's free memory that a split may take


class BatchAugmentation(nn.Sequential):
    """Transforms in sequence, for images (N, C, S, S) from 0 to 1; random draws differ for each image.

    Those of `batch_transforms` use torch's generator, which is seeded at every epoch, so that a run can be repeated
    and resumed, on a CPU exactly.

    Args:
        transforms: Transforms by name, by which a setting can change one of them; None omits one.

    Raises:
        InputError: They have no names.
    """

    def __init__(self, transforms: Mapping[str, nn.Module | None]) -> None:
        if not isinstance(transforms, Mapping):
            raise InputError("augmentation=batch needs a name for each of its transforms, as NAME: {_target_: ...}")
        super().__init__(OrderedDict((name, each) for name, each in transforms.items() if each is not None))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).clamp(0, 1)


class DeviceLoader:
    """Batches of a split that is kept on the device: nothing is copied during training, and no workers are needed.

    Args:
        images: The split's images as its batches hold them, uint8 or float32 (M, C, S, S), on the device.
        targets: Targets of the whole dataset.
        indices: Positions of the split's images in the dataset, (M,).
        sampler: An EpochSampler; Lightning tells it the epoch.
        batch_size: N.
    """

    def __init__(
        self,
        images: Tensor,
        targets: np.ndarray,
        indices: np.ndarray,
        sampler: Any,
        *,
        batch_size: int,
    ) -> None:
        self.images = images
        self.targets = torch.from_numpy(targets[indices]).to(images.device)
        self.indices = torch.from_numpy(indices).to(images.device)
        self.sampler = sampler
        self.batch_sampler = None  # Lightning asks any loader with a sampler for it
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.sampler) / self.batch_size)

    def __iter__(self) -> Iterator[FaceBatch]:
        positions = torch.from_numpy(self.sampler.positions()).to(self.images.device)
        for part in positions.split(self.batch_size):
            yield FaceBatch(self.images[part], self.targets[part], self.indices[part])


def has_room(device: torch.device, stage: str, needed: int) -> bool:
    """Whether the `needed` bytes of a split may stay on the device; logs a warning if not."""
    free = free_bytes(device)
    if needed <= MOST * free:
        return True
    log.warning(
        "the %s images (%.1f GB) do not fit on %s, which has %.1f GB free: they are copied batch by batch",
        stage,
        needed / 1e9,
        device,
        free / 1e9,
    )
    return False


def free_bytes(device: torch.device) -> int:
    """Free memory of a GPU, in bytes."""
    return torch.cuda.mem_get_info(device)[0]
