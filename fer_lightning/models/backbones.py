"""torchvision's networks, whose ImageNet weights are the starting point for transfer learning."""

from torch import Tensor, nn

from fer_lightning.errors import InputError

BACKBONES = ("resnet18", "vgg16", "efficientnet_b0")
SMALLEST_SIDE = 33  # pixels; they halve it five times, and batch norm cannot train on a single image of one pixel


def create_backbone(name: str, *, num_classes: int, in_channels: int = 1) -> nn.Module:
    """Build one of `BACKBONES` with random weights.

    Images of 48 pixels work, though these networks halve the side five times: 96 or 224 pixels suit them better.
    """
    from torchvision import models  # takes a second, and few need it

    net = getattr(models, name)(weights=None, num_classes=num_classes)
    first_name, first = next((path, module) for path, module in net.named_modules() if isinstance(module, nn.Conv2d))
    if in_channels != first.in_channels:
        parent, _, attribute = first_name.rpartition(".")
        replacement = nn.Conv2d(
            in_channels, first.out_channels, first.kernel_size, first.stride, first.padding, bias=first.bias is not None
        )
        nn.init.kaiming_normal_(replacement.weight, mode="fan_out", nonlinearity="relu")
        setattr(net.get_submodule(parent), attribute, replacement)
    return net


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """Load torchvision's weights for one of `BACKBONES`, from torch's download folder or from the network.

    Raises:
        InputError: There are none for this network, or they cannot be downloaded.
    """
    if name not in BACKBONES:
        raise InputError(f"there are no ImageNet weights for {name}, only for {', '.join(BACKBONES)}")
    from torchvision import models

    try:
        return models.get_model_weights(name).DEFAULT.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network (URLError), or another file than the hash says
        raise InputError(
            f"torchvision's weights for {name} cannot be downloaded ({error}): download them on a machine with network "
            "access, and give the file with model.init_from=FILE"
        ) from error
