"""Hydra's side of the commands: where conf/ is, its top-level keys, and what of it may be set."""

import os

# albumentations asks the package index for its latest version on import; it must not.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# Hydra raises its errors instead of printing them its own way.
os.environ.setdefault("HYDRA_FULL_ERROR", "1")
# Pictures are written and never shown: a training must not end with the display it was started on.
os.environ.setdefault("MPLBACKEND", "agg")

import math
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object, instantiate
from omegaconf import MISSING, DictConfig, OmegaConf

from fer_lightning.atomic import new_folder
from fer_lightning.errors import InputError
from fer_lightning.preprocess import Preprocess
from fer_lightning.runs.settings import DUPLICATED_PREFIXES, best_is
from fer_lightning.settings.kinds import refuse_other_kinds
from fer_lightning.settings.plain_errors import listed
from fer_lightning.sweeps.folders import holds_run, job_name, run_of, sweep_name
from fer_lightning.sweeps.own_gpu import visible_gpus

__all__ = [
    "CONF_DIR",
    "NO_BATCHES",
    "NO_PREPROCESS",
    "NO_SCALING",
    "NO_TRAINING",
    "check",
    "check_call",
    "compose_config",
    "get_object",
    "given_arguments",
    "instantiate",
    "refuse_unread",
]

# Groups of which a run has one option.
ONE_OF = (
    *("data", "protocol", "preprocess", "augmentation"),
    *("model", "loss", "optimizer", "scheduler", "trainer"),
)
# Groups whose settings are any number of parts.
ANY_OF = ("callbacks", "logger")
PACKAGE = Path(__file__).parents[1]
CONF_DIR = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"

# For `refuse_unread`: settings that only the training of a network uses.
NO_TRAINING = {"augmentation.transforms": [], "data.oversample": 0.0, "data.num_workers": None}
# The same for what only networks use, trained or not.
NO_BATCHES = {"data.batch_size": 128}
# The same for the preprocessing, and for what of it comes after the filters.
NO_PREPROCESS = {f"preprocess.{name}": value for name, value in asdict(Preprocess()).items()}
NO_SCALING = {place: NO_PREPROCESS[place] for place in ("preprocess.scaling", "preprocess.mean", "preprocess.std")}


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


def given_arguments(command: str, hydra_cfg: DictConfig) -> list[str]:
    """What a command was called with, as Hydra knows it: overrides, and where a configuration of the user's own is."""
    name = [f"--config-name={hydra_cfg.job.config_name}"] if hydra_cfg.job.config_name != command else []
    folders = [
        f"--config-dir={source.path}"
        for source in hydra_cfg.runtime.config_sources
        if source.provider == "command-line"
    ]
    # Hydra notes its mode for every run; only a job of a sweep=, which asks for another, needs it again.
    told = ("hydra.searchpath=", "hydra.mode=") if hydra_cfg.runtime.choices.get("sweep") else "hydra.searchpath="
    hydras = [text for text in hydra_cfg.overrides.hydra if text.startswith(told)]
    return [*name, *folders, *hydras, *hydra_cfg.overrides.task]


# Our ray.yaml has the name of the one that Ray's plugin brings, whose schema then checks it, as it should.
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/ray' is validated against ConfigStore schema")

ConfigStore.instance().store(name="train_schema", node=TrainConfig)
ConfigStore.instance().store(name="evaluate_schema", node=EvaluateConfig)
ConfigStore.instance().store(name="audit_schema", node=AuditConfig)
ConfigStore.instance().store(name="baseline_schema", node=BaselineConfig)


@cache  # Hydra asks several times
def run_folder(ckpt_path: str | None, new: str) -> str:
    """A run resumed from `RUN/checkpoints/last.ckpt` stays in the folder RUN; any other gets a new one of its own."""
    if run := run_of(ckpt_path):
        return str(run)
    try:
        return str(new_folder(Path(new)))
    except OSError:
        return new  # which Hydra cannot make either, and says why


def records_of(folder: str) -> str | None:
    """Where in a folder Hydra keeps the settings of a run; None if a run there, resumed or in the way, has its own."""
    return None if holds_run(Path(folder)) else ".hydra"


