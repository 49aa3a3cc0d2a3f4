"""Convolution with large kernels on CPUs, as a product of the spectra of whole maps.

Shapes: N batch, C channels in, D channels out, S side of a map, K of a kernel, L of a spectrum, of which U = L // 2 + 1
rows are kept: the others are their complex conjugates. Of a dimension that holds twice as much, the first half are real
parts and the second half imaginary parts.
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
        maps = _Correlation.apply(features, self.weight).contiguous(memory_format=torch.channels_last)
        return maps + self.bias[:, None, None]


def _takes_less_time(features: Tensor) -> bool:
    return (
        features.device.type == "cpu"
        and features.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and len(features) >= MIN_IMAGES
        and features.shape[-1] == features.shape[-2]
    )


class _Correlation(torch.autograd.Function):
    """Slides kernels (D, C, K, K) over features (N, C, S, S) with zeros around them, to (N, D, S, S).

    Its gradients are written out: those that PyTorch derives copy each spectrum several times.
    """

    @staticmethod
    def forward(ctx, features: Tensor, kernels: Tensor) -> Tensor:
        ctx.waves = waves, kernel_waves = _waves_of(features, kernels)
        spectra = waves.spectra(features.permute(2, 3, 0, 1))
        kernel_spectra = kernel_waves.spectra(kernels.permute(2, 3, 1, 0))
        ctx.save_for_backward(spectra, kernel_spectra)
        real, imaginary = kernel_spectra.chunk(2, dim=1)
        # The product with the kernel's complex conjugate: else the kernel would be mirrored, as in a convolution.
        product = _add_turned(spectra @ real, spectra @ imaginary, -1)
        return waves.maps(product).permute(2, 3, 0, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        spectra, kernel_spectra = ctx.saved_tensors
        waves, kernel_waves = (waves.adjoint() for waves in ctx.waves)
        product = waves.spectra(gradient.permute(2, 3, 0, 1))
        of_features = of_kernels = None
        if ctx.needs_input_grad[0]:
            real, imaginary = kernel_spectra.mT.chunk(2, dim=2)
            of_spectra = _add_turned(product @ real, product @ imaginary, 1)
            of_features = waves.maps(of_spectra).permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)
        if ctx.needs_input_grad[1]:
            (real, imaginary), (of_real, of_imaginary) = spectra.mT.chunk(2, dim=2), product.chunk(2, dim=1)
            of_turned = torch.baddbmm(imaginary @ of_real, real, of_imaginary, alpha=-1)
            of_kernels = kernel_waves.maps(torch.cat([spectra.mT @ product, of_turned], dim=1)).permute(3, 2, 0, 1)
        return of_features, of_kernels


def _add_turned(total: Tensor, spectra: Tensor, quarters: int) -> Tensor:
    """Add i (quarters 1) or -i (quarters -1) times some spectra to others (U * L, 2A, B), in place."""
    (total_real, total_imaginary), (real, imaginary) = total.chunk(2, dim=1), spectra.chunk(2, dim=1)
    total_real.sub_(imaginary, alpha=quarters)
    total_imaginary.add_(real, alpha=quarters)
    return total


class Waves(NamedTuple):
    """The Fourier transform at P neighbouring positions of L in either direction, and back, as real matrices.

    Attributes:
        rows: (2U, P), from a column of a map to the parts of its spectrum, here one after the other.
        columns: (2L, 2P), the same from the real parts and the imaginary parts of a row of these.
        back_columns: (2P, 2L), the inverse of `columns`.
        back_rows: (P, 2U), the inverse of `rows`.
    """

    rows: Tensor
    columns: Tensor
    back_columns: Tensor
    back_rows: Tensor

    def spectra(self, maps: Tensor) -> Tensor:
        """The spectra (U * L, 2A, B) of maps (P, P, A, B)."""
        side, _, *shape = maps.shape
        half = self.rows @ maps.reshape(side, -1)
        full = self.columns @ half.view(-1, 2 * side, math.prod(shape))
        return full.view(-1, 2 * shape[0], shape[1])

    def maps(self, spectra: Tensor) -> Tensor:
        """The maps (P, P, A, B) of spectra (U * L, 2A, B)."""
        side, (_, parts, last) = len(self.back_rows), spectra.shape
        half = self.back_columns @ spectra.view(-1, self.back_columns.shape[1], parts // 2 * last)
        return (self.back_rows @ half.view(self.back_rows.shape[1], -1)).view(side, side, parts // 2, last)

    def adjoint(self) -> "Waves":
        """What carries gradients: from those of `maps` to its spectra's, and from those of `spectra` to its maps'."""
        return Waves(*(matrix.T for matrix in reversed(self)))


def _waves_of(features: Tensor, kernels: Tensor) -> tuple[Waves, Waves]:
    side, size = features.shape[-1], kernels.shape[-1]
    length = side + size // 2  # what wraps around falls on zeros
    return _waves(length, 0, side), _waves(length, -((size - 1) // 2), size)


@cache
@torch.inference_mode(mode=False)  # what validation computes first, training differentiates through
def _waves(length: int, first: int, count: int) -> Waves:
    """The transform of length L at `count` positions from `first` on."""
    turns = torch.arange(length)[:, None] * torch.arange(first, first + count) % length
    angles = turns.double() * (2 * math.pi / length)
    cosine, sine = angles.cos(), angles.sin()
    half = length // 2 + 1
    rows = torch.stack([cosine, -sine], dim=1)[:half]
    columns = torch.stack([torch.cat([cosine, sine], dim=1), torch.cat([-sine, cosine], dim=1)], dim=1).flatten(0, 1)
    # Each row stands for two, except the first and, where L is even, the last.
    weights = torch.tensor([1.0 if 2 * row in (0, length) else 2.0 for row in range(half)]) / length
    back_rows = (rows * weights[:, None, None]).flatten(0, 1).T
    matrices = (rows.flatten(0, 1), columns, columns.T / length, back_rows)
    return Waves(*(matrix.float().contiguous() for matrix in matrices))
