"""Hydra's side of the commands: where conf/ is, what its top level holds, and how a user's mistake is told."""

import os

# albumentations asks the package index for its latest version on import; it must not.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# Hydra raises its errors instead of printing them its own way.
os.environ.setdefault("HYDRA_FULL_ERROR", "1")

import errno
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from fer_lightning.errors import InputError

__all__ = ["CONF_DIR", "check_keys", "compose_config", "instantiate", "plain_errors"]

USERS_MISTAKES = (InputError, HydraException, OmegaConfBaseException)
PACKAGE = Path(__file__).parent
CONF_DIR = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG}


@dataclass
class Monitor:
    """The validation metric that chooses the best epoch."""

    metric: str | None = MISSING
    mode: str = MISSING


@dataclass
class TrainConfig:
    """Top level of conf/train.yaml; Hydra refuses keys that are not here."""

    data: Any = MISSING
    protocol: Any = MISSING
    preprocess: Any = MISSING
    augmentation: Any = MISSING
    model: Any = MISSING
    loss: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING
    trainer: Any = MISSING
    callbacks: Any = MISSING
    logger: Any = MISSING
    monitor: Monitor = MISSING
    seed: int = MISSING
    ckpt_path: str | None = None
    output_dir: str = MISSING


@dataclass
class BaselineConfig:
    """Top level of conf/baseline.yaml."""

    data: Any = MISSING
    protocol: Any = MISSING
    preprocess: Any = MISSING
    augmentation: Any = MISSING
    model: Any = MISSING
    seed: int = MISSING
    max_images: int | None = None
    output_dir: str = MISSING


@dataclass
class AuditConfig:
    """Top level of conf/audit.yaml."""

    data: Any = MISSING
    protocol: Any = MISSING
    preprocess: Any = MISSING
    augmentation: Any = MISSING
    threshold: float = MISSING
    seed: int = MISSING
    output_dir: str = MISSING


@dataclass
class EvaluateConfig:
    """Top level of conf/evaluate.yaml."""

    data: Any = MISSING
    protocol: Any = MISSING
    preprocess: Any = MISSING
    augmentation: Any = MISSING
    ckpt_path: str | None = None
    split: str | None = None
    audit: str | None = None
    seed: int = MISSING
    output_dir: str = MISSING


ConfigStore.instance().store(name="train_schema", node=TrainConfig)
ConfigStore.instance().store(name="evaluate_schema", node=EvaluateConfig)
ConfigStore.instance().store(name="audit_schema", node=AuditConfig)
ConfigStore.instance().store(name="baseline_schema", node=BaselineConfig)


def run_folder(ckpt_path: str | None, new: str) -> str:
    """A run that goes on from `RUN/checkpoints/last.ckpt` goes on in RUN; any other starts a folder of its own."""
    path = Path(ckpt_path) if ckpt_path else None
    return str(path.parent.parent) if path and path.parent.name == "checkpoints" else new


def best_is(metric: str | None) -> str:
    """`min` for what should be small, `max` for the rest."""
    return "min" if metric and metric.endswith(("/loss", "/ece")) else "max"


OmegaConf.register_new_resolver("run_folder", run_folder)
OmegaConf.register_new_resolver("best_is", best_is)


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
    except (OSError, ValueError) as caught:
        # logging tells a folder it cannot write to as a ValueError.
        error = caught if isinstance(caught, OSError) else caught.__cause__
        if not isinstance(error, OSError) or error.errno not in UNWRITABLE:
            raise
        place = error.filename or "the output folder"
        sys.exit(f"error: {error.strerror}: {place}; make room there, or write elsewhere with hydra.run.dir=DIR")


def check_keys(cfg: DictConfig, schema: type) -> None:
    """Refuse top-level keys that nothing reads, which Hydra lets pass when they are added with `+key=value`."""
    known = {field.name for field in fields(schema)}
    if unknown := set(cfg) - known:
        raise InputError(f"there is no {', '.join(sorted(map(str, unknown)))} in the configuration: {_listed(known)}")


def explain(error: Exception) -> str:
    """Say in one sentence what a configuration or the files it names got wrong, with the keys there are."""
    if isinstance(error, InstantiationException):
        # Hydra wraps whatever a constructor raised, and repeats it with the place in its own message.
        cause = error.__cause__
        return str(cause) if isinstance(cause, InputError) else " ".join(str(error).split())
    if isinstance(error, HydraException | OmegaConfBaseException):
        text = " ".join(str(error).partition("Config search path")[0].split())
        cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
        return text + _what_there_is(cause)
    return str(error)


def _what_there_is(cause: BaseException | None) -> str:
    """List the keys beside one that does not exist, or say what OmegaConf found wrong with a value."""
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.parent_node is not None:
        place, _, key = str(cause.full_key).rpartition(".")
        return f" There is no {key!r}{f' in {place}' if place else ''}: {_listed(cause.parent_node)}"
    return f" ({str(cause).splitlines()[0]})" if cause is not None and str(cause) else ""


def _listed(keys: Iterable[object]) -> str:
    return ", ".join(sorted(str(key) for key in keys if key != "hydra"))
