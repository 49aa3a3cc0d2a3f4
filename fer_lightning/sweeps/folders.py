"""Names of the folders of runs and sweeps; a sweep's are derived from its command, which finds them again."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from fer_lightning.machine.code_version import code_digest

LONGEST = 100  # characters; file systems take 255 bytes
# Each command writes one of these last.
RESULTS = ("result.json", "report.json", "report/index.html")
NOT_OF_THE_JOB = ("hydra", "-", "data.cache_dir=")  # arguments about where and how to run, not what


def holds_run(folder: Path) -> bool:
    """Whether a command has finished in a folder, or a training has ended an epoch there."""
    return any((folder / name).exists() for name in RESULTS) or any((folder / "checkpoints").glob("*"))


def run_of(checkpoint: str | Path | None) -> Path | None:
    """RUN, of a checkpoint RUN/checkpoints/NAME; None for a file elsewhere."""
    path = Path(checkpoint) if checkpoint else None
    return path.parent.parent if path and path.parent.name == "checkpoints" else None


def sweep_name(command: str, arguments: Sequence[str]) -> str:
    """The values of a command's arguments, and a digest of them, of the command and of the code version.

    The order of the arguments, and where the sweep runs, do not change the name.
    """
    meant = sorted(text for text in arguments if not text.startswith(NOT_OF_THE_JOB))
    values = "_".join(_plain(text.partition("=")[2]) for text in meant)
    digest = _digest([command, meant, code_digest()])
    return f"{values[:LONGEST]}_{digest}".lstrip("_")


def job_name(overrides: Sequence[str]) -> str:
    """A job's overrides, by the last part of each key; with a digest if a folder name cannot hold all of them.

    >>> job_name(["seed=1", "model.net.kernel_size=3", "model=cnn3", "sweep=kernel_size", "optimizer.lr=1e-3"])
    'model-cnn3_kernel_size-3_lr-1e-3_seed-1'
    """
    meant = sorted(text.partition("=") for text in overrides if not text.startswith((*NOT_OF_THE_JOB, "sweep=")))
    name = "_".join(f"{key.rpartition('.')[2]}-{_plain(value)}" for key, _, value in meant) or "job"
    whole = len(name) <= LONGEST and all(_plain(value) == value for _, _, value in meant)
    return name if whole else f"{name[:LONGEST]}_{_digest(meant)}"


def _plain(value: str) -> str:
    return re.sub(r"[^\w.,-]+", "-", value).strip("-")


def _digest(what: object) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:8]
