"""Parameter groups for the optimizer, and learning rate schedules.

Schedules have Lightning's form: each takes (optimizer, total_steps) and says when it steps. All but the plateau step
after every batch: Lightning steps schedules between epochs only after it has written the epoch's checkpoint, and a
resumed run would miss that step.
"""

from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from fer_lightning.errors import InputError


def decay_weights_only(net: nn.Module) -> list[dict[str, Any]]:
    """Two parameter groups: filters and matrices, and the rest (biases, batch norms), which has no weight decay."""
    parameters = list(net.parameters())
    return [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1]},
        {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
    ]


def cosine(optimizer: Optimizer, total_steps: int, *, warmup: float = 0.0, final: float = 0.0) -> dict[str, Any]:
    """Cosine decay from the optimizer's learning rate to `final`, after a linear rise over the fraction `warmup`."""
    if not 0 <= warmup < 1:
        raise InputError(f"scheduler.warmup is a fraction of all steps, from 0 to below 1, got {warmup}")
    if final < 0:
        raise InputError(f"scheduler.final, the rate of the last step, must be at least 0, got {final}")
    rising = round(warmup * total_steps)
    falling = CosineAnnealingLR(optimizer, T_max=max(1, total_steps - rising), eta_min=final)
    if not rising:
        return {"scheduler": falling, "interval": "step"}
    rise = LinearLR(optimizer, start_factor=1 / rising, total_iters=rising)
    return {"scheduler": SequentialLR(optimizer, [rise, falling], milestones=[rising]), "interval": "step"}


def one_cycle(
    optimizer: Optimizer, total_steps: int, *, max_lr: float, pct_start: float = 0.3, cycle_momentum: bool = True
) -> dict[str, Any]:
    """Smith and Topin's 1cycle: up to `max_lr` over the fraction `pct_start` of all steps, then down to almost zero.

    With `cycle_momentum` the momentum (the first beta of Adam, and of Muon, which keeps its momentum for convolutions)
    moves between 0.85 and 0.95, opposite to the rate, whatever the optimizer's own setting.
    """
    if not 0 <= pct_start < 1:
        raise InputError(f"scheduler.pct_start is a fraction of all steps, from 0 to below 1, got {pct_start}")
    if max_lr <= 0:
        raise InputError(f"scheduler.max_lr, the highest rate, must be above 0, got {max_lr}")
    if pct_start * total_steps == 1:  # the first step has the highest rate, for which torch would divide by zero
        pct_start *= 1 - 1e-6
    scheduler = OneCycleLR(
        optimizer, max_lr=max_lr, total_steps=total_steps, pct_start=pct_start, cycle_momentum=cycle_momentum
    )
    return {"scheduler": scheduler, "interval": "step"}


def plateau(
    optimizer: Optimizer, total_steps: int, *, monitor: str, mode: str, factor: float, patience: int
) -> dict[str, Any]:
    """Multiply the rate by `factor` when `monitor` has not improved for `patience` epochs."""
    if not 0 < factor < 1:
        raise InputError(f"scheduler.factor must be between 0 and 1, got {factor}")
    scheduler = ReduceLROnPlateau(optimizer, mode=mode, factor=factor, patience=patience)
    return {"scheduler": scheduler, "interval": "epoch", "monitor": monitor}


def constant(optimizer: Optimizer, total_steps: int) -> dict[str, Any]:
    """A constant learning rate, as set in the optimizer."""
    return {"scheduler": ConstantLR(optimizer, factor=1.0), "interval": "step"}
