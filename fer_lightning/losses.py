"""Training losses, also for imbalanced classes and hard examples.   Shapes: N batch, K classes.

Each takes logits (N, K), targets (N,), the training images per class (K,) and the label smoothing, and returns the mean
over the batch. Validation and test always use plain cross-entropy.
"""

from torch import Tensor, finfo
from torch.nn import functional

from fer_lightning.errors import InputError


def cross_entropy(logits: Tensor, targets: Tensor, class_counts: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Every image counts the same."""
    return functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)


def weighted(
    logits: Tensor, targets: Tensor, class_counts: Tensor, *, label_smoothing: float = 0.0, power: float = 1.0
) -> Tensor:
    """Cross-entropy in which an image of a class with n images weighs n^-power: at 1 every class counts the same.

    PyTorch's own class weights also apply to the smoothed share of the other classes, which makes a rare class likely
    for every image. Here the weight of an image depends only on its label.
    """
    weights = class_counts.to(logits.dtype)[targets] ** -power
    losses = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)
    return (weights * losses).sum() / weights.sum()


def focal(
    logits: Tensor, targets: Tensor, class_counts: Tensor, *, label_smoothing: float = 0.0, gamma: float = 2.0
) -> Tensor:
    """Cross-entropy times (1 - p)^gamma, p the target's probability: easy images count less (Lin et al., 2017)."""
    if gamma < 0:
        raise InputError(f"loss.gamma must be at least 0, got {gamma}")
    losses = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)
    wrong = 1 - logits.softmax(1).gather(1, targets[:, None])[:, 0]
    # Where p rounds to 1, the gradient of a power below 1 would be infinite.
    return (wrong.clamp_min(finfo(wrong.dtype).eps) ** gamma * losses).mean()


def logit_adjusted(
    logits: Tensor, targets: Tensor, class_counts: Tensor, *, label_smoothing: float = 0.0, tau: float = 1.0
) -> Tensor:
    """Cross-entropy of logits + tau log(share of class): the bare logits then favour no class (Menon et al., 2021)."""
    shares = class_counts.to(logits.dtype) / class_counts.sum()
    return functional.cross_entropy(logits + tau * shares.log(), targets, label_smoothing=label_smoothing)
