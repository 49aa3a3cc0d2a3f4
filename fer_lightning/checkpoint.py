"""Checkpoints read from anywhere, as plain data: code in them is never run."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fer_lightning.errors import InputError

KEYS = ("state_dict", "hyper_parameters")


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint of an ExpressionClassifier.

    Raises:
        InputError: There is no such file, it is damaged, it is something else, or it holds code instead of data.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"there is no checkpoint at {path.absolute()}: a run writes them to checkpoints/best.ckpt and last.ckpt"
        )
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"{path} ({path.stat().st_size:,} bytes) is damaged or not a checkpoint: "
            "give a run's best.ckpt or last.ckpt"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds more than weights and plain data and was not loaded, since such files can run code: "
            "use a checkpoint written by fer_lightning"
        ) from error
    except (RuntimeError, EOFError) as error:
        raise InputError(f"{path} ({path.stat().st_size:,} bytes) is damaged or not a checkpoint ({error})") from error
    if not isinstance(checkpoint, dict) or any(key not in checkpoint for key in KEYS):
        raise InputError(f"{path} is not a checkpoint of fer_lightning: it lacks {' or '.join(KEYS)}")
    return checkpoint


def check_fits(
    checkpoint: dict[str, Any], hyper_parameters: Mapping[str, Any], path: str | Path, folder: str | Path
) -> None:
    """Raise InputError where a run cannot go on from a checkpoint.

    It can where the checkpoint was made for the same classes, network, preprocessing and training (split, seed,
    schedule), and lies in the run's own `folder` of checkpoints, where the best epoch is kept too.
    """
    for name in ("class_names", "net", "preprocess", "training"):
        theirs, ours = checkpoint["hyper_parameters"].get(name), hyper_parameters[name]
        theirs, ours = _differences(theirs, ours)
        if theirs != ours:
            raise InputError(f"{path} was trained with {name} {theirs}, this run has {ours}: use the same in both")
    # Lightning writes them with links resolved.
    folders = {state["dirpath"] for state in checkpoint.get("callbacks", {}).values() if "dirpath" in state}
    if not {str(Path(path).resolve().parent), str(Path(folder).resolve())} <= folders:
        raise InputError(
            f"{path} was written to {', '.join(folders)}: a run goes on where it began, so move it back, and leave "
            "hydra.run.dir away"
        )


def _differences(theirs: Any, ours: Any) -> tuple[Any, Any]:
    """Of two dicts, only the entries in which they differ; one that a dict lacks, as of an older version, is None."""
    if not (isinstance(theirs, dict) and isinstance(ours, dict)):
        return theirs, ours
    names = [name for name in theirs | ours if theirs.get(name) != ours.get(name)]
    return {name: theirs.get(name) for name in names}, {name: ours.get(name) for name in names}
