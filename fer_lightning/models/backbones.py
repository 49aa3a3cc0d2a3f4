"""torchvision's networks, whose ImageNet weights are where transfer learning starts."""

from torch import Tensor, nn

from fer_lightning.errors import InputError

BACKBONES = ("resnet18", "vgg16", "efficientnet_b0")


def create_backbone(name: str, *, num_classes: int, in_channels: int = 1) -> nn.Module:
    """Build one of `BACKBONES`, its weights random.

    Pictures of 48 pixels pass, though these nets halve the side five times: 96 or 224 suit them better.
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
    """Download, or find where torch keeps downloads, the weights that torchvision offers for one of `BACKBONES`.

    Raises:
        InputError: There are none for this network, or they cannot be fetched.
    """
    if name not in BACKBONES:
        raise InputError(f"there are no ImageNet weights of {name}, only of {', '.join(BACKBONES)}")
    from torchvision import models

    try:
        return models.get_model_weights(name).DEFAULT.get_state_dict(progress=True, check_hash=True)
    except OSError as error:  # URLError is one
        raise InputError(
            f"torchvision's weights of {name} cannot be downloaded ({error}): fetch them where there is a network, "
            "and give the file with model.init_from=FILE"
        ) from error
