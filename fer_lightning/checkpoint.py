"""Reading checkpoints from any source as plain data: code in them is never run."""

import json
import math
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fer_lightning.errors import InputError

PICKLE = b"\x80"  # first byte of weight files from before they were zip archives; torchvision still offers some
# A run that resumes takes the first from its checkpoint, and may go on after an upgrade, with a warning.
NOT_COMPARED = {"initial_weights", "code_sha256", "earlier_code"}
OURS = {"class_names", "net", "preprocess"}  # hyper-parameters that every checkpoint of fer_lightning has


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint of an ExpressionClassifier.

    Raises:
        InputError: The file does not exist, is damaged, is not a checkpoint, or contains code instead of data.
    """
    path = _existing(path)
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"{path} ({path.stat().st_size:,} bytes) is damaged or not a checkpoint: "
            "give a run's best.ckpt or last.ckpt"
        )
    checkpoint = _load(path)
    if not _is_checkpoint(checkpoint):
        raise InputError(f"{path} is not a checkpoint of fer_lightning: give a run's best.ckpt or last.ckpt")
    return checkpoint


class Weights(NamedTuple):
    """Weights that training may start from."""

    by_name: dict[str, Tensor]
    preprocess: dict[str, Any] | None  # how the pixels were prepared; None if fer_lightning did not train them
    training: dict[str, Any] | None = None  # what they were trained on, if it is recorded


def read_weights(path: str | Path) -> Weights:
    """Read a network's weights from a checkpoint, or from a file with nothing but weights, such as torchvision's.

    Raises:
        InputError: As for `load_checkpoint`, or there are no weights in the file.
    """
    path = _existing(path)
    with path.open("rb") as file:
        begins = file.read(1)
    if begins != PICKLE and not zipfile.is_zipfile(path):
        raise InputError(f"{path} ({path.stat().st_size:,} bytes) is not a weights file: give a run's best.ckpt")
    content = _load(path)
    if _is_checkpoint(content):
        facts = content["hyper_parameters"]
        return Weights(network_weights(content), facts["preprocess"], facts.get("training"))
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())
    ):
        raise InputError(f"{path} contains no named weights: give a run's best.ckpt, or a saved state_dict")
    return Weights(content, None)


def network_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The network's weights from a checkpoint, under their names in the network."""
    return {key.removeprefix("net."): value for key, value in checkpoint["state_dict"].items()}


def trainings(training: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A training, those of its initial weights and teachers, and so on; an empty one for what is not recorded."""
    yield training
    if "initial_weights" in training:
        yield from trainings(training["initial_weights"])
    for teacher in training.get("teachers", ()):
        yield from trainings(teacher)


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"there is no checkpoint at {path.absolute()}: a run writes them to checkpoints/best.ckpt and last.ckpt"
        )
    return path


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} contains more than weights and plain data and was not loaded, since such files can run code: "
            "use a checkpoint written by fer_lightning"
        ) from error
    except (RuntimeError, EOFError, UnicodeDecodeError, IndexError) as error:
        raise InputError(f"{path} ({path.stat().st_size:,} bytes) is damaged or not a checkpoint ({error})") from error


def _is_checkpoint(content: Any) -> bool:
    """Whether it is one of ours, and not of another project that uses Lightning."""
    if not isinstance(content, dict) or "state_dict" not in content:
        return False
    hyper_parameters = content.get("hyper_parameters")
    return isinstance(hyper_parameters, dict) and hyper_parameters.keys() >= OURS


def check_fits(
    checkpoint: dict[str, Any], hyper_parameters: Mapping[str, Any], path: str | Path, folder: str | Path
) -> None:
    """Raise InputError if a run cannot be resumed from a checkpoint.

    It can if the checkpoint was made for the same classes, network, preprocessing, initial weights and training
    (split, seed, schedule), and lies in the run's own checkpoint `folder`, where the best epoch is kept too.
    """
    for name in ("class_names", "net", "preprocess", "init_from", "init_skip", "crop_margin", "teachers", "training"):
        check_same(name, checkpoint["hyper_parameters"].get(name), hyper_parameters[name], path)
    # Lightning writes them with links resolved.
    folders = {state["dirpath"] for state in checkpoint.get("callbacks", {}).values() if "dirpath" in state}
    if not {str(Path(path).resolve().parent), str(Path(folder).resolve())} <= folders:
        raise InputError(
            f"{path} was written to {', '.join(folders)}: a run is resumed in its own folder, so move it back, and "
            "omit hydra.run.dir"
        )


def check_same(name: str, theirs: Any, ours: Any, path: str | Path) -> None:
    """Raise InputError with the differences if a checkpoint at `path` has another hyper-parameter than this run."""
    theirs, ours = _differences(theirs, ours)
    if theirs != ours:
        remedy = "use the same in both"
        if name == "preprocess":
            settings = " ".join(f"preprocess.{key}={json.dumps(value)}" for key, value in theirs.items())
            remedy = f"this run can have the same with {settings}"
        raise InputError(f"{path} was trained with {name} {theirs}, this run has {ours}: {remedy}")


def _differences(theirs: Any, ours: Any) -> tuple[Any, Any]:
    """Reduce two dicts to the entries in which they differ; an entry that one lacks (an older version's) is None."""
    if not (isinstance(theirs, dict) and isinstance(ours, dict)):
        return theirs, ours
    names = [name for name in theirs | ours if not _same(theirs.get(name), ours.get(name)) and name not in NOT_COMPARED]
    return {name: theirs.get(name) for name in names}, {name: ours.get(name) for name in names}


def _same(theirs: Any, ours: Any) -> bool:
    """Whether two settings are equal, up to the last digits of a measured one (an older version's mean)."""
    if isinstance(theirs, float) and isinstance(ours, float):
        return math.isclose(theirs, ours, rel_tol=1e-9)
    return theirs == ours
