"""A user's mistake, or what befell the machine, in one sentence with exit code 1 instead of a traceback."""

import errno
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from fer_lightning.errors import InputError

USERS_MISTAKES = (InputError, HydraException, OmegaConfBaseException)
# An error of a loader's process, as torch passes it on.
WORKERS_MISTAKE = re.compile(r"Caught (BadImage|Input)Error in DataLoader worker process")
UNREADABLE = {errno.EACCES, errno.EPERM}
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG}
INTERRUPTED = 130  # exit code of a command that Ctrl-C ended
IN_THE_WAY = {errno.EEXIST, errno.EISDIR}
GPU_FAILED = ("CUDA error", "CUDA driver error", "CUDA call failed", "cuDNN error", "NCCL error")
EXTRAS = {"submitit": "slurm"}  # Hydra plugin -> our extra, where the names differ


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the command on a user's mistake with one sentence and exit code 1; other errors keep their traceback."""
    try:
        yield
    except KeyboardInterrupt:
        print("error: stopped by Ctrl-C; of a sweep, the same command goes on where it stopped", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (*USERS_MISTAKES, OSError, ValueError, RuntimeError) as error:
        if (sentence := _sentence(error)) is None:
            raise
        sys.exit(f"error: {sentence}")


def _sentence(error: Exception) -> str | None:
    """What happened and what to do about it; None if only a developer can tell."""
    raiser, text = _raiser(error), str(error).strip()
    if WORKERS_MISTAKE.match(text):
        return text.splitlines()[-1].partition(": ")[2]
    if isinstance(error, USERS_MISTAKES):
        return explain(error)
    if isinstance(error, OSError | ValueError):
        if raiser.startswith("optuna."):
            return f"no trial of this search produced a result ({text}): see their messages above"
        if raiser == "hydra._internal.defaults_list":
            return f"{text}: write GROUP=OPTION, as --help lists them"
        return _inaccessible(error)
    if raiser.startswith("submitit."):
        return f"SLURM did not take the jobs: {text}"
    if raiser == "hydra.core.plugins":
        return f"{text}{_extra_for(text)}"
    return _gpus_failure(error)


def _inaccessible(error: OSError | ValueError) -> str | None:
    # logging reports a folder that it cannot write to as a ValueError.
    cause = error if isinstance(error, OSError) else error.__cause__
    if not isinstance(cause, OSError) or cause.errno not in UNREADABLE | UNWRITABLE | IN_THE_WAY:
        return None
    what = f"{cause.strerror}: {cause.filename or 'the output folder'}"
    if cause.errno in IN_THE_WAY:
        return f"{what}; it is in the way: write elsewhere with hydra.run.dir=DIR (a sweep: hydra.sweep.dir=DIR)"
    if cause.errno in UNREADABLE:
        return f"{what}; let this user read it, or for a result write it, or name another place"
    return f"{what}; free some space there, or write elsewhere with hydra.run.dir=DIR (a sweep: hydra.sweep.dir=DIR)"


def _gpus_failure(error: RuntimeError) -> str | None:
    # torch's errors, by their names: the processes of sweeps do not import torch.
    what = str(error).partition("\n")[0]
    if type(error).__name__ == "OutOfMemoryError":
        return "the GPU's memory is full: lower data.batch_size, or free it of other processes"
    if "no kernel image" in what:
        return (
            f"this PyTorch was not made for the GPU here ({what}): install one that was, or leave the GPU aside with "
            "CUDA_VISIBLE_DEVICES=-1"
        )
    if type(error).__name__ == "AcceleratorError" or what.startswith(GPU_FAILED):
        return f"the GPU failed ({what}); a training goes on with ckpt_path=RUN/checkpoints/last.ckpt"
    return None


def _raiser(error: Exception) -> str:
    """The module that raised the error."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals["__name__"]


def explain(error: Exception) -> str:
    """Say in one sentence what is wrong with a configuration or the files it names, and list the valid keys."""
    if isinstance(error, InstantiationException):
        # Hydra wraps the constructor's error, and repeats it in its own message together with the place.
        cause = error.__cause__
        return str(cause) if isinstance(cause, InputError) else " ".join(str(error).split())
    if isinstance(error, HydraException | OmegaConfBaseException):
        text = " ".join(str(error).partition("Config search path")[0].split())
        cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
        return text + _what_there_is(cause) + _extra_for(text)
    return str(error)


def _extra_for(text: str) -> str:
    """Say what to install if a launcher or a sweeper is missing."""
    found = re.search(r"hydra/(?:launcher|sweeper)/(joblib|optuna|submitit)|hydra_plugins\.hydra_(ray)_launcher", text)
    if found is None:
        return ""
    plugin = found[1] or found[2]
    if _is_installed(f"hydra_{plugin}_{'sweeper' if plugin == 'optuna' else 'launcher'}"):
        return ""  # its name is misspelt
    stop = "" if text.endswith(".") else "."
    return f"{stop} Install it with: pip install 'fer-lightning[{EXTRAS.get(plugin, plugin)}]'"


def _is_installed(plugin: str) -> bool:
    return all(importlib.util.find_spec(name) for name in ("hydra_plugins", f"hydra_plugins.{plugin}"))


def _what_there_is(cause: BaseException | None) -> str:
    """List the valid keys in place of one that does not exist, or say what OmegaConf found wrong with a value."""
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.parent_node is not None:
        place, _, key = str(cause.full_key).rpartition(".")
        return f" There is no {key!r}{f' in {place}' if place else ''}: choose from {listed(cause.parent_node)}"
    return f" ({str(cause).splitlines()[0]})" if cause is not None and str(cause) else ""


def listed(keys: Iterable[object]) -> str:
    """Keys in alphabetical order, except Hydra's own."""
    return ", ".join(sorted(str(key) for key in keys if key != "hydra"))
