"""Convolution with large kernels on CPUs, as a product of the spectra of whole maps.

Shapes: N batch, C channels in, D channels out, S side of a map, K of a kernel, L of a spectrum, of which U = L // 2 + 1
rows are kept: the others are their complex conjugates.
"""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

MIN_IMAGES = 16  # the kernels' spectra take as long as those of some images


class FourierConv2d(nn.Conv2d):
    """nn.Conv2d with same padding, in less time for batches in float32 on a CPU; elsewhere it is nn.Conv2d itself.

    For each pixel and pair of channels nn.Conv2d multiplies K * K times, and this 2 to 3 times, whatever K. The spectra
    are products with dense matrices, which a CPU forms faster than fast Fourier transforms of maps as small as these.
    Results are equal up to float32's rounding.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding="same")

    def forward(self, features: Tensor) -> Tensor:
        """Map features (N, C, S, S) to (N, D, S, S)."""
        recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if recorded or not _takes_less_time(features):
            return super().forward(features)
        # What follows, pooling above all, is slow on maps in the order in which spectra leave them.
        maps = _correlate(features, self.weight).contiguous(memory_format=torch.channels_last)
        return maps + self.bias[:, None, None]


def _takes_less_time(features: Tensor) -> bool:
    return (
        features.device.type == "cpu"
        and features.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and len(features) >= MIN_IMAGES
        and features.shape[-1] == features.shape[-2]
    )


def _correlate(features: Tensor, kernels: Tensor) -> Tensor:
    """Slide kernels (D, C, K, K) over features (N, C, S, S) with zeros around them, to (N, D, S, S)."""
    side, size = features.shape[-1], kernels.shape[-1]
    length = side + size // 2  # what wraps around falls on zeros
    waves = _waves(length, 0, side)
    real, imaginary = waves.spectra(features.permute(2, 3, 0, 1))
    kernel_real, kernel_imaginary = _waves(length, -((size - 1) // 2), size).spectra(kernels.permute(2, 3, 1, 0))
    # The product with the kernel's complex conjugate: without that the kernel would be mirrored, as in a convolution.
    maps = waves.maps(
        torch.baddbmm(real @ kernel_real, imaginary, kernel_imaginary),
        torch.baddbmm(imaginary @ kernel_real, real, kernel_imaginary, alpha=-1),
    )
    return maps.permute(2, 3, 0, 1)


class Waves(NamedTuple):
    """The Fourier transform at P neighbouring positions of L in either direction, as two real matrices.

    Attributes:
        rows: (2U, P), from a column of a map to the real and imaginary parts of its spectrum, one after the other.
        columns: (2L, 2P), the same from the real parts and the imaginary parts of a row of these.
        back: (P, 2U), the inverse of `rows`.
    """

    rows: Tensor
    columns: Tensor
    back: Tensor

    def spectra(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """The real and imaginary parts (U * L, A, B) of maps (P, P, A, B)."""
        side, _, *shape = maps.shape
        half = self.rows @ maps.reshape(side, -1)
        full = self.columns @ half.view(-1, 2 * side, math.prod(shape))
        return full.view(-1, 2, *shape).unbind(1)

    def maps(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """The maps (P, P, A, B) of real and imaginary parts (U * L, A, B)."""
        length, side = len(self.columns) // 2, len(self.back)
        shape = real.shape[1:]
        of_real, of_imaginary = (self.columns[part::2].T / length for part in range(2))
        real, imaginary = (part.reshape(-1, length, math.prod(shape)) for part in (real, imaginary))
        half = torch.baddbmm(of_real @ real, of_imaginary.expand(len(real), -1, -1), imaginary)
        return (self.back @ half.view(2 * len(real), -1)).view(side, side, *shape)


@cache
@torch.inference_mode(mode=False)  # what validation computes first, training differentiates through
def _waves(length: int, first: int, count: int) -> Waves:
    """The transform of length L at `count` positions from `first` on."""
    turns = torch.arange(length)[:, None] * torch.arange(first, first + count) % length
    angles = turns.double() * (2 * math.pi / length)
    cosine, sine = angles.cos(), angles.sin()
    half = length // 2 + 1
    rows = torch.stack([cosine, -sine], dim=1)[:half]
    columns = torch.stack([torch.cat([cosine, sine], dim=1), torch.cat([-sine, cosine], dim=1)], dim=1)
    # Each row stands for two, except the first and, where L is even, the last.
    weights = torch.tensor([1.0 if 2 * row in (0, length) else 2.0 for row in range(half)]) / length
    back = (rows * weights[:, None, None]).flatten(0, 1).T
    return Waves(*(matrix.float().contiguous() for matrix in (rows.flatten(0, 1), columns.flatten(0, 1), back)))
