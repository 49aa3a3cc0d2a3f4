"""The Muon optimizer for convolutions.   Shapes: D filters, F weights of a filter, M the smaller of the two."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from fer_lightning.errors import InputError

# Five steps of x <- a x + b x^3 + c x^5 bring any x from 0.003 to 1 near 1, to between 0.68 and 1.2 (Jordan et al.).
ITERATIONS = 5
A, B, C = 3.4445, -4.7750, 2.0315
# Their entries are then about as large as those of AdamW's updates, so that both take the same rate (Liu et al., 2025).
LIKE_ADAM = 0.2
TINY = 1e-8


class Muon(Optimizer):
    """Updates convolutions by their momentum made orthogonal, and everything else as AdamW does.

    All directions of an update then have about the same length, also those in which gradients are small (Jordan et al.,
    2024, "Muon: an optimizer for hidden layers in neural networks"). torch's own Muon takes no convolutions, and
    multiplies in bfloat16, which CPUs without it do four times as slowly as float32.

    Args:
        params: Parameters or groups of them. Filters with more than one input channel count as convolutions.
        lr: Learning rate of both.
        weight_decay: Share of a weight that a step takes off, times the rate.
        momentum: Share of the momentum that a step keeps, for convolutions; gradients are looked ahead (Nesterov).
        betas: Shares of the two averages that a step keeps, for everything else.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        *,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            if value < 0:
                raise InputError(f"optimizer.{name} must be at least 0, got {value}")
        for name, value in (("momentum", momentum), ("betas", betas[0]), ("betas", betas[1])):
            if not 0 <= value < 1:
                raise InputError(f"optimizer.{name} must be from 0 to below 1, got {value}")
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": tuple(betas)})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            learning = [parameter for parameter in group["params"] if parameter.grad is not None]
            filters = [parameter for parameter in learning if _is_convolution(parameter)]
            others = [parameter for parameter in learning if not _is_convolution(parameter)]
            for parameters, updates_of in ((filters, self._of_filters), (others, self._of_others)):
                if parameters:
                    torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                    torch._foreach_add_(parameters, updates_of(parameters, group), alpha=-group["lr"])
        return loss

    # A GPU is given each operation for all parameters at once, as torch's own optimizers do it.
    def _of_filters(self, parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        gradients, kept = [parameter.grad for parameter in parameters], group["momentum"]
        momenta = self._averages("momentum", parameters)
        torch._foreach_lerp_(momenta, gradients, 1 - kept)
        ahead = torch._foreach_lerp(gradients, momenta, kept)
        updates = [orthogonal(each.flatten(1)).view_as(each) for each in ahead]
        torch._foreach_mul_(updates, [LIKE_ADAM * math.sqrt(max(each.flatten(1).shape)) for each in ahead])
        return updates

    def _of_others(self, parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        gradients, betas = [parameter.grad for parameter in parameters], group["betas"]
        means, squares = self._averages("mean", parameters), self._averages("square", parameters)
        torch._foreach_lerp_(means, gradients, 1 - betas[0])
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - betas[1])
        states = [self.state[parameter] for parameter in parameters]
        for state in states:
            state["steps"] = state.get("steps", 0) + 1
        updates = torch._foreach_div(means, [1 - betas[0] ** state["steps"] for state in states])
        lengths = torch._foreach_div(squares, [1 - betas[1] ** state["steps"] for state in states])
        torch._foreach_sqrt_(lengths)
        torch._foreach_add_(lengths, TINY)
        torch._foreach_div_(updates, lengths)
        return updates

    def _averages(self, name: str, parameters: list[Tensor]) -> list[Tensor]:
        """A running average that is kept for each parameter, of zeros before its first step."""
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter.grad)
        return [self.state[parameter][name] for parameter in parameters]


def _is_convolution(parameter: Tensor) -> bool:
    return parameter.ndim == 4 and parameter.shape[1] > 1


def orthogonal(filters: Tensor) -> Tensor:
    """Bring the singular values of filters (D, F) near 1, and leave the singular vectors; the result is (D, F).

    Newton and Schulz's iteration, in the small square of products (M, M) instead of on the filters themselves: the same
    to four digits in float32, and over twice as fast. Not for bfloat16, in which small singular values, squared there,
    drown: `seresnet_s` then has 27 % on PublicTest after four epochs of a quarter of Training, and 43 with float32.
    """
    wide = filters if filters.shape[0] <= filters.shape[1] else filters.T
    wide = wide / (wide.norm() + TINY)
    products = wide @ wide.T
    factor = None  # of `wide`, after the steps so far
    for left in reversed(range(ITERATIONS)):
        step = torch.addmm(products, products, products, beta=B, alpha=C)
        step.diagonal().add_(A)
        factor = step if factor is None else step @ factor
        if left:
            products = step @ products @ step
    wide = factor @ wide
    return wide if filters.shape[0] <= filters.shape[1] else wide.T
