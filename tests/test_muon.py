import copy

import pytest
import torch
from torch import nn

from fer_lightning.errors import InputError
from fer_lightning.muon import LIKE_ADAM, Muon, orthogonal
from fer_lightning.optim import one_cycle


def with_gradients(module, *, size=1.0, seed=0):
    torch.manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = size * torch.randn_like(parameter)
    return module


def steps(module, optimizer, count):
    for seed in range(count):
        with_gradients(module, seed=seed)
        optimizer.step()


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 16)])
def test_filters_keep_their_singular_vectors_and_get_singular_values_near_one(shape):
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    filters = left * torch.logspace(0, -2, len(right)) @ right
    made = left.T @ orthogonal(filters) @ right.T
    assert made.shape == (len(right), len(right))
    assert (made - made.diag().diag()).abs().max() < 1e-3
    assert 0.68 < made.diag().min() <= made.diag().max() < 1.21


def test_filters_of_zeros_stay():
    assert not orthogonal(torch.zeros(3, 8)).any()


@pytest.mark.parametrize("size", [1e-4, 1e3])
def test_a_convolution_moves_as_far_whatever_the_size_of_its_gradients(size):
    conv = with_gradients(nn.Conv2d(3, 8, 3, bias=False).to(memory_format=torch.channels_last), size=size)
    before = conv.weight.detach().clone()
    Muon(conv.parameters(), lr=0.1, momentum=0.9).step()
    expected = LIKE_ADAM * 27**0.5 * orthogonal(conv.weight.grad.flatten(1)).view_as(before)
    torch.testing.assert_close((before - conv.weight) / 0.1, expected, rtol=1e-3, atol=1e-4)


def test_a_convolution_follows_its_momentum_and_looks_ahead_by_its_gradient():
    conv = nn.Conv2d(3, 8, 3, bias=False)
    optimizer = Muon(conv.parameters(), lr=0.1, momentum=0.8)
    first = with_gradients(conv, seed=1).weight.grad
    optimizer.step()
    before = conv.weight.detach().clone()
    second = with_gradients(conv, seed=2).weight.grad
    optimizer.step()
    ahead = 0.2 * second + 0.8 * (0.8 * 0.2 * first + 0.2 * second)
    expected = LIKE_ADAM * 27**0.5 * orthogonal(ahead.flatten(1)).view_as(before)
    torch.testing.assert_close((before - conv.weight) / 0.1, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("others", [nn.Linear(5, 4), nn.Conv2d(1, 4, 3), nn.BatchNorm2d(6)])
def test_everything_but_convolutions_learns_as_with_adamw(others):
    mine, its = copy.deepcopy(others), others
    settings = {"lr": 0.01, "weight_decay": 0.1, "betas": (0.9, 0.99)}
    steps(mine, Muon(mine.parameters(), **settings), 3)
    steps(its, torch.optim.AdamW(its.parameters(), **settings), 3)
    for ours, theirs in zip(mine.parameters(), its.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_weights_shrink_by_the_decay_times_the_rate():
    conv = nn.Conv2d(3, 8, 3, bias=False)
    conv.weight.grad = torch.zeros_like(conv.weight)
    before = conv.weight.detach().clone()
    Muon(conv.parameters(), lr=0.5, weight_decay=0.2).step()
    torch.testing.assert_close(conv.weight, 0.9 * before)


def test_a_saved_state_goes_on_as_if_nothing_had_happened():
    whole, halved = (nn.Sequential(nn.Conv2d(2, 4, 3), nn.Linear(3, 2)) for _ in range(2))
    halved.load_state_dict(whole.state_dict())
    steps(whole, Muon(whole.parameters()), 4)
    first = Muon(halved.parameters())
    steps(halved, first, 2)
    second = Muon(halved.parameters())
    second.load_state_dict(first.state_dict())
    for seed in (2, 3):
        with_gradients(halved, seed=seed)
        second.step()
    for ours, theirs in zip(halved.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_what_begins_to_learn_later_does_as_if_it_were_alone():
    both = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)])
    alone = copy.deepcopy(both[1])
    optimizer = Muon(both.parameters())
    steps(both[0], optimizer, 2)
    with_gradients(both[1], seed=5)
    optimizer.step()
    its_optimizer = Muon(alone.parameters())
    with_gradients(alone, seed=5)
    its_optimizer.step()
    torch.testing.assert_close(both[1].weight, alone.weight, rtol=0, atol=0)


def test_one_cycle_moves_the_first_beta_and_leaves_the_momentum_of_convolutions():
    optimizer = Muon(nn.Conv2d(3, 8, 3).parameters())
    scheduler = one_cycle(optimizer, 10, max_lr=1e-3)["scheduler"]
    moved = []
    for _ in range(9):
        [group] = optimizer.param_groups
        moved.append((group["momentum"], group["betas"][0]))
        optimizer.step()
        scheduler.step()
    assert {momentum for momentum, _ in moved} == {0.95}
    assert min(beta for _, beta in moved) == pytest.approx(0.85, abs=0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "optimizer.lr must be at least 0, got -1.0"),
        ({"weight_decay": -0.1}, "optimizer.weight_decay must be at least 0, got -0.1"),
        ({"momentum": 1.0}, "optimizer.momentum must be from 0 to below 1, got 1.0"),
        ({"betas": (0.9, 1.5)}, "optimizer.betas must be from 0 to below 1, got 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Muon(nn.Linear(2, 2).parameters(), **settings)
