"""Convolutions through spectra are convolutions."""

import pytest
import torch
from torch.nn.functional import conv2d

from fer_lightning.models import create_model
from fer_lightning.models.fourier import MIN_IMAGES, FourierConv2d


@pytest.mark.parametrize("side", [3, 8, 13])
@pytest.mark.parametrize("kernel_size", [1, 4, 5, 8, 9])
def test_maps_and_gradients_are_those_of_a_convolution(kernel_size, side):
    torch.manual_seed(0)
    layer = FourierConv2d(3, 5, kernel_size)
    features = torch.randn(MIN_IMAGES, 3, side, side, requires_grad=True)
    leaves = [features, layer.weight, layer.bias]
    expected = conv2d(*leaves, padding="same")
    maps = layer(features)
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-5)
    weights = torch.randn_like(expected)  # a plain sum would not tell a map from its mirror image
    for found, wanted in zip(
        torch.autograd.grad(maps, leaves, weights), torch.autograd.grad(expected, leaves, weights), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_frozen_layer_passes_gradients_on():
    torch.manual_seed(0)
    layer = FourierConv2d(2, 3, 5).requires_grad_(False)
    features = torch.randn(MIN_IMAGES, 2, 7, 7, requires_grad=True)
    found, wanted = (
        torch.autograd.grad(maps.square().sum(), features)[0]
        for maps in (layer(features), torch.nn.Conv2d.forward(layer, features))
    )
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert layer.weight.grad is None


def test_what_validation_computed_first_trains_as_well():
    layer = FourierConv2d(2, 2, 6)
    features = torch.randn(MIN_IMAGES, 2, 7, 7)
    with torch.inference_mode():
        layer(features)
    layer(features).sum().backward()
    assert layer.weight.grad.isfinite().all()


def differs(layer: torch.nn.Module, features: torch.Tensor) -> bool:
    """Whether a layer gives anything but nn.Conv2d's very bits."""
    return not torch.equal(layer(features), torch.nn.Conv2d.forward(layer, features))


def test_only_batches_in_float32_go_through_spectra():
    torch.manual_seed(0)
    layer = FourierConv2d(8, 8, 7)
    batch = torch.randn(MIN_IMAGES, 8, 12, 12)
    assert differs(layer, batch)
    assert not differs(layer, batch[:-1])
    assert not differs(layer, batch[..., :-1])
    assert not differs(layer.double(), batch.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not differs(layer.float(), batch)


def test_a_network_convolves_through_spectra_where_kernels_are_large_and_channels_many():
    def through_spectra(**settings: object) -> list[bool]:
        net = create_model("cnn4", num_classes=7, **settings)
        return [isinstance(layer, FourierConv2d) for layer in net.features if isinstance(layer, torch.nn.Conv2d)]

    assert through_spectra(kernel_size=5, padding="same") == [False, True, True, True]
    assert not any(through_spectra(kernel_size=4, padding="same") + through_spectra(kernel_size=5, padding="valid"))


def test_an_exported_network_has_plain_convolutions():
    net = create_model("cnn4", num_classes=7, kernel_size=5, padding="same").eval()
    images = torch.zeros(MIN_IMAGES, 1, 48, 48)
    program = torch.export.export(net, (images,))
    convolutions = [node for node in program.graph.nodes if node.target is torch.ops.aten.conv2d.padding]
    assert len(convolutions) == 4


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning", "ignore:`torch.jit.trace:FutureWarning")
def test_a_traced_network_has_plain_convolutions():  # TensorBoard's graph is a trace
    layer = FourierConv2d(2, 2, 5)
    trace = torch.jit.trace(layer, torch.zeros(MIN_IMAGES, 2, 8, 8), check_trace=False)
    assert "aten::_convolution_mode" in str(trace.inlined_graph)
