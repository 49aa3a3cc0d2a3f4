"""Plain CNNs of the papers.   Shapes: N batch, C channels, S side in pixels, K classes."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from fer_lightning.errors import InputError


@dataclass(frozen=True)
class Layers:
    """A row of the architecture table: what a paper prints, and nothing computed from it."""

    features: tuple[int | str, ...]  # a number is a convolution's filters (with its ReLU), "P" a 2x2 max pooling
    hidden: int  # units of the dense layer between features and classes
    dropout: float  # after that layer
    padding: Literal["valid", "same"]


ARCHITECTURES = {
    # MoodScope (Sharma et al., 2024), Table 1. Its last pooling row stands twice; flatten 4096 settles it: once.
    "cnn4": Layers(features=(32, 64, "P", 128, "P", 256, "P"), hidden=512, dropout=0.2, padding="valid"),
}


class CNN(nn.Module):
    """Convolutions and poolings of a `Layers` row, then a dense layer, dropout and the classes.

    Args:
        layers: Row of `ARCHITECTURES`.
        num_classes: K.
        in_channels: C.
        image_size: S; with valid padding it decides how many convolutions fit.
        kernel_size: Of every convolution, odd or even.
        padding: None takes the paper's.
        dropout: None takes the paper's.

    Raises:
        InputError: The kernels leave no pixels of the image.
    """

    def __init__(
        self,
        layers: Layers,
        *,
        num_classes: int,
        in_channels: int = 1,
        image_size: int = 48,
        kernel_size: int = 3,
        padding: Literal["valid", "same"] | None = None,
        dropout: float | None = None,
    ) -> None:
        super().__init__()
        padding = layers.padding if padding is None else padding
        _check(kernel_size, padding)
        sides = _sides(layers, image_size, kernel_size, padding)
        features: list[nn.Module] = []
        channels = in_channels
        for layer in layers.features:
            if layer == "P":
                features.append(nn.MaxPool2d(2))
            else:
                features += [nn.Conv2d(channels, layer, kernel_size, padding=padding), nn.ReLU()]
                channels = layer
        self.features = nn.Sequential(*features)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * sides[-1] ** 2, layers.hidden),
            nn.ReLU(),
            nn.Dropout(layers.dropout if dropout is None else dropout),
            nn.Linear(layers.hidden, num_classes),
        )
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, S, S) to logits (N, K)."""
        return self.head(self.features(images))


def create_model(name: str, **kwargs: object) -> nn.Module:
    """Build a network by its name in `ARCHITECTURES`; the keyword arguments are those of `CNN`."""
    if name not in ARCHITECTURES:
        raise InputError(f"unknown network {name!r}: there is {', '.join(ARCHITECTURES)}")
    return CNN(ARCHITECTURES[name], **kwargs)


def _initialise(module: nn.Module) -> None:
    """He et al. (2015). PyTorch's default shrinks what ReLUs let through, and cnn4 idles for its first epochs."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)


def _check(kernel_size: int, padding: str) -> None:
    if kernel_size < 1:
        raise InputError(f"kernel_size must be at least 1, got {kernel_size}")
    if padding not in ("valid", "same"):
        raise InputError(f"padding must be valid or same, got {padding!r}")


def _sides(layers: Layers, image_size: int, kernel_size: int, padding: str) -> list[int]:
    """Side of the image after each layer, from `image_size` on."""
    sides = [image_size]
    for layer in layers.features:
        if layer == "P":
            sides.append(sides[-1] // 2)
        else:
            sides.append(sides[-1] if padding == "same" else sides[-1] - kernel_size + 1)
        if sides[-1] < 1:
            raise InputError(
                f"kernel_size={kernel_size} with {padding} padding leaves no pixels of a {image_size} x {image_size} "
                f"image ({' > '.join(str(max(side, 0)) for side in sides)}): use padding=same, a smaller kernel "
                "or a larger image"
            )
    return sides
