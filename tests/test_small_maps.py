"""Convolutions over small maps are convolutions."""

import pytest
import torch
from torch.nn.functional import conv2d

from fer_lightning.models import create_model
from fer_lightning.models.small_maps import FEW, SmallMapConv2d


def maps_and_gradients(maps, leaves):
    weights = torch.randn(maps.shape, generator=torch.Generator().manual_seed(1)).to(maps.dtype)
    return [maps, *torch.autograd.grad(maps, leaves, weights)]


@pytest.mark.parametrize("side", [2, 5, FEW])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_maps_and_gradients_are_those_of_a_convolution(kernel_size, stride, side, bfloat16):
    torch.manual_seed(0)
    layer = SmallMapConv2d(3, 4, kernel_size, stride)
    leaves = [torch.randn(5, 3, side * stride, side * stride - stride + 1, requires_grad=True), layer.weight]
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        found = maps_and_gradients(layer(leaves[0]), leaves)
        wanted = maps_and_gradients(conv2d(*leaves, None, stride, kernel_size // 2), leaves)
    tolerance = 2e-2 if bfloat16 else 1e-5
    for each, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(each, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())


def test_the_first_layer_asks_for_no_gradient_of_the_picture():
    layer = SmallMapConv2d(1, 2, 3)
    layer(torch.randn(2, 1, FEW, FEW)).sum().backward()
    assert layer.weight.grad.isfinite().all()


def has_own_gradient(layer: torch.nn.Module, features: torch.Tensor) -> bool:
    return type(layer(features).grad_fn).__name__ == "_ConvolutionBackward"


def test_only_small_maps_have_a_gradient_of_their_own():
    assert has_own_gradient(SmallMapConv2d(2, 2, 3), torch.randn(2, 2, FEW, FEW))
    assert not has_own_gradient(SmallMapConv2d(2, 2, 3), torch.randn(2, 2, FEW + 1, FEW + 1))
    assert has_own_gradient(SmallMapConv2d(2, 2, 3, stride=2), torch.randn(2, 2, 2 * FEW, 2 * FEW))


def test_a_seresnet_trains_the_same_way_with_and_without(monkeypatch):
    def gradients(few: int) -> list[torch.Tensor]:
        monkeypatch.setattr("fer_lightning.models.small_maps.FEW", few)
        torch.manual_seed(0)
        net = create_model("seresnet_s", num_classes=3, dropout=0).train()
        torch.nn.init.ones_(net.blocks[-1].residual[-1].weight)  # at zero, nothing reaches the convolutions before it
        net(torch.randn(4, 1, 48, 48)).square().sum().backward()
        return [parameter.grad for parameter in net.parameters()]

    for found, wanted in zip(gradients(FEW), gradients(0), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())
