"""Hydra's side of the commands: where conf/ is, its top-level keys, and how user mistakes are reported."""

import os

# albumentations asks the package index for its latest version on import; it must not.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# Hydra raises its errors instead of printing them its own way.
os.environ.setdefault("HYDRA_FULL_ERROR", "1")

import errno
import re
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from fer_lightning.errors import InputError
from fer_lightning.own_gpu import visible_gpus
from fer_lightning.preprocess import Preprocess
from fer_lightning.setting_kinds import refuse_other_kinds
from fer_lightning.sweep_folders import job_name, sweep_name

__all__ = [
    "CONF_DIR",
    "NO_PREPROCESS",
    "NO_SCALING",
    "NO_TRAINING",
    "check",
    "compose_config",
    "instantiate",
    "plain_errors",
    "refuse_unread",
]

USERS_MISTAKES = (InputError, HydraException, OmegaConfBaseException)
PACKAGE = Path(__file__).parent
CONF_DIR = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"

# For `refuse_unread`: settings that only the training of a network uses.
NO_TRAINING = {"augmentation.transforms": [], "data.oversample": 0.0, "data.num_workers": None}
# The same for the preprocessing, and for what of it comes after the filters.
NO_PREPROCESS = {f"preprocess.{name}": value for name, value in asdict(Preprocess()).items()}
NO_SCALING = {place: NO_PREPROCESS[place] for place in ("preprocess.scaling", "preprocess.mean", "preprocess.std")}

EXTRAS = {"submitit": "slurm"}  # Hydra plugin -> our extra, where the names differ
# A BadImageError of a loader's process, as torch passes it on.
WORKERS_MISTAKE = re.compile(r"Caught BadImageError in DataLoader worker process")
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG}


@dataclass
class Monitor:
    """The validation metric that chooses the best epoch."""

    metric: str | None = MISSING
    mode: str = MISSING


@dataclass
class DataConfig:
    """What every command on a dataset has."""

    data: Any = MISSING
    protocol: Any = MISSING
    preprocess: Any = MISSING
    augmentation: Any = MISSING
    seed: int = MISSING
    output_dir: str = MISSING


@dataclass
class TrainConfig(DataConfig):
    """Top level of conf/train.yaml; Hydra refuses keys that are not here."""

    model: Any = MISSING
    loss: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING
    trainer: Any = MISSING
    callbacks: Any = MISSING
    logger: Any = MISSING
    monitor: Monitor = MISSING
    ckpt_path: str | None = None


@dataclass
class BaselineConfig(DataConfig):
    """Top level of conf/baseline.yaml."""

    model: Any = MISSING
    max_images: int | None = None


@dataclass
class AuditConfig(DataConfig):
    """Top level of conf/audit.yaml."""

    threshold: float = MISSING


@dataclass
class ReportSettings:
    """Parts of the report of `evaluate`; see conf/evaluate.yaml."""

    tta: str = MISSING
    resamples: int = MISSING
    robustness: int = MISSING
    attribution: int = MISSING
    calibrate: bool = MISSING
    allow_seen: bool = MISSING


@dataclass
class EvaluateConfig(DataConfig):
    """Top level of conf/evaluate.yaml."""

    ckpt_path: Any = None  # a path or several
    split: str | None = None
    audit: str | None = None
    groups: str | None = None
    evaluate: ReportSettings = MISSING


warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/ray' is validated against ConfigStore schema")

ConfigStore.instance().store(name="train_schema", node=TrainConfig)
ConfigStore.instance().store(name="evaluate_schema", node=EvaluateConfig)
ConfigStore.instance().store(name="audit_schema", node=AuditConfig)
ConfigStore.instance().store(name="baseline_schema", node=BaselineConfig)


def run_folder(ckpt_path: str | None, new: str) -> str:
    """A run resumed from `RUN/checkpoints/last.ckpt` stays in the folder RUN; any other gets the folder `new`."""
    path = Path(ckpt_path) if ckpt_path else None
    return str(path.parent.parent) if path and path.parent.name == "checkpoints" else new


def first_time(ckpt_path: str | None, folder: str) -> str | None:
    """The folder of Hydra's records, and none for a run that is resumed in its own folder."""
    return folder if run_folder(ckpt_path, "") == "" else None


def best_is(metric: str | None) -> str:
    """`min` for metrics that should be small, `max` for the others."""
    return "min" if metric and metric.endswith(("/loss", "/ece")) else "max"


def jobs_at_once(without_gpus: int) -> int:
    """One job per GPU that this process may use, or `without_gpus` jobs if there are none."""
    return len(visible_gpus()) or without_gpus


