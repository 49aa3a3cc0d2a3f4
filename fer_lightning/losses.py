"""Training losses, for labels that are uneven or hard.   Shapes: N batch, K classes.

Each takes logits (N, K), targets (N,), the training images of each class (K,) and the label smoothing, and gives the
batch's mean. Validation and test are measured in plain cross-entropy, whatever trained.
"""

from torch import Tensor
from torch.nn import functional


def cross_entropy(logits: Tensor, targets: Tensor, class_counts: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Every image counts the same."""
    return functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)


def weighted(
    logits: Tensor, targets: Tensor, class_counts: Tensor, *, label_smoothing: float = 0.0, power: float = 1.0
) -> Tensor:
    """Cross-entropy in which an image of a class with n images weighs n^-power: at 1 every class counts the same.

    PyTorch's own weights would also weigh the smoothed share of each other class, which makes a rare class likely on
    every image. Here an image's weight is its label's alone.
    """
    weights = class_counts.to(logits.dtype)[targets] ** -power
    losses = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)
    return (weights * losses).sum() / weights.sum()


def focal(
    logits: Tensor, targets: Tensor, class_counts: Tensor, *, label_smoothing: float = 0.0, gamma: float = 2.0
) -> Tensor:
    """Cross-entropy times (1 - p)^gamma, p the target's probability: what is easy counts less (Lin et al., 2017)."""
    losses = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)
    right = logits.softmax(1).gather(1, targets[:, None])[:, 0]
    return ((1 - right) ** gamma * losses).mean()


def logit_adjusted(
    logits: Tensor, targets: Tensor, class_counts: Tensor, *, label_smoothing: float = 0.0, tau: float = 1.0
) -> Tensor:
    """Cross-entropy of logits + tau log(share of class): the bare logits then favour no class (Menon et al., 2021)."""
    shares = class_counts.to(logits.dtype) / class_counts.sum()
    return functional.cross_entropy(logits + tau * shares.log(), targets, label_smoothing=label_smoothing)
