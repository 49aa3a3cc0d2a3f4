"""Checkpoints written by Lightning: every epoch, and whole or not at all."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from fer_lightning.atomic import replacing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the checkpoint's place and renames.

    Lightning's own writes to the system's temporary folder and moves, which copies where that is another file system: a
    run that is killed meanwhile, or a disk that fills up, then leaves half a checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()  # torch.save into a file tells a full disk in words of its own
        torch.save(checkpoint, buffer)
        with replacing(path) as temporary:
            temporary.write_bytes(buffer.getvalue())


class LastCheckpoint(ModelCheckpoint):
    """Writes every epoch. ModelCheckpoint's `save_last` does so only in epochs that are also the best so far.

    A class of its own, since Lightning keeps the states of two ModelCheckpoints apart by class and settings.
    """
