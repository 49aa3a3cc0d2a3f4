"""Squeeze-and-excitation residual networks for small faces.   Shapes: N batch, C channels, S side, K classes.

Basic blocks of 3 x 3 convolutions (He et al., 2016) with channel attention (Hu et al., 2018), average pooling before
the shortcut's convolution (ResNet-D; He et al., 2019), and a last batch norm that starts at zero, so that each block
starts as its shortcut (Goyal et al., 2017).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from fer_lightning.models.small_maps import SmallMapConv2d

STEM = 32
REDUCTION = 16
SMALLEST_SIDE = 17  # pixels; they halve it four times, and batch norm cannot train on a single image of one pixel


@dataclass(frozen=True)
class Stages:
    """Widths and numbers of blocks of the four stages, each of which halves the side."""

    widths: tuple[int, int, int, int]
    blocks: tuple[int, int, int, int]


SERESNETS = {
    "seresnet_s": Stages(widths=(64, 96, 192, 384), blocks=(1, 1, 1, 1)),
    "seresnet_m": Stages(widths=(64, 128, 224, 416), blocks=(1, 1, 2, 1)),
}


class SEResNet(nn.Module):
    """A stem at full resolution, four stages at 1/2 to 1/16, global average pooling, dropout and a dense layer.

    Args:
        stages: Row of `SERESNETS`.
        num_classes: K.
        in_channels: C.
        dropout: Dropout rate before the last layer.
        drop_path: How often an image skips the last block in training; earlier blocks less (Huang et al., 2016).
    """

    def __init__(
        self,
        stages: Stages,
        *,
        num_classes: int,
        in_channels: int = 1,
        dropout: float = 0.2,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= drop_path <= 1:
            raise ValueError(f"drop_path must be 0 to 1, got {drop_path}")
        self.stem = nn.Sequential(*_conv_bn(in_channels, STEM), nn.ReLU())
        blocks: list[nn.Module] = []
        channels = STEM
        for width, count in zip(stages.widths, stages.blocks, strict=True):
            for number in range(count):
                rate = drop_path * (len(blocks) + 1) / sum(stages.blocks)
                blocks.append(Block(channels, width, stride=1 if number else 2, drop_path=rate))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, S, S) to logits (N, K)."""
        return self.head(self.blocks(self.stem(images)))


class Block(nn.Module):
    """Two convolutions, with channels weighted by attention over the whole image, added to the shortcut."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.drop_path = _drop_path(drop_path)
        self.residual = nn.Sequential(
            *_conv_bn(in_channels, channels, stride=stride), nn.ReLU(), *_conv_bn(channels, channels)
        )
        nn.init.zeros_(self.residual[-1].weight)
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // REDUCTION, 1),
            nn.ReLU(),
            nn.Conv2d(channels // REDUCTION, channels, 1),
            nn.Sigmoid(),
        )
        shortcut: list[nn.Module] = [MeanOfFour()] if stride == 2 else []
        if in_channels != channels:
            shortcut += _conv_bn(in_channels, channels, kernel_size=1)
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, features: Tensor) -> Tensor:
        residual = self.residual(features)
        return torch.relu(self.drop_path(residual * self.attention(residual)) + self.shortcut(features))


class MeanOfFour(nn.Module):
    """Halves maps (N, C, S, S); the last pixels of an odd side are averaged over as many as there are.

    Even sides do without `ceil_mode`, for which ONNX Runtime has no fast pooling: a face takes a fifth less time.
    """

    def forward(self, features: Tensor) -> Tensor:
        odd = torch.jit.is_tracing() or features.shape[-1] % 2 == 1  # a trace must not depend on the side
        return avg_pool2d(features, 2, ceil_mode=odd)


def _conv_bn(in_channels: int, channels: int, *, kernel_size: int = 3, stride: int = 1) -> list[nn.Module]:
    conv = SmallMapConv2d(in_channels, channels, kernel_size, stride)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return [conv, nn.BatchNorm2d(channels)]


def _drop_path(rate: float) -> nn.Module:
    if not rate:
        return nn.Identity()
    from torchvision.ops import StochasticDepth  # takes a second, and few need it

    return StochasticDepth(rate, mode="row")
