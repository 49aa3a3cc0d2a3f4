"""Random changes of whole batches, drawn anew for each image.   Shapes: N images, C channels, S side in pixels.

Every transform takes and returns images (N, C, S, S) from 0 to 1, and changes each of them with probability `p`. All
of it is drawn where the images are and nothing is read back, so a GPU and its host never wait for each other. The
transforms need a few operations each; kornia's of the same kinds need hundreds for a batch and draw on the host.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_lightning.errors import InputError

Range = tuple[float, float]  # lowest and highest value, drawn uniformly


class RandomTransform(nn.Module):
    """A transform that is applied to each image with probability `p`."""

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise InputError(f"p of {type(self).__name__} must be 0 to 1, got {p}")
        self.p = p

    def range_of(self, name: str, values: Range, *, above: float = -math.inf) -> Range:
        """The two ends of a range; an InputError unless they are in order and above a limit."""
        if len(values) != 2 or not above < values[0] <= values[1]:
            limit = "" if above == -math.inf else f", above {above:g}"
            raise InputError(f"{name} of {type(self).__name__} must be [lowest, highest]{limit}, got {list(values)}")
        return tuple(values)

    def chosen(self, images: Tensor) -> Tensor:
        """Which images to change, bool (N, 1, 1, 1)."""
        return torch.rand(len(images), 1, 1, 1, device=images.device) < self.p


class HorizontalFlip(RandomTransform):
    """The mirror image."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.where(self.chosen(images), images.flip(-1), images)


class Affine(RandomTransform):
    """One affine map about the middle; the border's pixels go on outside the image.

    Args:
        degrees: Largest rotation to either side.
        translate: Largest shift to either side, as a share of S, along each axis.
        scale: Magnification.
        shear: Largest horizontal shear to either side, in degrees.
        p: Probability.
    """

    def __init__(self, *, degrees: float, translate: float, scale: Range, shear: float, p: float) -> None:
        super().__init__(p)
        self.degrees = degrees
        self.translate = translate
        self.scale = self.range_of("scale", scale, above=0)
        self.shear = shear

    def forward(self, images: Tensor) -> Tensor:
        chosen = self.chosen(images).flatten()
        angle, shear = (
            uniform(images, (-math.radians(most), math.radians(most))).flatten() * chosen
            for most in (self.degrees, self.shear)
        )
        scale = torch.where(chosen, uniform(images, self.scale).flatten(), 1.0)
        # torch wants the inverse: from places of the new image to places of the old, which both go from -1 to 1.
        cos, sin, tan = angle.cos() / scale, angle.sin() / scale, shear.tan()
        rows = torch.stack([cos - tan * sin, sin + tan * cos, -sin, cos], dim=1).view(-1, 2, 2)
        most = 2 * self.translate
        shift = torch.empty(len(images), 2, 1, device=images.device).uniform_(-most, most)
        maps = torch.cat([rows, rows @ (shift * chosen[:, None, None])], dim=2)
        grid = F.affine_grid(maps, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


class BrightnessContrast(RandomTransform):
    """A factor, and then another about each image's mean, clipped to 0 to 1 after either.

    Args:
        brightness: The first factor.
        contrast: The second, about the mean.
        p: Probability.
    """

    def __init__(self, *, brightness: Range, contrast: Range, p: float) -> None:
        super().__init__(p)
        self.brightness = self.range_of("brightness", brightness)
        self.contrast = self.range_of("contrast", contrast)

    def forward(self, images: Tensor) -> Tensor:
        chosen = self.chosen(images)
        brightness, contrast = (
            torch.where(chosen, uniform(images, values), 1.0) for values in (self.brightness, self.contrast)
        )
        images = (images * brightness).clamp(max=1)
        return torch.lerp(images.mean((1, 2, 3), keepdim=True), images, contrast).clamp(0, 1)


class Gamma(RandomTransform):
    """A power of each value.

    Args:
        gamma: The exponent.
        p: Probability.
    """

    def __init__(self, *, gamma: Range, p: float) -> None:
        super().__init__(p)
        self.gamma = self.range_of("gamma", gamma, above=0)

    def forward(self, images: Tensor) -> Tensor:
        return images ** torch.where(self.chosen(images), uniform(images, self.gamma), 1.0)


class GaussianNoise(RandomTransform):
    """Independent noise on every value, clipped to 0 to 1.

    Args:
        std: Its standard deviation.
        p: Probability.
    """

    def __init__(self, *, std: float, p: float) -> None:
        super().__init__(p)
        if std < 0:
            raise InputError(f"std of GaussianNoise must be at least 0, got {std}")
        self.std = std

    def forward(self, images: Tensor) -> Tensor:
        return torch.addcmul(images, torch.randn_like(images), self.std * self.chosen(images)).clamp(0, 1)


class Erasing(RandomTransform):
    """A rectangle anywhere in the image, filled with one value (Zhong et al., 2017).

    Args:
        scale: Its area, as a share of the image's.
        ratio: Its height over its width, drawn uniformly on a logarithmic scale.
        value: What it is filled with.
        p: Probability.
    """

    def __init__(self, *, scale: Range, ratio: Range = (0.3, 3.3), value: float = 0.5, p: float) -> None:
        super().__init__(p)
        self.scale = self.range_of("scale", scale, above=0)
        self.ratio = self.range_of("ratio", ratio, above=0)
        self.value = value

    def forward(self, images: Tensor) -> Tensor:
        side = images.shape[-1]
        length = uniform(images, self.scale).sqrt() * side
        stretch = uniform(images, (math.log(self.ratio[0]) / 2, math.log(self.ratio[1]) / 2)).exp()
        chosen = self.chosen(images)
        extent = torch.stack([length * stretch, length / stretch]).round().clamp(1, side)  # height and width
        first = torch.rand(extent.shape, device=images.device).mul(side + 1 - extent).floor()
        place = torch.arange(side, device=images.device)
        rows, columns = (place >= first) & (place < first + extent)
        return torch.where(rows.mT & columns & chosen, self.value, images)


def uniform(images: Tensor, values: Range) -> Tensor:
    """A value for each image, (N, 1, 1, 1), drawn uniformly."""
    return torch.empty(len(images), 1, 1, 1, device=images.device).uniform_(*values)