def check_call(cfg: DictConfig) -> None:
    """Raise InputError for what a command was called with and could not do, as Hydra knows it.

    That is a list of options, as `model=[cnn3,cnn4]`, of which Hydra makes one mixture, and an `output_dir` set by the
    user, since Hydra would keep the log and the settings elsewhere.
    """
    for name, _, value in (text.partition("=") for text in HydraConfig.get().overrides.task):
        if name in ONE_OF and value.startswith("["):
            raise InputError(f"{name}={value} would mix these into one: to run each, use -m {name}={value[1:-1]}")
    if Path(cfg.output_dir) != Path(HydraConfig.get().runtime.output_dir):
        raise InputError(
            f"output_dir={cfg.output_dir} would part the results from their log: set hydra.run.dir=DIR, of a sweep "
            "hydra.sweep.dir=DIR"
        )


def jobs_at_once(without_gpus: int, jobs_per_gpu: int) -> int:
    """The jobs that fit on the GPUs which this process may use, or `without_gpus` jobs if there are none."""
    return jobs_per_gpu * len(visible_gpus()) or without_gpus


OmegaConf.register_new_resolver("run_folder", run_folder)
OmegaConf.register_new_resolver("records_of", records_of)
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


def check(cfg: DictConfig, schema: type) -> None:
    """Refuse what Hydra accepts: unused top-level keys, added with `+key=value`, and values that cannot be used."""
    known = {field.name for field in fields(schema)}
    if unknown := set(cfg) - known:
        raise InputError(
            f"there is no {', '.join(sorted(map(str, unknown)))} in the configuration: choose from {listed(known)}"
        )
    settings = OmegaConf.to_container(cfg)
    _check_groups({group: settings[group] for group in (*ONE_OF, *ANY_OF) if group in known})
    for prefix in DUPLICATED_PREFIXES:
        part, group, _ = prefix.split(".")
        if (copy := (settings.get(part) or {}).get(group)) is not None and not str(copy).startswith("${"):
            raise InputError(f"{part}.{group} is a copy of {group}: set {group}=, or its settings, instead")
    _check_values(settings, "")


def _check_groups(groups: Mapping[str, Any]) -> None:
    """Refuse a group without an option, and a part of `callbacks` or `logger` that is no callback or logger."""
    for group, settings in groups.items():
        if settings == MISSING:
            raise InputError(f"{group} is left open: choose an option of it, as --help lists them")
        for name, part in settings.items() if group in ANY_OF else ():
            if part is not None and not isinstance(part, dict):
                raise InputError(f"{group}.{name} must be null, to go without it, or settings by name, got {part!r}")


def _check_values(node: Mapping[Any, Any], place: str) -> None:
    """Refuse, at and below a node, infinite numbers, which no JSON can hold, and what a constructor does not take.

    The constructors are this package's and torch's, whose signatures say what they take.
    """
    given = {str(key): value for key, value in node.items() if not str(value).startswith(("${", "???"))}
    if str(given.get("_target_")).startswith((f"{PACKAGE.name}.", "torch.optim.")):
        try:
            constructor = get_object(given["_target_"])
        except ImportError as error:
            raise InputError(f"{place}_target_ names what does not exist, {given['_target_']} ({error})") from error
        refuse_other_kinds(constructor, given, place)
    for key, value in given.items():
        parts = enumerate(value) if isinstance(value, list) else [(None, value)]
        for number, part in parts:
            if isinstance(part, dict):
                _check_values(part, f"{place}{key}." if number is None else f"{place}{key}.{number}.")
            if isinstance(part, float) and not math.isfinite(part):
                raise InputError(f"{place}{key} must be a finite number, got {part}")


def refuse_unread(cfg: DictConfig, neutral: Mapping[str, object]) -> None:
    """Refuse changes of settings that a command must compose, since `data` refers to them, but does not use.

    Args:
        cfg: The composed configuration.
        neutral: Dotted key of each such setting -> the value that it must keep.
    """
    for place, value in neutral.items():
        if (asked := OmegaConf.select(cfg, place)) != value:
            raise InputError(f"{place}={asked} would change nothing here: omit it")
