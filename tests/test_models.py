"""cnn4 as MoodScope's Table 1 prints it, and what its options do."""

import pytest
import torch

from fer_lightning.errors import InputError
from fer_lightning.models import create_model


def count(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_cnn4_has_the_papers_parameters():
    assert count(create_model("cnn4", num_classes=7)) == 2_489_095


def test_cnn4_flattens_to_4096_features():
    net = create_model("cnn4", num_classes=7)
    assert net.features(torch.zeros(1, 1, 48, 48)).flatten(1).shape == (1, 4096)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 5])
def test_every_kernel_that_fits_maps_images_to_logits_and_trains_every_parameter(kernel_size, padding):
    net = create_model("cnn4", num_classes=5, kernel_size=kernel_size, padding=padding)
    logits = net(torch.rand(2, 1, 48, 48))
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize("kernel_size", [7, 9])
def test_same_padding_takes_the_papers_large_kernels(kernel_size):
    net = create_model("cnn4", num_classes=7, kernel_size=kernel_size, padding="same")
    assert net(torch.rand(1, 1, 48, 48)).shape == (1, 7)


def test_kernel_7_with_valid_padding_says_why_not_and_what_to_do():
    with pytest.raises(InputError, match=r"48 > 42 > 36 > 18 > 12 > 6 > 0\): use padding=same"):
        create_model("cnn4", num_classes=7, kernel_size=7)


@pytest.mark.parametrize(("image_size", "in_channels"), [(48, 3), (64, 1), (224, 1)])
def test_the_head_follows_the_image_size_and_the_channels(image_size, in_channels):
    net = create_model("cnn4", num_classes=7, image_size=image_size, in_channels=in_channels)
    assert net(torch.rand(1, in_channels, image_size, image_size)).shape == (1, 7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "cnn9"}, "unknown network 'cnn9': there is cnn4"),
        ({"name": "cnn4", "kernel_size": 0}, "kernel_size must be at least 1, got 0"),
        ({"name": "cnn4", "padding": "full"}, "padding must be valid or same, got 'full'"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(InputError, match=message):
        create_model(num_classes=7, **settings)


def test_the_initial_activations_keep_their_scale():
    torch.manual_seed(0)
    features = create_model("cnn4", num_classes=7).features(torch.rand(8, 1, 48, 48))
    assert 0.2 < features.std() < 5
