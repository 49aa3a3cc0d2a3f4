"""A sweep as a whole: checked before its first job starts, and reported after its last."""

import itertools
import json
import math
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from fer_lightning.machine.code_version import code_digest
from fer_lightning.settings.config import instantiate
from fer_lightning.settings.plain_errors import USERS_MISTAKES
from fer_lightning.sweeps.jobs import CODE_AT_START, compared

CONNECT_S = 5  # seconds that a cluster may take to answer


# Hydra turns exceptions of its callbacks into warnings and goes on; only SystemExit ends a sweep.
class SweepReport(Callback):
    """Checks a sweep before it starts, and reports its outcome at the end.

    Args:
        max_jobs: Largest number of jobs that is accepted.
    """

    def __init__(self, max_jobs: int) -> None:
        self.max_jobs = max_jobs

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse a sweep with too many jobs, with a cluster that does not answer, or with incomparable trials."""
        self.started = time.time()
        if not (jobs := _count_jobs(config, self.max_jobs)):
            sys.exit("error: this sweep has no jobs: a range or a pattern in it is of nothing")
        if jobs > self.max_jobs:
            sys.exit(
                f"error: this sweep has more than {self.max_jobs:,} jobs: if that is intended, allow them with "
                "hydra.callbacks.sweep_report.max_jobs=N"
            )
        _check_answers(OmegaConf.select(config, "hydra.launcher.ray.init.address"))
        if not _is_grid(config):
            _check_comparable_trials(config)
        os.environ[CODE_AT_START] = code_digest()
        Path(config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report how many jobs are done, which failed and why, and end with exit code 1 if any failed."""
        sweep_dir = Path(config.hydra.sweep.dir)
        failures = [path for path in sorted(sweep_dir.rglob("failure.json")) if path.stat().st_mtime >= self.started]
        done = len({path.parent for path in sweep_dir.rglob("result.json")} - {path.parent for path in failures})
        print(f"Jobs done: {done}, failed: {len(failures)}. Compare them: fer-report {sweep_dir}", flush=True)
        if failures:
            reasons = [
                f"  {path.parent.relative_to(sweep_dir)}: {json.loads(path.read_text())['reason']}" for path in failures
            ]
            again = f"{len(failures)} of the sweep's jobs failed; running the same command again retries only these"
            sys.exit("\n".join([f"error: {again}", *reasons]))


def _is_grid(config: DictConfig) -> bool:
    """Whether all jobs are known beforehand; a search chooses the next job by the results of earlier ones."""
    return config.hydra.sweeper._target_.endswith(".BasicSweeper")


def _check_comparable_trials(config: DictConfig) -> None:
    """End at once if a search would compare its trials by no validation score, or seek the worst."""
    metric, mode = compared(config), OmegaConf.select(config, "monitor.mode") or "max"
    direction = {"min": "minimize", "max": "maximize"}[mode]
    if config.hydra.sweeper.get("direction", direction) != direction:
        sys.exit(
            f"error: the best {metric} is the {mode}imum, and this search would "
            f"{config.hydra.sweeper.direction} it: set hydra.sweeper.direction={direction}"
        )
    try:
        datamodule = instantiate(config.data)
        validates = datamodule.has("val")
    except USERS_MISTAKES:
        return  # the first trial reports it
    if not validates:
        sys.exit(
            f"error: a search compares its trials by {metric}, and {datamodule.split.protocol} of "
            f"{datamodule.index.dataset} has no validation split: choose another protocol (for subject_kfold: "
            "protocol.val_folds=1)"
        )


def _count_jobs(config: DictConfig, most: int) -> int:
    """How many jobs the basic sweeper would start, counted to a little above `most`; 1 for others, with own limits."""
    if not _is_grid(config):
        return 1
    swept = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides([*swept, *config.hydra.overrides.task])
    last = {override.get_key_element(): override for override in overrides if override.is_discrete_sweep()}
    try:
        counts = [sum(1 for _ in itertools.islice(o.sweep_string_iterator(), most + 1)) for o in last.values()]
    except ValueError as error:
        sys.exit(f"error: this sweep cannot be counted: {error}")
    return math.prod(counts)


def _check_answers(address: str | None) -> None:
    """End at once if nothing listens at HOST:PORT; Ray would try for a minute."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except (OSError, ValueError) as error:
        sys.exit(
            f"error: no Ray cluster answers at hydra.launcher.ray.init.address={address} ({error}): start one with "
            "ray start --head --port=6379, or omit the address to use this machine"
        )
