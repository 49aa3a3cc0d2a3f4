"""A job of a sweep under any of Hydra's launchers: run in its own process, or skipped, resumed or retried.

The launcher decides where and when a job runs. Since each job is a separate process, one that crashes or is killed
leaves the others running, and each starts as fresh as a single run does.
"""

import itertools
import json
import logging
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from fer_lightning.atomic import replacing
from fer_lightning.code_version import code_digest, describe_code, file_digest
from fer_lightning.config import given_arguments, instantiate
from fer_lightning.errors import InputError
from fer_lightning.plain_errors import USERS_MISTAKES
from fer_lightning.run_settings import LOCATION_KEYS, asks_for_several, flattened

log = logging.getLogger(__name__)

LOOK_S = 0.5  # seconds between two checks of a job whether its sweep is still running
LOCK_S = 10  # seconds that a job may take to notice that its sweep was killed
CONNECT_S = 5
CODE_AT_START = "FER_LIGHTNING_CODE_AT_START"  # a variable of the environment, which all processes of a sweep inherit
ELSEWHERE = "sweep into another folder with hydra.sweep.dir=DIR"


class JobFailed(Exception):
    """Why a job has no result, in one sentence."""


def run_job(command: str, cfg: DictConfig) -> float | None:
    """Run the current job of a multirun, unless it is already done, and return the metric that sweeps compare.

    Args:
        command: The module of this package that does it, as `train`.
        cfg: The job's configuration.

    Returns:
        The monitored metric; None if the job failed, which `failure.json` in its folder and `SweepReport` report, or if
        nothing is monitored.

    Raises:
        InputError: The job would start several processes.
    """
    _refuse_several_processes(cfg)
    hydra_cfg = HydraConfig.get()
    job_dir = Path(hydra_cfg.runtime.output_dir)
    try:
        with FileLock(job_dir / ".lock", timeout=LOCK_S):
            if (facts := _result(job_dir)) is not None:
                _check_code(facts)
                _check_model(facts)
                log.info("%s: already done", job_dir.name)
            else:
                facts = _run(command, job_dir, hydra_cfg)
            _check_settings(facts, cfg)
    except Timeout:
        _fail(job_dir, "another process is running it")
    except JobFailed as error:
        _fail(job_dir, str(error))
    else:
        (job_dir / "failure.json").unlink(missing_ok=True)
        return facts["metrics"].get(_compared(cfg))
    return None


def _compared(cfg: DictConfig) -> str:
    """The metric that sweeps compare; only a training has a setting for it."""
    return OmegaConf.select(cfg, "monitor.metric") or "val/acc"


def _refuse_several_processes(cfg: DictConfig) -> None:
    trainer = cfg.get("trainer")
    if trainer is not None and asks_for_several(trainer.strategy, trainer.devices):
        raise InputError(
            f"trainer.strategy={trainer.strategy} on trainer.devices={trainer.devices}: a job of a sweep uses one "
            "device; sweep with trainer=auto, and hydra/launcher=joblib_gpus or ray for several GPUs"
        )


def _result(job_dir: Path) -> dict[str, Any] | None:
    """The job's result; None if there is none yet."""
    path = job_dir / "result.json"
    if not path.exists():
        return None
    try:
        facts = json.loads(path.read_text())
        facts["config"]["output_dir"], facts["code_sha256"], facts["versions"]["fer_lightning"]  # what is compared
    except (OSError, ValueError, KeyError) as error:
        raise JobFailed(f"its result.json cannot be read ({error}): remove the folder") from error
    return facts


def _check_settings(facts: dict[str, Any], cfg: DictConfig) -> None:
    """Refuse the result of another job, or of a command that did not pass on all of the sweep's settings."""
    theirs, ours = _comparable(facts["config"]), _comparable(OmegaConf.to_container(cfg, resolve=True))
    if changed := sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)):
        key = changed[0]
        raise JobFailed(
            f"the folder holds a run with {key}={theirs.get(key)}, but this job has {ours.get(key)}: {ELSEWHERE}"
        )


def _check_code(facts: dict[str, Any]) -> None:
    if (code := _version(facts)) != (now := _version(describe_code())):
        raise JobFailed(f"the folder holds a run of another code version ({code}, now {now}): {ELSEWHERE}")


def _check_model(facts: dict[str, Any]) -> None:
    """Refuse the measurement of a model file that is another one now."""
    model = facts.get("model")
    if isinstance(model, dict) and (path := Path(model["path"])).is_file() and file_digest(path) != model["sha256"]:
        raise JobFailed(f"{path} has changed since it was measured: {ELSEWHERE}")


