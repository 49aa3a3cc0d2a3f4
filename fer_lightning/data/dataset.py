"""The images of a split in batches, and their order.   Shapes: N batch, M images of a split, C channels, S side."""

import random
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from albumentations import Compose
from torch.utils.data import Dataset, Sampler

from fer_lightning.data.batch import FaceBatch
from fer_lightning.data.cache import DecodedOnDemand, FaceCache
from fer_lightning.preprocess import Preprocess
from fer_lightning.seeding import seed_from


class FaceDataset(Dataset):
    """Whole batches of prepared images, optionally augmented, then filtered and, except with `as_bytes`, scaled.

    Args:
        cache: Decoded images.
        indices: Positions in the FaceIndex of this dataset's images, int64.
        targets: Targets of the whole FaceIndex.
        preprocess: Preprocessing, whose `finish` is applied last.
        augmentation: Applied to each uint8 image; None for no augmentation.
        as_bytes: Leave the scaling to the device: the batch's images are uint8.
        seed: Determines, with the epoch and the batch, every random draw, whichever worker makes it.
    """

    def __init__(
        self,
        cache: FaceCache,
        indices: np.ndarray,
        targets: np.ndarray,
        preprocess: Preprocess,
        *,
        augmentation: Compose | None = None,
        as_bytes: bool = False,
        seed: int = 0,
    ) -> None:
        self.cache = cache
        self.indices = indices
        self.targets = targets
        self.preprocess = preprocess
        self.augmentation = augmentation
        self.as_bytes = as_bytes
        self.seed = seed

    @cached_property
    def _images(self) -> np.ndarray | DecodedOnDemand:
        return self.cache.open()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the memory map, which each worker opens itself: pickling it would send every pixel."""
        return {name: value for name, value in self.__dict__.items() if name != "_images"}

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, draws: list[tuple[int, int]]) -> FaceBatch:
        """Build the batch of (epoch, position) pairs that an EpochSampler drew."""
        indices = self.indices[[position for _, position in draws]]
        return FaceBatch(
            torch.from_numpy(self._finished(self.pictures(draws))),
            torch.from_numpy(self.targets[indices]),
            torch.from_numpy(indices),
        )

    @property
    def nbytes(self) -> int:
        """Size of all of the split's images as batches hold them."""
        return len(self) * self.preprocess.channels * self.preprocess.size**2 * (1 if self.as_bytes else 4)

    def all_images(self) -> np.ndarray:
        """All of the split's images as batches hold them, but not augmented: uint8 or float32 (M, C, S, S)."""
        return self._finished(self._images[self.indices])

    def pictures(self, draws: list[tuple[int, int]]) -> np.ndarray:
        """The same batch before filters and scaling: uint8 (N, S, S) or (N, S, S, 3), augmented."""
        images = self._images[self.indices[[position for _, position in draws]]]
        if self.augmentation is None:
            return images
        # albumentations has a random generator of its own, which neither seed_everything nor a worker's seed sets.
        epoch, first = draws[0]
        seed = seed_from(self.seed, epoch, first)
        # The transforms share them: with a seed, each would get its own, and all would begin with the same draws.
        self.augmentation.set_random_state(np.random.default_rng(seed), random.Random(seed))
        return np.stack([self.augmentation(image=image)["image"] for image in images])

    def _finished(self, pictures: np.ndarray) -> np.ndarray:
        return self.preprocess.planes(pictures) if self.as_bytes else self.preprocess.finish(pictures)


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, position) pairs for one process, in an order that depends only on seed and epoch.

    The pairs tell loader workers the epoch, which they would not know otherwise. Without shuffling, the processes share
    all positions exactly once, so that none is counted twice in a metric; with shuffling, each process gets the same
    number, as gradients need, and up to world_size - 1 positions are left out of an epoch. With `weights`, which add up
    to 1, a shuffled epoch draws positions with replacement instead.
    """

    def __init__(
        self,
        length: int,
        *,
        shuffle: bool,
        weights: np.ndarray | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.length = length
        self.shuffle = shuffle
        self.weights = weights
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before every epoch, also after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.shuffle:
            return self.length // self.world_size
        return len(range(self.rank, self.length, self.world_size))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(self.epoch, position) for position in self.positions().tolist()])

    def positions(self) -> np.ndarray:
        """This process's positions in the epoch's order, for loaders that need no pairs."""
        order = np.arange(self.length)
        if self.shuffle:
            generator = np.random.default_rng(seed_from(self.seed, self.epoch))
            if self.weights is None:
                order = generator.permutation(self.length)
            else:
                order = generator.choice(self.length, self.length, p=self.weights)
        return order[self.rank :: self.world_size][: len(self)]
