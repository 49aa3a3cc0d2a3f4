"""Size of a network and cost of a prediction.   Shapes: C channels, S side in pixels."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


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