def _comparable(config: dict[str, Any]) -> dict[str, Any]:
    """The settings by dotted keys, without places; the run's own folder, wherever it is, becomes `RUN`."""
    anywhere = json.loads(json.dumps(config).replace(json.dumps(config["output_dir"])[1:-1], "RUN"))
    # Another root may hold other images; a training's checkpoint is only where it resumes.
    telling = {"data.root"} if "trainer" in config else {"data.root", "ckpt_path"}  # there it is what is measured
    return {key: value for key, value in flattened(anywhere) if key not in LOCATION_KEYS or key in telling}


def _version(facts: dict[str, Any]) -> str:
    return f"{facts['versions']['fer_lightning']} {facts['code_sha256'][:12]}"


def _run(command: str, job_dir: Path, hydra_cfg: DictConfig) -> dict[str, Any]:
    """Run the job as a process, resuming from its last checkpoint if there is one, and return its result.

    Raises:
        JobFailed: The process ended without a result, or would run other code than the jobs before it.
    """
    now = code_digest()
    if os.environ.get(CODE_AT_START, now) != now:  # a cluster that was there before the sweep does not know it
        raise JobFailed("the code was changed since the sweep began: its jobs would not be comparable")
    checkpoints, began_with = job_dir / "checkpoints", job_dir / ".code"
    resumed = (checkpoints / "last.ckpt").exists()
    if not resumed:
        shutil.rmtree(checkpoints, ignore_errors=True)
        began_with.write_text(now)
    elif began_with.exists() and began_with.read_text() != now:
        raise JobFailed(f"its run was begun by another code version: {ELSEWHERE}")
    arguments = _arguments(command, job_dir, hydra_cfg, resumed=resumed)
    log.info("%s: %s", job_dir.name, "goes on" if resumed else "starts")
    start = time.perf_counter()
    # With one job at a time, the job writes to the screen and shows its progress there.
    alone = hydra_cfg.runtime.choices["hydra/launcher"] == "basic"
    with (job_dir / "output.log").open("ab+") as output:
        begin = output.seek(0, os.SEEK_END)
        exit_code = _wait([sys.executable, "-m", "fer_lightning.job", *arguments], output, alone=alone)
        output.seek(begin)
        said = output.read().decode(errors="replace")
    if exit_code != 0:
        raise JobFailed(_reason(exit_code, said))
    if (facts := _result(job_dir)) is None:
        raise JobFailed("it ended without a result.json")
    log.info("%s: done in %.0f s", job_dir.name, time.perf_counter() - start)
    return facts


def _arguments(command: str, job_dir: Path, hydra_cfg: DictConfig, *, resumed: bool) -> list[str]:
    """The job as arguments of the same command, without `sweep=`, which would start the sweep again."""
    own = [text for text in given_arguments(command, hydra_cfg) if not text.startswith("sweep=")]
    folder = f"hydra.run.dir={_quoted(job_dir)}"
    checkpoint = [f"ckpt_path={_quoted(job_dir / 'checkpoints' / 'last.ckpt')}"] if resumed else []
    return [f"fer_lightning.{command}", *own, folder, *checkpoint]


def _quoted(path: Path) -> str:
    """Quote a path for Hydra, to which commas, brackets and other characters have a meaning."""
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"


def _wait(command: list[str], output: IO[bytes], *, alone: bool) -> int:
    """Run a command to its end and return its exit code; if the sweep is killed meanwhile, end both processes."""
    sweep = os.getppid()
    with subprocess.Popen(command, stdout=None if alone else output, stderr=output) as process:
        try:
            while True:
                try:
                    return process.wait(timeout=LOOK_S)
                except subprocess.TimeoutExpired:
                    if not alone and os.getppid() != sweep:
                        process.kill()
                        os._exit(1)
        except BaseException:
            process.terminate()
            raise


def _reason(exit_code: int, said: str) -> str:
    """Why a process ended early, from its exit code and its last output."""
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        return f"killed by {name}" + (", as a machine that runs out of memory does" if name == "SIGKILL" else "")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return [f"exit code {exit_code}", *lines[-1:], *errors[-1:]][-1]


def _fail(job_dir: Path, reason: str) -> None:
    with replacing(job_dir / "failure.json") as temporary:
        temporary.write_text(json.dumps({"reason": reason}, indent=2) + "\n")
    log.error("%s: failed: %s", job_dir.name, reason)


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
        if _counts_more_jobs(config, self.max_jobs):
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
    metric, mode = _compared(config), OmegaConf.select(config, "monitor.mode") or "max"
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


def _counts_more_jobs(config: DictConfig, most: int) -> bool:
    """Whether the basic sweeper would start more than `most` jobs; other sweepers have a limit of their own."""
    if not _is_grid(config):
        return False
    swept = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides([*swept, *config.hydra.overrides.task])
    last = {override.get_key_element(): override for override in overrides if override.is_discrete_sweep()}
    counts = (sum(1 for _ in itertools.islice(o.sweep_string_iterator(), most + 1)) for o in last.values())
    return math.prod(counts) > most


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
