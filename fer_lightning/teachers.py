"""Trained networks from whose answers another one learns.   Shapes: N batch, C channels, S side, K classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fer_lightning.checkpoint import check_same, load_checkpoint
from fer_lightning.models import net_of
from fer_lightning.weights.bundled import checkpoint_path
from fer_lightning.weights.initial import warn_of_seen_images


class Teachers:
    """Trained networks that see the same augmented images as the one that learns from them (Hinton et al., 2015).

    It is no module, so that they are neither saved nor averaged with the network that learns.

    Args:
        sources: `bundled` or checkpoints.
        class_names: Class names of the network that learns.
        preprocess: Its preprocessing, as plain data.
        training: What it is trained on; a warning says if a teacher was trained on another split of it.

    Attributes:
        trainings: What each of them was trained on; empty where that is not recorded.

    Raises:
        InputError: One cannot be read, has other classes, or expects other pixels.
    """

    def __init__(
        self,
        sources: Sequence[str],
        class_names: Sequence[str],
        preprocess: Mapping[str, Any],
        training: Mapping[str, Any],
    ) -> None:
        checkpoints = {str(source): load_checkpoint(checkpoint_path(source)) for source in sources}
        for source, checkpoint in checkpoints.items():
            for name, ours in (("class_names", list(class_names)), ("preprocess", dict(preprocess))):
                check_same(name, checkpoint["hyper_parameters"][name], ours, source)
        self._nets = [net_of(checkpoint, source) for source, checkpoint in checkpoints.items()]
        self.trainings = [
            dict(checkpoint["hyper_parameters"].get("training") or {}) for checkpoint in checkpoints.values()
        ]
        for source, theirs in zip(checkpoints, self.trainings, strict=True):
            warn_of_seen_images(source, theirs, training)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Teachers":
        """The copy of the model that holds its averaged weights learns from the same ones."""
        return self

    def to(self, device: torch.device) -> None:
        """Move them to a device."""
        for net in self._nets:
            net.to(device, memory_format=torch.channels_last)

    def compile(self) -> None:
        """Compile them at their first images: in float32 on a CPU 0.8 times the time."""
        for net in self._nets:
            net.compile(dynamic=False)

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Map images (N, C, S, S) to answers, float32 (N, K): each network answers for its share of the images.

        Which one answers for an image changes with the order of the images. On average the loss is therefore that of
        the mean of all answers (cross-entropy is linear in them), and several networks take no longer than one.
        """
        shares = images.tensor_split(len(self._nets))
        return torch.cat([net(share).float().softmax(1) for net, share in zip(self._nets, shares, strict=True)])
