"""`result.json`: everything needed to interpret a run's numbers, written last; without it, a run is unfinished."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fer_lightning.atomic import replacing

SCHEMA_VERSION = 1


def write_result(path: Path, facts: dict[str, Any]) -> None:
    """Write `facts` as one JSON file, completely or not at all."""
    with replacing(path) as temporary:
        text = json.dumps({"schema_version": SCHEMA_VERSION, **facts}, indent=2, allow_nan=False)
        temporary.write_text(text + "\n")


def count_parameters(net: nn.Module) -> int:
    """Number of parameters, trainable and frozen."""
    return sum(parameter.numel() for parameter in net.parameters())


def count_multiply_adds(net: nn.Module, example: Tensor) -> int:
    """Multiply-adds of one image (1, C, S, S) through the convolutions and dense layers, as PyTorch counts them."""
    training = net.training
    net.eval()  # batch norm cannot train on one image
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net(example)
    net.train(training)
    return counter.get_total_flops() // 2