OmegaConf.register_new_resolver("run_folder", run_folder)
OmegaConf.register_new_resolver("first_time", first_time)
OmegaConf.register_new_resolver("best_is", best_is)
OmegaConf.register_new_resolver("job_name", job_name)
# Cached, so that the name stays the same on machines where the sweep's job has a different command line.
OmegaConf.register_new_resolver("sweep_name", lambda command: sweep_name(command, sys.argv[1:]), use_cache=True)
OmegaConf.register_new_resolver("jobs_at_once", jobs_at_once)
OmegaConf.register_new_resolver("gpus_a_job", lambda: min(1, len(visible_gpus())))


def compose_config(*overrides: str, command: str = "train") -> DictConfig:
    """The configuration of `python -m fer_lightning.COMMAND OVERRIDES`, without running it."""
    with initialize_config_dir(config_dir=str(CONF_DIR), version_base="1.3"):
        return compose(command, overrides=list(overrides))


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the command on a user's mistake with one sentence and exit code 1, without a traceback."""
    try:
        yield
    except USERS_MISTAKES as error:
        sys.exit(f"error: {explain(error)}")
    except RuntimeError as error:
        if _raiser(error).startswith("submitit."):
            sys.exit(f"error: SLURM did not take the jobs: {str(error).strip()}")
        if WORKERS_MISTAKE.match(str(error)):
            sys.exit(f"error: {str(error).strip().splitlines()[-1].partition(': ')[2]}")
        if _raiser(error) == "hydra.core.plugins":
            sys.exit(f"error: {error}{_extra_for(str(error))}")
        # torch's errors, which these commands need not import
        what = str(error).partition("\n")[0]
        if type(error).__name__ == "OutOfMemoryError":
            sys.exit("error: the GPU's memory is full: lower data.batch_size, or free it of other processes")
        if type(error).__name__ == "AcceleratorError" or what.startswith(("CUDA error", "cuDNN error")):
            sys.exit(f"error: the GPU failed ({what}); a training goes on with ckpt_path=RUN/checkpoints/last.ckpt")
        raise
    except (OSError, ValueError) as caught:
        if _raiser(caught).startswith("optuna."):
            sys.exit(f"error: no trial of this search produced a result ({caught}): see their messages above")
        # logging reports a folder that it cannot write to as a ValueError.
        error = caught if isinstance(caught, OSError) else caught.__cause__
        if not isinstance(error, OSError) or error.errno not in UNWRITABLE:
            raise
        place = error.filename or "the output folder"
        sys.exit(f"error: {error.strerror}: {place}; free some space there, or write elsewhere with hydra.run.dir=DIR")


def _raiser(error: Exception) -> str:
    """The module that raised the error."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals["__name__"]


def check(cfg: DictConfig, schema: type) -> None:
    """Refuse what Hydra accepts: unused top-level keys, added with `+key=value`, and values of the wrong kind."""
    known = {field.name for field in fields(schema)}
    if unknown := set(cfg) - known:
        raise InputError(
            f"there is no {', '.join(sorted(map(str, unknown)))} in the configuration: choose from {_listed(known)}"
        )
    _check_kinds(OmegaConf.to_container(cfg), "")


def _check_kinds(node: Mapping[Any, Any], place: str) -> None:
    """Compare the settings of this package's functions and constructors, at and below a node, with their signatures."""
    given = {str(key): value for key, value in node.items() if not str(value).startswith(("${", "???"))}
    if str(given.get("_target_")).startswith(f"{PACKAGE.name}."):
        refuse_other_kinds(get_object(given["_target_"]), given, place)
    for key, value in given.items():
        if isinstance(value, dict):
            _check_kinds(value, f"{place}{key}.")


def refuse_unread(cfg: DictConfig, neutral: Mapping[str, object]) -> None:
    """Refuse changes of settings that a command must compose, since `data` refers to them, but does not use.

    Args:
        cfg: The composed configuration.
        neutral: Dotted key of each such setting -> the value that it must keep.
    """
    for place, value in neutral.items():
        if (asked := OmegaConf.select(cfg, place)) != value:
            raise InputError(f"{place}={asked} would change nothing here: omit it")


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
    stop = "" if text.endswith(".") else "."
    return f"{stop} Install it with: pip install 'fer-lightning[{EXTRAS.get(plugin, plugin)}]'"


def _what_there_is(cause: BaseException | None) -> str:
    """List the valid keys in place of one that does not exist, or say what OmegaConf found wrong with a value."""
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.parent_node is not None:
        place, _, key = str(cause.full_key).rpartition(".")
        return f" There is no {key!r}{f' in {place}' if place else ''}: choose from {_listed(cause.parent_node)}"
    return f" ({str(cause).splitlines()[0]})" if cause is not None and str(cause) else ""


def _listed(keys: Iterable[object]) -> str:
    return ", ".join(sorted(str(key) for key in keys if key != "hydra"))
