"""The plain CNNs of the papers.   Shapes: N batch, C channels, S side in pixels, K classes."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from fer_lightning.errors import InputError
from fer_lightning.models.fourier import FourierConv2d

LARGE_KERNEL = 5  # from here on spectra take less time on a CPU, but for the image itself, which has few channels


@dataclass(frozen=True)
class Layers:
    """A row of the architecture table: the layers as a paper prints them, with nothing derived.

    An integer is the number of filters of a convolution in `features` and the units of a dense layer in `hidden`, each
    followed by a ReLU; "P" is a 2x2 max pooling; a float is a dropout rate. The classification head follows.
    """

    features: tuple[int | float | str, ...]
    hidden: tuple[int | float, ...]
    padding: Literal["valid", "same"]
    batch_norm: bool = False  # between each convolution and its ReLU
    initial_weights: Literal["he", "glorot"] = "he"


ARCHITECTURES = {
    # MoodScope (Sharma et al., 2024), Table 1. It prints the last pooling row twice; 4096 flattened features mean once.
    "cnn4": Layers(features=(32, 64, "P", 128, "P", 256, "P"), hidden=(512, 0.2), padding="valid"),
    # MoodScope, section 4: not the network of its Table 1.
    "cnn3": Layers(features=(32, "P", 64, "P", 128, "P"), hidden=(128, 0.2), padding="same", batch_norm=True),
    # EmoSense (Sharvesh et al.), "8L-CNN". It prints 4,232,199 parameters, but no dropout rates: these are ours.
    # Pooling and dropout enlarge activations: with He's weights the first loss is 12, and it learns only one answer.
    "emosense8": Layers(
        features=(128, "P", 0.4, 256, "P", 0.4, 512, "P", 0.4, 512, "P", 0.4),
        hidden=(512, 0.4, 256, 0.3),
        padding="valid",
        initial_weights="glorot",
    ),
    # EmoSense only names a 4L- and a 10L-CNN: these two are the 8L-CNN with half, and one and a half times, as many
    # convolutions. Six with valid padding would run out of pixels, and six poolings of 48 pixels leave none either way.
    "emosense4": Layers(
        features=(128, "P", 0.4, 256, "P", 0.4), hidden=(512, 0.4), padding="valid", initial_weights="glorot"
    ),
    "emosense10": Layers(
        features=(128, "P", 0.4, 256, "P", 0.4, 512, "P", 0.4, 512, "P", 0.4, 512, 0.4, 512, "P", 0.4),
        hidden=(512, 0.4, 256, 0.3, 128, 0.3),
        padding="same",
        initial_weights="glorot",
    ),
    # Ahmad, Singh, Upreti (2025): no dropout.
    "ahmad3": Layers(features=(128, "P", 256, "P", 512), hidden=(128, 0.0), padding="same"),
    # Neamtiu (2023).
    "neamtiu4": Layers(features=(32, 64, "P", 0.25, 128, "P", 128, "P", 0.25), hidden=(1024, 0.5), padding="valid"),
}


class CNN(nn.Module):
    """The layers of a row of `ARCHITECTURES`, followed by the classification head.

    Args:
        layers: Row of `ARCHITECTURES`.
        num_classes: K.
        in_channels: C.
        image_size: S; with valid padding it decides how many convolutions fit.
        kernel_size: Side of every convolution's kernel, odd or even.
        padding: Padding of every convolution; None uses the paper's.
        dropout: One rate for all dropouts; None uses the paper's rates.
        batch_norm: Whether to put a batch norm between each convolution and its ReLU; None follows the paper.

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
        batch_norm: bool | None = None,
    ) -> None:
        super().__init__()
        padding = layers.padding if padding is None else padding
        batch_norm = layers.batch_norm if batch_norm is None else batch_norm
        _check(kernel_size, padding)
        side = _sides(layers, image_size, kernel_size, padding)[-1]
        features: list[nn.Module] = []
        channels = in_channels
        for layer in layers.features:
            if layer == "P":
                features.append(nn.MaxPool2d(2))
            elif isinstance(layer, float):
                features.append(nn.Dropout(layer if dropout is None else dropout))
            else:
                features.append(_convolution(channels, layer, kernel_size, padding, first=not features))
                features += [nn.BatchNorm2d(layer), nn.ReLU()] if batch_norm else [nn.ReLU()]
                channels = layer
        head: list[nn.Module] = [nn.Flatten()]
        units = channels * side**2
        for layer in layers.hidden:
            if isinstance(layer, float):
                head.append(nn.Dropout(layer if dropout is None else dropout))
            else:
                head += [nn.Linear(units, layer), nn.ReLU()]
                units = layer
        self.features = nn.Sequential(*features)
        self.head = nn.Sequential(*head, nn.Linear(units, num_classes))
        _initialise(self, layers.initial_weights)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, S, S) to logits (N, K)."""
        return self.head(self.features(images))


def _convolution(
    in_channels: int, out_channels: int, kernel_size: int, padding: Literal["valid", "same"], *, first: bool
) -> nn.Conv2d:
    if padding == "same" and kernel_size >= LARGE_KERNEL and not first:
        return FourierConv2d(in_channels, out_channels, kernel_size)
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding)


def _initialise(net: nn.Module, scheme: Literal["he", "glorot"]) -> None:
    """He et al. (2015), or Glorot and Bengio (2010), the default of Keras, in which the papers' networks were trained.

    With PyTorch's own default, activations shrink from layer to layer, and cnn4 learns nothing in its first epochs.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if scheme == "he":
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            else:
                nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


def _check(kernel_size: int, padding: str) -> None:
    if kernel_size < 1:
        raise InputError(f"kernel_size must be at least 1, got {kernel_size}")
    if padding not in ("valid", "same"):
        raise InputError(f"padding must be valid or same, got {padding!r}")


def _sides(layers: Layers, image_size: int, kernel_size: int, padding: str) -> list[int]:
    """Side of the image after each convolution and pooling, from `image_size` on."""
    sides = [image_size]
    for layer in layers.features:
        if isinstance(layer, float):
            continue
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
