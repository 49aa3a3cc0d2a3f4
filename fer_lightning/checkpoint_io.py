"""Checkpoints written by Lightning: every epoch, and completely or not at all."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from fer_lightning.atomic import replacing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file beside the checkpoint and renames it.

    Lightning's own class writes to the system's temporary folder and moves the file, which is a copy if that is another
    file system: if the run is killed meanwhile, or the disk fills up, half a checkpoint is left.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()  # torch.save into a file reports a full disk with an error of its own
        torch.save(checkpoint, buffer)
        with replacing(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())


class LastCheckpoint(ModelCheckpoint):
    """Writes a checkpoint after every epoch; ModelCheckpoint's `save_last` does so only after the best epochs so far.

    It is a separate class, since Lightning tells the states of two ModelCheckpoints apart by class and settings.
    """
