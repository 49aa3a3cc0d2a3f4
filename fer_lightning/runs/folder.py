"""The folder of a run: claimed by a single run, and removed again if a user mistake ends the run early."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_only

from fer_lightning.errors import InputError
from fer_lightning.settings.plain_errors import USERS_MISTAKES
from fer_lightning.sweeps.folders import holds_run

LOCK = ".run.lock"  # held while a command writes to the folder; that of a killed one is free
HYDRAS = {".hydra", "train.log", "baseline.log", "evaluate.log", "audit.log"}  # written before a run begins


@contextmanager
def claimed(run_dir: Path, ckpt_path: str | None = None) -> Iterator[None]:
    """Make sure that only this run writes to its folder, and remove its files if a user mistake ends it early.

    Args:
        run_dir: The folder; the files that Hydra has already put there do not count as a run.
        ckpt_path: Checkpoint to resume from; if it lies in this folder's `checkpoints/`, that run is resumed here.

    Raises:
        InputError: The folder holds another run.
    """
    checkpoints = run_dir / "checkpoints"
    goes_on = (
        ckpt_path is not None and Path(ckpt_path).parent.resolve() == checkpoints.resolve() and checkpoints.exists()
    )
    strangers = {path.name for path in run_dir.glob("*")} - HYDRAS
    if not goes_on:
        rank_zero_only(_claim)(run_dir)
    lock = FileLock(run_dir / LOCK, timeout=0)
    rank_zero_only(_lock)(lock)
    try:
        yield
    except USERS_MISTAKES:
        if not goes_on and not list(checkpoints.glob("*.ckpt")):
            rank_zero_only(_give_back)(run_dir, strangers)
        raise
    finally:
        rank_zero_only(_unlock)(lock)


def _lock(lock: FileLock) -> None:
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"{Path(lock.lock_file).parent} is being written by another process: wait for it, or start another run "
            "with hydra.run.dir=DIR"
        ) from error


def _unlock(lock: FileLock) -> None:
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def _give_back(run_dir: Path, strangers: set[str]) -> None:
    """Remove what the run has put there, except for results within, and the folder itself if nothing is left in it."""
    kept = strangers | {path.parent.name for path in run_dir.glob("*/result.json")}  # models that were measured
    for path in run_dir.glob("*"):
        if path.name in kept:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if not kept:
        run_dir.rmdir()


def _claim(run_dir: Path) -> None:
    if holds_run(run_dir):
        last = run_dir / "checkpoints" / "last.ckpt"
        resume = f"resume it with ckpt_path={last}, or " if last.exists() else ""
        raise InputError(f"{run_dir} already holds a run: {resume}start another with hydra.run.dir=DIR")
    run_dir.mkdir(parents=True, exist_ok=True)
