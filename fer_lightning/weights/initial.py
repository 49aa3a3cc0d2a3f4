"""Weights that training starts from: a checkpoint, a torchvision weights file, or torchvision's download."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from fer_lightning.checkpoint import Weights, read_weights, trainings
from fer_lightning.data.fingerprint import NO_IMAGES
from fer_lightning.errors import InputError
from fer_lightning.models.backbones import imagenet_weights
from fer_lightning.weights.bundled import checkpoint_path

log = logging.getLogger(__name__)

MOST_NAMED = 4  # layers named in an error
# Preprocessing settings that change what the pixels look like.
OF_PIXELS = ("clahe", "gaussian_kernel", "laplacian", "scaling")
STANDARDISED = {"clahe": None, "gaussian_kernel": None, "laplacian": False, "scaling": "standard"}  # torchvision's


class Initialised(NamedTuple):
    """What a network got."""

    new: list[str]  # names of the parameters that were not copied
    training: dict[str, Any]  # what the copied ones were trained on; empty if it is not recorded


def load_initial_weights(
    net: nn.Module,
    name: str,
    source: str | Path,
    *,
    skip: Sequence[str] = (),
    preprocess: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> Initialised:
    """Copy the weights of `source` into a network, except the classification head, which stays as it is.

    The first layer's weights for colour images are summed over the channels for a grey network. torchvision's networks
    expect red first, images here have blue first: the channel order of such weights is reversed.

    Args:
        net: Network to be trained.
        name: Name of the network in `create_model`.
        source: `imagenet`, `bundled`, a run's checkpoint, or a weights file.
        skip: Layers or parameters that are not copied.
        preprocess: This training's preprocessing; a warning says where the source's was different.
        training: What this training is on; a warning says if the source was trained on another split of it.

    Raises:
        InputError: The source cannot be read or downloaded, or the weights to copy do not fit the network.
    """
    found = _weights_of(name, source)
    weights = _with_channels_of(net, found.by_name, red_first=found.preprocess is None)
    own = net.state_dict()
    if unknown := [layer for layer in skip if not any(is_part_of(key, [layer]) for key in own)]:
        layers = ", ".join(dict.fromkeys(key.rpartition(".")[0] for key in own))
        raise InputError(f"model.init_skip has {', '.join(unknown)}, but {name} has {layers}")
    left = (classes_layer(net), *skip)
    wanted = {key for key in own if not is_part_of(key, left)}
    offered = {key for key in weights if not is_part_of(key, left)}
    if problems := _problems(own, weights, wanted, offered):
        more = f" and {len(problems) - MOST_NAMED} more" if len(problems) > MOST_NAMED else ""
        layers = ",".join(sorted({key.rpartition(".")[0] for key in problems}))
        remedy = (
            f"To keep the network's own initial weights there, set 'model.init_skip=[{layers}]'"
            if problems.keys() <= own.keys()
            else "These are weights of another network: choose it with model="
        )
        raise InputError(
            f"{source} does not fit {name}: {'; '.join(list(problems.values())[:MOST_NAMED])}{more}. {remedy}"
        )
    if preprocess is not None:
        _warn_of_other_pixels(source, found.preprocess or STANDARDISED, preprocess)
    if found.training and training:
        warn_of_seen_images(source, found.training, training)
    net.load_state_dict({key: weights[key] for key in wanted}, strict=False)
    return Initialised(sorted(own.keys() - wanted), dict(found.training or {}))


def classes_layer(net: nn.Module) -> str:
    """The name of the classification head: the network's last dense layer, which gives the logits."""
    return [name for name, module in net.named_modules() if isinstance(module, nn.Linear)][-1]


def _warn_of_other_pixels(source: str | Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    for key in OF_PIXELS:
        if theirs.get(key) != ours[key]:
            log.warning(
                "the weights of %s were trained with preprocess.%s=%s, and this run has %s: use the same",
                *(source, key, theirs.get(key), ours[key]),
            )


def warn_of_seen_images(source: str | Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Warn if a network that a training builds on was trained on another split of the training's dataset.

    Not if it held out the same images for val and test, whatever part of the others it was trained on. Also if its
    epoch was chosen on other images, which may be among those that this training is measured on.
    """
    splits = ours.get("splits", {})
    if any(
        of.get("dataset") == ours.get("dataset") and not _compatible(of.get("splits", {}), splits)
        for of in trainings(theirs)
    ):
        log.warning(
            "the weights of %s were trained on another split of %s: they may have seen the images that this run is "
            "measured on, and its scores may be too good",
            source,
            ours.get("dataset"),
        )


def _compatible(theirs: Mapping[str, str], ours: Mapping[str, str]) -> bool:
    """Whether two splits hold out the same images, or train on the same ones and the first chose no epoch on others."""

    def same(stage: str) -> bool:
        return stage in theirs and theirs[stage] == ours.get(stage)

    chosen_elsewhere = theirs.get("val", NO_IMAGES) != NO_IMAGES and not same("val")
    return (same("val") and same("test")) or (same("train") and not chosen_elsewhere)


def _weights_of(name: str, source: str | Path) -> Weights:
    if str(source) == "imagenet":
        return Weights(imagenet_weights(name), None, {"dataset": "imagenet"})
    return read_weights(checkpoint_path(source))


def is_part_of(key: str, layers: Sequence[str]) -> bool:
    """Whether a layer or parameter is one of these, or lies within one of them."""
    return any(key == layer or key.startswith(f"{layer}.") for layer in layers)


def _with_channels_of(net: nn.Module, weights: Mapping[str, Tensor], *, red_first: bool) -> dict[str, Tensor]:
    first = next((name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)), None)
    key = f"{first}.weight"
    weights = dict(weights)
    if key in weights and weights[key].ndim == 4 and weights[key].shape[1] == 3:
        channels = net.get_parameter(key).shape[1]
        if channels == 1:
            weights[key] = weights[key].sum(1, keepdim=True)
        elif channels == 3 and red_first:
            weights[key] = weights[key].flip(1)
    return weights


def _problems(
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor], wanted: set[str], offered: set[str]
) -> dict[str, str]:
    """Map each parameter that does not fit to the reason."""
    problems = {
        key: f"{key} is {tuple(weights[key].shape)} there and {tuple(own[key].shape)} here"
        for key in own
        if key in wanted & offered and weights[key].shape != own[key].shape
    }
    problems |= {key: f"{key} is missing there" for key in own if key in wanted - offered}
    return problems | {key: f"{key} is not in this network" for key in weights if key in offered - wanted}
