"""The papers' networks as they print them, and what their options do."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fer_lightning.errors import InputError
from fer_lightning.models import create_model
from fer_lightning.models.cnn import ARCHITECTURES
from fer_lightning.models.cost import count_multiply_adds
from fer_lightning.models.seresnet import MeanOfFour

PARAMETERS = {  # at kernel 3, 7 classes, 48 x 48 gray; the emosense ones but 8 are sums of our own tables
    "cnn3": 683_975,
    "cnn4": 2_489_095,
    "emosense4": 13_407_751,
    "emosense8": 4_232_199,
    "emosense10": 8_983_815,
    "ahmad3": 10_914_823,
    "neamtiu4": 2_345_607,
}


SERESNETS = {"seresnet_s": (2_815_157, 91.7), "seresnet_m": (4_464_553, 148.3)}  # parameters, millions of multiply-adds


def count(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_network_has_its_papers_parameters(name):
    assert count(create_model(name, num_classes=7)) == PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "features"),
    [("cnn3", 4608), ("cnn4", 4096), ("emosense8", 512), ("ahmad3", 73_728), ("neamtiu4", 2048)],
)
def test_a_network_flattens_to_its_papers_features(name, features):
    net = create_model(name, num_classes=7)
    assert net.features(torch.zeros(1, 1, 48, 48)).flatten(1).shape == (1, features)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_batch_norm_can_be_put_behind_every_convolution_and_left_out(name):
    for batch_norm in (True, False):
        features = list(create_model(name, num_classes=7, batch_norm=batch_norm).features)
        convolutions = [i for i, layer in enumerate(features) if isinstance(layer, torch.nn.Conv2d)]
        follow = [type(features[i + 1]) for i in convolutions]
        assert set(follow) == {torch.nn.BatchNorm2d if batch_norm else torch.nn.ReLU}


@pytest.mark.parametrize(
    ("name", "padding", "kernel_size"),
    [
        *((name, "same", size) for name in ARCHITECTURES for size in range(1, 10)),
        *((name, "valid", size) for name in ARCHITECTURES for size in (1, 2, 3) if name != "emosense10"),
    ],
)
def test_every_kernel_that_fits_maps_images_to_logits_and_trains_every_parameter(name, padding, kernel_size):
    with torch.device("meta"):  # shapes only
        net = create_model(name, num_classes=5, kernel_size=kernel_size, padding=padding)
        logits = net(torch.rand(2, 1, 48, 48))
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize("name", SERESNETS)
def test_a_seresnet_has_its_size_and_cost(name):
    net = create_model(name, num_classes=7).eval()
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 1, 48, 48))
    assert (count(net), round(counter.get_total_flops() / 2e6, 1)) == SERESNETS[name]


@pytest.mark.parametrize("name", ["seresnet_s", "resnet18", "efficientnet_b0"])
@pytest.mark.parametrize(("image_size", "in_channels"), [(48, 1), (50, 3), (96, 1)])
def test_a_deep_network_takes_any_size_and_trains_every_parameter(name, image_size, in_channels):
    net = create_model(name, num_classes=5, image_size=image_size, in_channels=in_channels)
    logits = net(torch.rand(2, in_channels, image_size, image_size))
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_vgg16_is_torchvisions_with_our_classes_and_channels():
    with torch.device("meta"):
        net = create_model("vgg16", num_classes=7).eval()
        assert net(torch.rand(1, 1, 48, 48)).shape == (1, 7)
    assert count(net) == 134_289_223 - 2 * 64 * 9


def test_a_block_of_a_seresnet_starts_as_its_shortcut():
    block = create_model("seresnet_s", num_classes=7).blocks[0].eval()
    features = torch.rand(2, 32, 8, 8)
    torch.testing.assert_close(block(features), torch.relu(block.shortcut(features)))


def test_a_maps_last_pixels_are_averaged_over_as_many_as_there_are():
    maps = torch.arange(9.0).view(1, 1, 3, 3)
    assert MeanOfFour()(maps).flatten().tolist() == [2, 3.5, 6.5, 8]
    assert MeanOfFour()(maps[..., :2, :2]).flatten().tolist() == [2]


def test_kernel_7_with_valid_padding_says_why_not_and_what_to_do():
    with pytest.raises(InputError, match=r"48 > 42 > 36 > 18 > 12 > 6 > 0\): use padding=same"):
        create_model("cnn4", num_classes=7, kernel_size=7)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("image_size", "in_channels"), [(48, 3), (224, 1)])
def test_the_head_follows_the_image_size_and_the_channels(name, image_size, in_channels):
    with torch.device("meta"):  # shapes only: some heads of 224 pixels hold a gigabyte
        net = create_model(name, num_classes=7, image_size=image_size, in_channels=in_channels).eval()
        assert net(torch.rand(1, in_channels, image_size, image_size)).shape == (1, 7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "cnn9"}, "unknown network 'cnn9': choose from cnn4, cnn3, emosense8"),
        ({"name": "cnn4", "drop": 0.1}, "cnn4 does not accept these settings: .*unexpected keyword argument 'drop'"),
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


@pytest.mark.parametrize("name", ["emosense4", "emosense8", "emosense10"])
def test_a_network_with_many_dropouts_starts_from_a_guess(name):
    torch.manual_seed(0)
    net = create_model(name, num_classes=7)
    loss = torch.nn.functional.cross_entropy(net(torch.randn(16, 1, 48, 48)), torch.arange(16) % 7)
    assert loss < 2.5  # ln 7 is 1.95; after He's weights emosense8 starts at 12


def test_drop_path_passes_over_later_blocks_more_often_and_none_when_predicting():
    torch.manual_seed(0)
    net = create_model("seresnet_s", num_classes=3, drop_path=0.4)
    assert [block.drop_path.p for block in net.blocks] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    first = net.blocks[0]
    features, shortcuts = torch.rand(64, 32, 8, 8), []
    first.shortcut.register_forward_hook(lambda *found: shortcuts.append(found[-1]))
    torch.nn.init.ones_(first.residual[-1].weight)
    passed = (first.train()(features) == torch.relu(shortcuts[0])).flatten(1).all(1)
    assert 0 < passed.sum() < 32
    plain = create_model("seresnet_s", num_classes=3)
    plain.load_state_dict(net.state_dict())
    images = torch.rand(4, 1, 48, 48)
    assert torch.equal(net.eval()(images), plain.eval()(images))


def test_the_cost_of_a_network_in_training_is_counted_down_to_one_pixel():
    net = create_model("seresnet_s", num_classes=3).train()
    assert count_multiply_adds(net, torch.zeros(1, 1, 16, 16)) > 1e6
    assert net.training
