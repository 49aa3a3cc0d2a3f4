"""A job of a sweep under any of Hydra's launchers: run in its own process, or skipped, resumed or retried.

The launcher decides where and when a job runs. Since each job is a separate process, one that crashes or is killed
leaves the others running, and each starts as fresh as a single run does.
"""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fer_lightning.atomic import replacing
from fer_lightning.errors import InputError
from fer_lightning.machine.code_version import code_digest, describe_code, file_digest
from fer_lightning.runs.settings import LOCATION_KEYS, asks_for_several, flattened
from fer_lightning.settings.config import given_arguments

log = logging.getLogger(__name__)

LOOK_S = 0.5  # seconds between two checks of a job whether its sweep is still running
LOCK_S = 10  # seconds that a job may take to notice that its sweep was killed
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
        The monitored metric; None if the job failed, which `failure.json` in its folder and the sweep's report tell, or
        if nothing is monitored.

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
        return facts["metrics"].get(compared(cfg))
    return None


def compared(cfg: DictConfig) -> str:
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
        exit_code = _wait([sys.executable, "-m", "fer_lightning.sweeps.process", *arguments], output, alone=alone)
        output.seek(begin)
        said = output.read().decode(errors="replace")
    if exit_code != 0:
        raise JobFailed(_reason(exit_code, said))
    if (facts := _result(job_dir)) is None:
        raise JobFailed("it ended without a result.json")
    log.info("%s: done in %.0f s", job_dir.name, time.perf_counter() - start)
    return facts


def _arguments(command: str, job_dir: Path, hydra_cfg: DictConfig, *, resumed: bool) -> list[str]:
    """The job as arguments of the same command, as one run whatever of them would start the sweep again."""
    given = given_arguments(command, hydra_cfg)
    own = [*(text for text in given if not text.startswith("hydra.mode=")), "hydra.mode=RUN"]
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
