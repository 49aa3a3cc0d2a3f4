"""The LightningDataModule over every dataset.   Shapes: N batch, C channels, S side in pixels."""

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from albumentations import Compose
from torch import nn
from torch.utils.data import DataLoader

from fer_lightning.data.batch import FaceBatch
from fer_lightning.data.cache import FaceCache, Faces, cached_faces
from fer_lightning.data.dataset import EpochSampler, FaceDataset
from fer_lightning.data.faces import FaceIndex
from fer_lightning.data.fingerprint import fingerprint
from fer_lightning.data.on_device import DeviceLoader, has_room
from fer_lightning.data.splits import Split
from fer_lightning.errors import InputError, settings_of
from fer_lightning.machine.cores import usable_cores
from fer_lightning.preprocess import Preprocess

log = logging.getLogger(__name__)

ENOUGH_FOR_STATISTICS = 20_000  # images


class FaceDataModule(L.LightningDataModule):
    """Read, decode once, split, and load a dataset.

    Args:
        reader: Function that returns the FaceIndex; called with `root` if that is set.
        protocol: Function that splits the FaceIndex.
        preprocess: Preprocessing of all images.
        augmentation: Applied to training images only: albumentations to each image, or a module to whole batches on the
            training device. With a module, and always for val and test, the images stay on a GPU with enough memory.
        root: Folder or zip of the dataset; None looks in the reader's default places.
        batch_size: Images per batch and process.
        num_workers: Loader processes; None takes up to 8 with a GPU or if images are decoded on demand, and else 0,
            since on a CPU they would compete with the network for the same cores.
        cache_dir: Folder of the decoded images.
        cache_gb: Largest size of the decoded images there; above it, workers decode each image when it is needed.
        oversample: From 0, where an epoch shows each training image once, to 1, where it draws every class equally
            often; in between, a class with n images is drawn in proportion to n^(1 - oversample).
        on_bad_image: `fail` stops at an image that cannot be decoded, `skip` omits and lists it.
        seed: Seed of the image order and the augmentations.
    """

    def __init__(
        self,
        reader: Callable[..., FaceIndex],
        protocol: Callable[[FaceIndex], Split],
        preprocess: Preprocess,
        *,
        augmentation: Compose | nn.Module | None = None,
        root: str | None = None,
        batch_size: int = 128,
        num_workers: int | None = None,
        cache_dir: str | Path = "data/cache",
        cache_gb: float = 8.0,
        oversample: float = 0.0,
        on_bad_image: Literal["fail", "skip"] = "fail",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise InputError(f"data.batch_size must be at least 1, got {batch_size}")
        if num_workers is not None and num_workers < 0:
            raise InputError(
                f"data.num_workers must be at least 0, or null to choose by the hardware, got {num_workers}"
            )
        if not 0 <= oversample <= 1:
            raise InputError(f"data.oversample must be 0 to 1, got {oversample}")
        if seed < 0:
            raise InputError(f"data.seed must be at least 0, got {seed}")
        if isinstance(augmentation, nn.Module) and preprocess.filters:
            raise InputError(
                "augmentation=batch changes pictures that are filtered already, which no picture to predict is: use "
                "another augmentation, or no filter in preprocess"
            )
        if isinstance(augmentation, Compose):
            try:
                augmentation.strict = True  # else a misspelt argument would only be warned of
            except ValueError as error:
                raise InputError(f"augmentation: {error}") from error
        self.reader = reader
        self.protocol = protocol
        self.augmentation = augmentation
        self.root = root
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.cache_dir = cache_dir
        self.cache_gb = cache_gb
        self.oversample = oversample
        self.on_bad_image = on_bad_image
        self.seed = seed
        self._preprocess = preprocess

    @cached_property
    def index(self) -> FaceIndex:
        """Everything the reader found."""
        where = {} if self.root is None else {"root": self.root}
        with settings_of("the reader"):
            inspect.signature(self.reader).bind(**where)
        return self.reader(**where)

    @cached_property
    def cache(self) -> FaceCache:
        """The decoded images; built on first use."""
        cache = cached_faces(
            self.index, self._preprocess, self.cache_dir, on_bad_image=self.on_bad_image, cache_gb=self.cache_gb
        )
        for i, reason in cache.skipped.items():
            log.warning("left out: %s %s", self.index.names[i], reason)
        return cache

    @cached_property
    def split(self) -> Split:
        """Index arrays into `index`, of images that can be decoded."""
        decoded = np.setdiff1d(np.arange(len(self.index.names)), list(self.cache.skipped))
        with settings_of("the protocol"):
            split = self.protocol(self.index.select(decoded))
        return split.into(decoded)

    @cached_property
    def preprocess(self) -> Preprocess:
        """The preprocessing, with the training split's mean and standard deviation filled in if they are needed."""
        if not self._preprocess.lacks_statistics:
            return self._preprocess
        spread = self.split.train[:: max(1, len(self.split.train) // ENOUGH_FOR_STATISTICS)]
        images = self.cache.open()
        return self._preprocess.fitted(images[[i]][0] for i in spread)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names, in label order."""
        return self.index.class_names

    def has(self, stage: str) -> bool:
        """Whether the protocol gives images to `train`, `val` or `test`."""
        return len(self.split[stage]) > 0

    def class_counts(self, stage: str) -> np.ndarray:
        """Images of each class in a split, int64 (K,)."""
        return np.bincount(self.index.targets[self.split[stage]], minlength=len(self.class_names))

    def class_counts_drawn(self) -> np.ndarray:
        """How many images of each class an epoch draws, float (K,); without `oversample`, all of them."""
        targets = self.index.targets[self.split.train]
        return len(targets) * np.bincount(targets, self._draw_weights(), minlength=len(self.class_names))

    def classes_missing_from(self, stage: str) -> list[str]:
        """Classes without an image in a split."""
        return [name for name, count in zip(self.class_names, self.class_counts(stage), strict=True) if count == 0]

    def faces(self, indices: np.ndarray) -> Faces:
        """The images at these positions in `index`."""
        return Faces(self.cache.open(), indices)

    def has_twin_in_train(self, indices: np.ndarray) -> np.ndarray:
        """Whether `train` contains the exact pixels of the images at these positions, bool (N,)."""
        known = {digest.tobytes() for digest in self.cache.digests[self.split.train]}
        return np.array([self.cache.digests[i].tobytes() in known for i in indices], bool)

    def prepare_data(self) -> None:
        """Build the cache, if nothing has asked for it yet."""
        _ = self.cache

    def dataset(self, stage: str, *, augmented: bool = False) -> FaceDataset:
        """One split's images; as bytes for the device to augment, if whole batches are augmented."""
        on_device = augmented and isinstance(self.augmentation, nn.Module)
        return FaceDataset(
            self.cache,
            self.split[stage],
            self.index.targets,
            self.preprocess,
            augmentation=self.augmentation if augmented and not on_device else None,
            as_bytes=on_device,
            seed=self.seed,
        )

    def augmented_faces(self, positions: Sequence[int], *, epoch: int) -> np.ndarray:
        """Training images as an epoch may show them: uint8 (N, S, S) or (N, S, S, 3)."""
        dataset = self.dataset("train", augmented=True)
        pictures = dataset.pictures([(epoch, position) for position in positions])
        if not dataset.as_bytes:
            return pictures
        planes = self.augmentation(torch.from_numpy(self.preprocess.planes(pictures)).float() / 255)
        return (255 * planes.permute(0, 2, 3, 1)).byte().squeeze(-1).numpy()

    def transfer_batch_to_device(self, batch: FaceBatch, device: torch.device, dataloader_idx: int) -> FaceBatch:
        # Lightning's own looks for tensors in every batch anew.
        return FaceBatch(*(tensor.to(device, non_blocking=device.type == "cuda") for tensor in batch))

    def on_after_batch_transfer(self, batch: FaceBatch, dataloader_idx: int) -> FaceBatch:
        """Augment and scale a batch of bytes on the training device."""
        if batch.images.dtype != torch.uint8:
            return batch
        mean, std = self.preprocess.mean_std
        return batch._replace(images=(self.augmentation(batch.images.float() / 255) - mean) / std)

    def train_dataloader(self) -> DataLoader | DeviceLoader:
        return self._loader("train", training=True)

    def val_dataloader(self) -> DataLoader | DeviceLoader | list:
        return self._loader("val") if self.has("val") else []

    def test_dataloader(self) -> DataLoader | DeviceLoader | list:
        return self._loader("test") if self.has("test") else []

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What was trained and measured on; see `data.fingerprint.fingerprint`."""
        return fingerprint(self.index, self.split, self.cache)

    def _draw_weights(self) -> np.ndarray:
        """How often each training image is drawn, float (N,), adding up to 1."""
        targets = self.index.targets[self.split.train]
        weights = self.class_counts("train")[targets] ** -float(self.oversample)
        return weights / weights.sum()

    @property
    def _gpu(self) -> torch.device | None:
        """The GPU that this process trains or measures on, if it does."""
        device = self.trainer.strategy.root_device if self.trainer is not None else None
        return device if device is not None and device.type == "cuda" else None

    def _loader(self, stage: str, *, training: bool = False) -> DataLoader | DeviceLoader:
        gpu = self._gpu
        num_workers = self.num_workers
        if num_workers is None:
            processes = self.trainer.num_devices if self.trainer is not None else 1  # they share the cores
            share = max(0, usable_cores() // processes - 1)
            num_workers = min(8, share) if gpu or self.cache.on_demand else 0
        dataset = self.dataset(stage, augmented=training)
        sampler = EpochSampler(
            len(dataset),
            shuffle=training,
            weights=self._draw_weights() if training and self.oversample else None,
            seed=self.seed,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
        )
        stays = gpu and (dataset.as_bytes or not training) and not self.cache.on_demand
        if stays and has_room(gpu, stage, dataset.nbytes):
            images = torch.from_numpy(dataset.all_images()).to(gpu)
            return DeviceLoader(images, dataset.targets, dataset.indices, sampler, batch_size=self.batch_size)
        return LateLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=_already_a_batch,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=gpu is not None,
            generator=torch.Generator(),  # a separate one: draws of a loader must not shift the network's dropout
        )


class LateLoader(DataLoader):
    """A DataLoader that starts at its first batch: Lightning starts it before the sampler is told the epoch."""

    def __iter__(self) -> Iterator[FaceBatch]:
        yield from super().__iter__()


def _already_a_batch(batch: FaceBatch) -> FaceBatch:
    return batch
