"""Lightning's Trainer, with one more setting."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch

MOST_VERSIONS = 64  # of a compiled network: one for each size of a batch, in training and in evaluation


class Trainer(L.Trainer):
    """Lightning's Trainer, which can also compile the network and its teachers.

    Args:
        compile: Compile the network with `torch.compile` when training starts: takes a minute, and makes steps faster
            on a GPU, and a little on a CPU in float32. There in bfloat16 some CPUs become slower.
        callbacks: As in Lightning's Trainer.
        **settings: As in Lightning's Trainer.
    """

    def __init__(self, *, compile: bool = False, callbacks: Sequence[L.Callback] = (), **settings: Any) -> None:
        super().__init__(callbacks=[*callbacks, *([_Compilation()] if compile else [])], **settings)


class _Compilation(L.Callback):
    """Compiles in place, so that parameter names stay, and only after TensorBoard has traced the plain network."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Once for full batches and once for an epoch's last, smaller one: otherwise that makes a version for any size,
        # which then serves the full ones too.
        # Teachers share their classes' versions with it, of which torch would refuse the ninth.
        torch._dynamo.config.recompile_limit = MOST_VERSIONS
        pl_module.net.compile(dynamic=False)
        if pl_module.teachers:
            pl_module.teachers.compile()
