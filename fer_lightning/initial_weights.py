"""Weights that a training starts from: a run's checkpoint, a file of torchvision's, or its download."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fer_lightning.checkpoint import Weights, read_weights
from fer_lightning.errors import InputError
from fer_lightning.inference.bundled import bundled
from fer_lightning.models.backbones import imagenet_weights

log = logging.getLogger(__name__)

MOST_NAMED = 4  # layers in an error
OF_PIXELS = ("clahe", "gaussian_kernel", "laplacian", "scaling")  # settings of the preprocessing


def load_initial_weights(
    net: nn.Module,
    name: str,
    source: str | Path,
    *,
    skip: Sequence[str] = (),
    preprocess: Mapping[str, Any] | None = None,
) -> list[str]:
    """Copy the weights of `source` into a network, all but those of the classes' layer, which stays as it is.

    Weights of a colour picture's network are summed for a gray one, which sees the same in each channel. Those of
    torchvision read red first, pictures here blue first: they are turned round.

    Args:
        net: To be trained.
        name: Of the network, as `create_model` knows it.
        source: `imagenet`, `bundled`, or a checkpoint of a run, or a file of weights.
        skip: Layers or parameters that stay as they are, whatever the source holds.
        preprocess: How this training prepares its pixels; a warning says where the source's were prepared otherwise.

    Returns:
        The names of what stayed as it is.

    Raises:
        InputError: The source cannot be read or had, or does not fit the network in what is not skipped.
    """
    found = _weights_of(name, source)
    weights = _with_channels_of(net, found.by_name, red_first=found.preprocess is None)
    own = net.state_dict()
    if unknown := [layer for layer in skip if not any(_is_part_of(key, [layer]) for key in own)]:
        layers = ", ".join(dict.fromkeys(key.rpartition(".")[0] for key in own))
        raise InputError(f"model.init_skip has {', '.join(unknown)}, but {name} has {layers}")
    left = (classes_layer(net), *skip)
    wanted = {key for key in own if not _is_part_of(key, left)}
    offered = {key for key in weights if not _is_part_of(key, left)}
    if problems := _problems(own, weights, wanted, offered):
        layers = ",".join(sorted({key.rpartition(".")[0] for key in problems})[:MOST_NAMED])
        more = f" and {len(problems) - MOST_NAMED} more" if len(problems) > MOST_NAMED else ""
        raise InputError(
            f"{source} does not fit {name}: {'; '.join(list(problems.values())[:MOST_NAMED])}{more}. "
            f"Should they stay as they start, say so with 'model.init_skip=[{layers}]'"
        )
    for key in OF_PIXELS if found.preprocess and preprocess else ():
        if found.preprocess.get(key) != preprocess[key]:
            log.warning(
                "the weights of %s are used to preprocess.%s=%s, and this run has %s: the same would serve them better",
                source,
                key,
                found.preprocess.get(key),
                preprocess[key],
            )
    net.load_state_dict({key: weights[key] for key in wanted}, strict=False)
    return sorted(own.keys() - wanted)


def classes_layer(net: nn.Module) -> str:
    """The name of the dense layer that gives the logits: a network's last."""
    return [name for name, module in net.named_modules() if isinstance(module, nn.Linear)][-1]


def _weights_of(name: str, source: str | Path) -> Weights:
    if str(source) == "imagenet":
        return Weights(imagenet_weights(name), None)
    return read_weights(bundled(".ckpt") if str(source) == "bundled" else source)


def _is_part_of(key: str, layers: Sequence[str]) -> bool:
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
    """Parameter -> what is wrong with it."""
    problems = {
        key: f"{key} is {tuple(weights[key].shape)} there and {tuple(own[key].shape)} here"
        for key in own
        if key in wanted & offered and weights[key].shape != own[key].shape
    }
    problems |= {key: f"{key} is missing there" for key in own if key in wanted - offered}
    return problems | {key: f"{key} is not in this network" for key in weights if key in offered - wanted}
