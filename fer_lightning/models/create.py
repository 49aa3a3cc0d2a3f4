"""Networks by name, and those of checkpoints."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fer_lightning.checkpoint import network_weights
from fer_lightning.errors import InputError, settings_of
from fer_lightning.models import backbones, seresnet
from fer_lightning.models.backbones import BACKBONES, create_backbone
from fer_lightning.models.cnn import ARCHITECTURES, CNN
from fer_lightning.models.seresnet import SERESNETS, SEResNet
from fer_lightning.settings.kinds import refuse_other_kinds

NAMES = (*ARCHITECTURES, *SERESNETS, *BACKBONES)


def create_model(
    name: str, *, num_classes: int, in_channels: int = 1, image_size: int = 48, **settings: object
) -> nn.Module:
    """Build a network that maps images (N, in_channels, image_size, image_size) to logits (N, num_classes).

    Args:
        name: One of `NAMES`.
        num_classes: Number of classes.
        in_channels: 1 for grey, 3 for colour.
        image_size: Side of the image in pixels.
        settings: Keyword arguments of `CNN` or `SEResNet`; torchvision's networks take none.

    Raises:
        InputError: The network or the setting does not exist, or the image size does not fit the network.
    """
    if name not in NAMES:
        raise InputError(f"unknown network {name!r}: choose from {', '.join(NAMES)}")
    refuse_other_kinds(CNN if name in ARCHITECTURES else SEResNet, settings, "model.net.")
    with settings_of(name):
        if name in ARCHITECTURES:
            row = ARCHITECTURES[name]
            return CNN(row, num_classes=num_classes, in_channels=in_channels, image_size=image_size, **settings)
        if name in SERESNETS:
            _check_side(name, image_size, seresnet.SMALLEST_SIDE)
            return SEResNet(SERESNETS[name], num_classes=num_classes, in_channels=in_channels, **settings)
        _check_side(name, image_size, backbones.SMALLEST_SIDE)
        return create_backbone(name, num_classes=num_classes, in_channels=in_channels, **settings)


def net_of(checkpoint: Mapping[str, Any], name: str) -> nn.Module:
    """The network of a checkpoint, ready to predict; raises InputError if its weights are for another network."""
    hyper_parameters, preprocess = checkpoint["hyper_parameters"], checkpoint["hyper_parameters"]["preprocess"]
    net = create_model(
        **hyper_parameters["net"],
        num_classes=len(hyper_parameters["class_names"]),
        in_channels=preprocess["channels"],
        image_size=preprocess["size"],
    )
    try:
        net.load_state_dict(network_weights(checkpoint))
    except RuntimeError as error:
        raise InputError(
            f"{name} contains weights for another network than it names: {' '.join(str(error).split())}"
        ) from error
    return net.eval()


def _check_side(name: str, image_size: int, smallest: int) -> None:
    if image_size < smallest:
        raise InputError(f"{name} needs images of at least {smallest} pixels, got {image_size}")
