"""Losses for uneven labels, against what their papers say they are."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from fer_lightning import losses
from fer_lightning.errors import InputError

COUNTS = torch.tensor([900, 90, 10])


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(60, 3, generator=generator), torch.randint(0, 3, (60,), generator=generator)


def test_weighted_gives_every_class_the_same_say(batch):
    logits, targets = batch
    # A batch with the classes as frequent as in training: the loss is the mean of the classes' means.
    targets = torch.repeat_interleave(torch.arange(3), torch.tensor([54, 5, 1]))
    counts = torch.bincount(targets)
    means = [cross_entropy(logits[targets == k], targets[targets == k]) for k in range(3)]
    torch.testing.assert_close(losses.weighted(logits, targets, counts), torch.stack(means).mean())


def test_weights_leave_the_smoothed_share_of_a_rare_class_as_it_is(batch):
    logits, _ = batch
    common = torch.zeros(len(logits), dtype=torch.long)
    smoothed = cross_entropy(logits, common, label_smoothing=0.1)
    torch.testing.assert_close(losses.weighted(logits, common, COUNTS, label_smoothing=0.1), smoothed)


def test_weighted_with_power_0_is_cross_entropy(batch):
    torch.testing.assert_close(losses.weighted(*batch, COUNTS, power=0), cross_entropy(*batch))


def test_focal_without_gamma_is_cross_entropy_and_with_it_passes_over_what_is_easy(batch):
    torch.testing.assert_close(losses.focal(*batch, COUNTS, gamma=0), cross_entropy(*batch))
    easy, hard = torch.tensor([[4.0, 0, 0]]), torch.tensor([[0, 1.0, 0]])
    target = torch.tensor([0])

    def share(logits):
        return losses.focal(logits, target, COUNTS) / cross_entropy(logits, target)

    p = easy.softmax(1)[0, 0]
    torch.testing.assert_close(share(easy), (1 - p) ** 2)
    assert share(hard) > 100 * share(easy)


def test_logit_adjustment_adds_the_classes_log_shares(batch):
    logits, targets = batch
    adjusted = logits + 0.5 * torch.tensor([0.9, 0.09, 0.01]).log()
    torch.testing.assert_close(losses.logit_adjusted(*batch, COUNTS, tau=0.5), cross_entropy(adjusted, targets))


def test_logits_that_know_only_the_shares_are_best_flat():
    targets = torch.repeat_interleave(torch.arange(3), COUNTS)
    flat = torch.zeros(len(targets), 3)
    tilted = flat + torch.tensor([0.2, 0.0, -0.2])
    assert losses.logit_adjusted(flat, targets, COUNTS) < losses.logit_adjusted(tilted, targets, COUNTS)
    assert losses.cross_entropy(flat, targets, COUNTS) > losses.cross_entropy(tilted, targets, COUNTS)


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.weighted, losses.focal, losses.logit_adjusted])
def test_label_smoothing_reaches_every_loss(batch, loss):
    logits, targets = batch
    counts = torch.tensor([20, 20, 20])
    assert loss(10 * logits, targets, counts, label_smoothing=0.3) != loss(10 * logits, targets, counts)


def test_focal_has_a_gradient_where_an_image_is_surely_right():
    logits = torch.tensor([[30.0, 0, 0]], requires_grad=True)
    losses.focal(logits, torch.tensor([0]), COUNTS, gamma=0.5).backward()
    assert logits.grad.isfinite().all()


def test_a_focal_loss_that_would_favour_the_easy_is_refused(batch):
    with pytest.raises(InputError, match="loss.gamma must be at least 0, got -1"):
        losses.focal(*batch, COUNTS, gamma=-1)
