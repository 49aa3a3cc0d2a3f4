"""Sweeps as a person starts them: in processes of their own, some of which are killed."""

import importlib.util
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fer_lightning.errors import InputError
from fer_lightning.machine.code_version import describe_code, file_digest
from fer_lightning.runs.settings import asks_for_several
from fer_lightning.settings.config import given_arguments
from fer_lightning.settings.plain_errors import explain
from fer_lightning.sweeps.folders import LONGEST, job_name, sweep_name
from fer_lightning.sweeps.jobs import CODE_AT_START, JobFailed, _arguments, _check_code, _check_model, _run
from fer_lightning.sweeps.own_gpu import OwnGpu, visible_gpus
from fer_lightning.sweeps.report import SweepReport

TINY = (
    "data.reader.train=160",
    "data.reader.val=33",
    "data.reader.test=14",
    "data.batch_size=8",
    "data.num_workers=0",
    "trainer.limit_train_batches=2",
    "trainer.accelerator=cpu",
    "hydra.sweep.dir=sweep",
)
LONG = "trainer.max_epochs=40"  # of a job that is killed


def sweep(folder: Path, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a sweep with `folder` as working directory."""
    command = [sys.executable, "-m", "fer_lightning.train", "-m", *overrides]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=600, env=os.environ | environment
    )


def results(folder: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("sweep/*/result.json")}


def wait_for(pattern: str, folder: Path) -> list[Path]:
    """What matches, once something does."""
    end = time.monotonic() + 120
    while not (found := list(folder.glob(pattern))):
        assert time.monotonic() < end, f"no {pattern} came"
        time.sleep(0.05)
    return found


def processes_in(folder: Path) -> list[int]:
    """Ids of the jobs' processes that work below a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes()
            inside = (path.parent / "cwd").readlink() == folder
        except OSError:  # it has ended, or is not ours
            continue
        if inside and b"fer_lightning.sweeps.process" in arguments:
            found.append(int(path.parent.name))
    return found


needs_proc = pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="/proc is Linux's")


def test_a_job_that_cannot_work_does_not_end_its_sweep_and_the_same_command_retries_it_alone(tmp_path):
    jobs = (*TINY, "trainer.max_epochs=1", "logger=none", "model.net.kernel_size=7,5")
    finished = sweep(tmp_path, *jobs)
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    assert "1 of the sweep's jobs failed" in finished.stderr
    assert "kernel_size=7 with valid padding leaves no pixels" in finished.stderr
    [(name, result)] = results(tmp_path).items()
    assert "kernel_size-5" in name
    assert result["config"]["model"]["net"]["kernel_size"] == 5
    [failure] = tmp_path.glob("sweep/*kernel_size-7*/failure.json")
    assert "leaves no pixels" in json.loads(failure.read_text())["reason"]

    again = sweep(tmp_path, *jobs)
    assert again.returncode == 1
    assert f"{name}: already done" in again.stdout
    assert results(tmp_path) == {name: result}


def test_a_finished_job_of_other_settings_or_faces_is_neither_taken_for_this_one_nor_overwritten(tmp_path):
    jobs = (*TINY, "logger=none", "trainer.max_epochs=1", "hydra.sweep.subdir=one")
    sweep(tmp_path, *jobs, "seed=0")
    [path] = tmp_path.glob("sweep/*/result.json")
    before = json.loads(path.read_text())
    other = sweep(tmp_path, *jobs, "seed=1")
    assert other.returncode == 1
    assert "the folder holds a run with " in other.stderr
    assert "hydra.sweep.dir=DIR" in other.stderr
    assert json.loads(path.read_text()) == before

    before["config"]["data"]["root"] = "elsewhere"
    path.write_text(json.dumps(before))
    assert "the folder holds a run with data.root=elsewhere" in sweep(tmp_path, *jobs, "seed=0").stderr


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (signal.SIGKILL, "killed by SIGKILL, as a machine that runs out of memory does"),
        (signal.SIGTERM, "stopped by SIGTERM"),
        (signal.SIGINT, "stopped by Ctrl-C; ckpt_path="),
    ],
)
def test_a_job_that_is_killed_leaves_the_others_running_and_goes_on_with_the_same_command(tmp_path, sent, reason):
    jobs = ("-m", *TINY, LONG, "logger=none", "seed=0,1")
    with subprocess.Popen(
        [sys.executable, "-m", "fer_lightning.train", *jobs], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as running:
        wait_for("sweep/*seed-0*/checkpoints/last.ckpt", tmp_path)
        [job] = processes_in(tmp_path)
        os.kill(job, sent)
        said = running.communicate(timeout=300)[1]
    assert running.returncode == 1
    assert "seed-0" in said
    assert reason in said
    assert ["seed-1" in name for name in results(tmp_path)] == [True]

    again = sweep(tmp_path, *jobs[1:])
    assert again.returncode == 0, again.stderr
    assert "goes on" in again.stdout
    assert {result["seed"] for result in results(tmp_path).values()} == {0, 1}
    assert all(result["epochs"] == 40 for result in results(tmp_path).values())
    assert not list(tmp_path.glob("sweep/*/failure.json"))


def test_a_job_is_told_where_its_user_keeps_configurations():
    places = [{"provider": "main", "path": "conf"}, {"provider": "command-line", "path": "/mine"}]
    hydra_cfg = {
        "job": {"config_name": "train"},
        "runtime": {"config_sources": places, "choices": {"sweep": None}},
        "overrides": {
            "hydra": ["hydra.sweep.dir=sweep", "hydra.searchpath=[/ours]", "hydra.mode=RUN"],
            "task": ["seed=1"],
        },
    }
    told = ["--config-dir=/mine", "hydra.searchpath=[/ours]", "seed=1"]
    again = _arguments("train", Path("job"), OmegaConf.create(hydra_cfg), resumed=False)
    assert again == ["fer_lightning.train", *told, "hydra.mode=RUN", "hydra.run.dir='job'"]
    assert given_arguments("train", OmegaConf.create(hydra_cfg)) == told
    hydra_cfg["job"]["config_name"] = "other"
    assert given_arguments("train", OmegaConf.create(hydra_cfg)) == ["--config-name=other", *told]


def test_the_command_of_a_sweeps_job_says_that_it_is_one_run():
    overrides = {"hydra": ["hydra.mode=RUN"], "task": ["sweep=mine"]}
    hydra_cfg = {"job": {"config_name": "train"}, "runtime": {"config_sources": []}, "overrides": overrides}
    for choice, told in (("mine", ["hydra.mode=RUN", "sweep=mine"]), (None, ["sweep=mine"])):
        hydra_cfg["runtime"]["choices"] = {"sweep": choice}
        assert given_arguments("train", OmegaConf.create(hydra_cfg)) == told


@pytest.mark.slow
def test_the_jobs_of_a_sweep_know_the_configurations_of_its_user(tmp_path):
    mine = tmp_path / "mine" / "experiment"
    mine.mkdir(parents=True)
    (mine / "quick.yaml").write_text(
        "# @package _global_\ntrainer: {max_epochs: 1}\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {seed: 'range(0,1)'}}}\n"
    )
    own = ("--config-dir=mine", *TINY, "logger=none", "experiment=quick", "hydra.job.name=my_job")
    finished = sweep(tmp_path, *own)
    assert finished.returncode == 0, finished.stderr
    [result] = results(tmp_path).values()
    assert result["config"]["trainer"]["max_epochs"] == 1
    assert f"--config-dir={tmp_path / 'mine'}" in result["command"]


def test_a_job_is_not_started_on_other_code_than_its_sweep(tmp_path, monkeypatch):
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}, "launcher": {}, "sweeper": {"params": None}}})
    monkeypatch.setattr("fer_lightning.sweeps.report._count_jobs", lambda *_: 1)
    monkeypatch.setattr("fer_lightning.sweeps.report._is_grid", lambda _: True)
    monkeypatch.setenv(CODE_AT_START, "")  # so that what the sweep sets is gone after the test
    monkeypatch.delenv(CODE_AT_START)
    SweepReport(max_jobs=1).on_multirun_start(config)
    # A process that starts later, as Ray's do, would find only the new code.
    monkeypatch.setattr("fer_lightning.sweeps.jobs.code_digest", lambda: "edited")
    with pytest.raises(JobFailed, match="the code was changed since the sweep began"):
        _run("train", tmp_path, None)


def test_a_job_that_was_begun_by_other_code_does_not_go_on(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    (tmp_path / ".code").write_text("before the edit")
    with pytest.raises(JobFailed, match="its run was begun by another code version: sweep into another folder"):
        _run("train", tmp_path, None)


def test_a_result_of_other_code_is_not_taken_for_one_of_this():
    facts = {"versions": {"fer_lightning": "0"}, "code_sha256": "an older one"}
    with pytest.raises(JobFailed, match="holds a run of another code version .*: sweep into another folder"):
        _check_code(facts)
    _check_code(describe_code())


def test_changed_code_gets_a_folder_of_its_own(monkeypatch):
    before = sweep_name("train", ["-m", "seed=0,1"])
    monkeypatch.setattr("fer_lightning.sweeps.folders.code_digest", lambda: "edited")
    assert sweep_name("train", ["-m", "seed=0,1"]) != before


@pytest.mark.parametrize(
    ("swept", "message"),
    [
        ("protocol.fold=range(10,0)", "this sweep has no jobs: a range or a pattern in it is of nothing"),
        ("seed=range(0,10,0)", "this sweep cannot be counted: range"),
        ("model=[cnn3,cnn4]", "would mix these into one: to run each, use -m model=cnn3,cnn4"),
    ],
)
def test_a_sweep_of_nothing_or_of_a_mixture_is_told(tmp_path, swept, message):
    finished = sweep(tmp_path, *TINY, swept)
    assert finished.returncode == 1
    assert message in finished.stderr


def test_a_measurement_of_a_file_that_has_changed_is_not_taken_for_one_of_this_file(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"as measured")
    facts = {"model": {"path": str(tmp_path / "model.onnx"), "sha256": file_digest(tmp_path / "model.onnx")}}
    _check_model(facts)
    (tmp_path / "model.onnx").write_bytes(b"exported again")
    with pytest.raises(JobFailed, match="model.onnx has changed since it was measured: sweep into another folder"):
        _check_model(facts)


@pytest.mark.slow
@needs_proc
def test_a_sweep_that_is_killed_takes_its_jobs_along_and_ends_with_the_numbers_of_one_that_was_not(
    tmp_path, monkeypatch
):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs fer-lightning[joblib]")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that jobs share the cores, also beside a GPU
    jobs = (*TINY, LONG, "logger=none", "seed=0,1", "hydra/launcher=joblib_gpus")
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    assert sweep(tmp_path / "whole", *jobs).returncode == 0
    command = [sys.executable, "-m", "fer_lightning.train", "-m", *jobs]
    with subprocess.Popen(command, cwd=tmp_path / "killed", stdout=subprocess.DEVNULL) as running:
        wait_for("sweep/*/checkpoints/last.ckpt", tmp_path / "killed")
        running.kill()
    time.sleep(3)
    assert processes_in(tmp_path / "killed") == []
    assert len(results(tmp_path / "killed")) < 2

    again = sweep(tmp_path / "killed", *jobs)
    assert again.returncode == 0, again.stderr
    whole, killed = results(tmp_path / "whole"), results(tmp_path / "killed")
    assert {name: result["metrics"] for name, result in whole.items()} == {
        name: result["metrics"] for name, result in killed.items()
    }
    assert {result["hardware"]["threads"] for result in whole.values()} == {max(1, os.cpu_count() // 2)}


@pytest.mark.slow
def test_each_job_of_joblib_gpus_sees_one_gpu_which_no_other_running_job_sees(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs fer-lightning[joblib]")
    jobs = (*TINY, "trainer.max_epochs=1", "logger=none", "seed=0,1,2", "hydra/launcher=joblib_gpus")
    finished = sweep(tmp_path, *jobs, CUDA_VISIBLE_DEVICES="4,6")
    assert finished.returncode == 0, finished.stderr
    assert "n_jobs=2" in finished.stdout
    assert {result["hardware"]["cuda_visible_devices"] for result in results(tmp_path).values()} == {"4", "6"}
    logs = [path.read_text() for path in tmp_path.glob("sweep/*/output.log")]
    assert len(logs) == 3
    assert all("Everything is in" in log for log in logs)


def _job(gpus: list[str], together: Barrier, seconds: float, log: Path) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    own_gpu = OwnGpu()
    own_gpu.on_multirun_start(None)
    together.wait(60)
    own_gpu.on_job_start(None)
    start = time.time()
    time.sleep(seconds)
    log.write_text(json.dumps([os.environ["CUDA_VISIBLE_DEVICES"], start, time.time()]))
    own_gpu.on_job_end(None)


@pytest.mark.parametrize(("said", "gpus"), [("-1", []), ("", []), ("0, 2", ["0", "2"]), ("1,-1,0", ["1"])])
def test_gpus_are_those_that_cuda_would_see(monkeypatch, said, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert visible_gpus() == gpus


def test_no_two_jobs_at_the_same_time_have_one_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(5)
    jobs = [context.Process(target=_job, args=(["0", "1"], together, 0.5, tmp_path / f"{n}.json")) for n in range(5)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    times = [json.loads((tmp_path / f"{n}.json").read_text()) for n in range(5)]
    for gpu in ("0", "1"):
        spans = sorted((start, end) for own, start, end in times if own == gpu)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert {own for own, _, _ in times} == {"0", "1"}


def test_each_gpu_takes_as_many_jobs_as_it_is_said_to_and_a_further_one_waits(tmp_path, monkeypatch):
    def wait(_: float) -> None:
        raise TimeoutError

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr("fer_lightning.sweeps.own_gpu.time.sleep", wait)
    jobs = [OwnGpu(jobs_per_gpu=2) for _ in range(5)]
    for job in jobs:
        job.on_multirun_start(None)
    taken = []
    for job in jobs[:4]:
        job.on_job_start(None)
        taken.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert taken == ["0", "1", "0", "1"]
    with pytest.raises(TimeoutError):
        jobs[4].on_job_start(None)
    jobs[1].on_job_end(None)
    jobs[4].on_job_start(None)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"


def test_a_gpu_for_no_job_is_refused():
    with pytest.raises(InputError, match="jobs_per_gpu must be at least 1, got 0"):
        OwnGpu(0)


@pytest.mark.slow
def test_ray_gives_each_job_a_gpu_of_its_own_and_runs_them_all(tmp_path, monkeypatch):
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs fer-lightning[ray]")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # fewer than two there would be too few for Ray
    logical = ("hydra/launcher=ray", "+hydra.launcher.ray.init.num_gpus=2", "hydra.launcher.ray.remote.num_gpus=1")
    finished = sweep(tmp_path, *TINY, "trainer.max_epochs=1", "logger=none", "seed=0,1,2", *logical)
    assert finished.returncode == 0, finished.stderr
    found = results(tmp_path)
    assert len(found) == 3
    assert {result["hardware"]["cuda_visible_devices"] for result in found.values()} <= {"0", "1"}


def test_a_ray_cluster_that_does_not_answer_is_told_within_seconds(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs fer-lightning[ray]")
    start = time.monotonic()
    finished = sweep(tmp_path, *TINY, "hydra/launcher=ray", "hydra.launcher.ray.init.address=127.0.0.1:9")
    assert finished.returncode == 1
    assert "no Ray cluster answers at hydra.launcher.ray.init.address=127.0.0.1:9" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert time.monotonic() - start < 60


@pytest.mark.slow
def test_submitit_runs_a_sweep_as_it_would_on_a_cluster(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs fer-lightning[slurm]")
    finished = sweep(
        tmp_path, *TINY, "trainer.max_epochs=1", "logger=none", "seed=0,1", "hydra/launcher=submitit_local"
    )
    assert finished.returncode == 0, finished.stderr
    assert {result["seed"] for result in results(tmp_path).values()} == {0, 1}


def test_a_partition_that_slurm_does_not_know_is_told_in_slurms_words(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs fer-lightning[slurm]")
    refusal = "sbatch: error: invalid partition specified: nowhere"
    for name in ("srun", "sbatch", "sinfo", "scontrol"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{refusal}' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    finished = sweep(tmp_path, *TINY, "seed=0,1", "hydra/launcher=slurm", "hydra.launcher.partition=nowhere", PATH=path)
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    assert refusal in finished.stderr


@pytest.mark.slow
def test_optuna_searches_and_goes_on_where_it_stopped(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs fer-lightning[optuna]")
    search = ("sweep=optuna_cnn4", "hydra.sweeper.n_trials=1", "logger=none", "trainer.max_epochs=1")
    tiny = ("data=synthetic", "protocol=official", *TINY, *search)
    first = sweep(tmp_path, *tiny)
    assert first.returncode == 0, first.stderr
    [(name, result)] = results(tmp_path).items()
    assert (tmp_path / "sweep" / "study.db").exists()
    second = sweep(tmp_path, *tiny)
    assert second.returncode == 0, second.stderr
    assert len(results(tmp_path)) == 2
    assert results(tmp_path)[name] == result


@pytest.mark.slow
def test_a_search_tells_before_its_first_trial_that_nothing_is_validated_and_survives_trials_that_fail(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs fer-lightning[optuna]")
    search = ("data=synthetic", *TINY, "sweep=optuna_cnn4", "logger=none", "trainer.max_epochs=1")
    unvalidated = sweep(tmp_path, *search, "protocol=random_80_20")
    assert unvalidated.returncode == 1
    assert "a search compares its trials by val/acc, and random_80_20 of synthetic has no" in unvalidated.stderr
    worst = sweep(tmp_path, *search, "protocol=official", "monitor.metric=val/loss")
    assert worst.returncode == 1
    assert "the best val/loss is the minimum, and this search would maximize it" in worst.stderr
    assert not list(tmp_path.glob("sweep/*/output.log"))

    failing = sweep(tmp_path, *search, "protocol=official", "hydra.sweeper.n_trials=2", "model.net.kernel_size=7")
    assert failing.returncode == 1
    assert "Traceback" not in failing.stderr
    assert "error: no trial of this search produced a result" in failing.stderr
    assert len(list(tmp_path.glob("sweep/*/failure.json"))) == 2


@pytest.mark.slow
def test_evaluations_that_are_done_are_not_done_again_and_those_of_another_model_are_told(finished_run, tmp_path):
    quick = ("evaluate.robustness=0", "evaluate.attribution=0", "evaluate.resamples=0", "hydra.sweep.dir=sweep")
    faces = ("data=synthetic", "data.reader.train=140", "data.reader.val=35", "data.reader.test=35", "split=val,test")

    def evaluate_with(model: Path) -> str:
        command = [sys.executable, "-m", "fer_lightning.evaluate", "-m", f"ckpt_path={model}", *quick, *faces]
        subdir = "hydra.sweep.subdir=${split}"  # the model's path in it would make another model another job
        finished = subprocess.run([*command, subdir], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        return finished.stdout + finished.stderr

    assert "Jobs done: 2, failed: 0" in evaluate_with(finished_run)
    again = evaluate_with(finished_run)
    assert again.count("already done") == 2
    assert "Jobs done: 2, failed: 0" in again
    other = evaluate_with(finished_run / "checkpoints" / "last.ckpt")
    assert "the folder holds a run with ckpt_path=" in other
    assert "Jobs done: 0, failed: 2" in other


def test_a_launcher_that_is_not_installed_is_told_with_what_brings_it(monkeypatch):
    misspelt = HydraException("Could not find 'hydra/launcher/joblib_gpu'")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "something")
    assert "pip install" not in explain(misspelt)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for said, extra in [
        ("In 'hydra/launcher/joblib_gpus': Could not load 'hydra/launcher/joblib'.", "joblib"),
        ("In 'hydra/config': Could not find 'hydra/launcher/submitit_local'", "slurm"),
        ("In 'hydra/config': Could not find 'hydra/sweeper/optuna'", "optuna"),
    ]:
        assert explain(HydraException(said)).endswith(f" Install it with: pip install 'fer-lightning[{extra}]'")
    assert "pip install" not in explain(HydraException("Could not find 'hydra/launcher/nonsense'"))


@pytest.mark.parametrize(
    ("strategy", "devices", "several"),
    [("auto", 1, False), ("auto", [1], False), ("auto", 2, True), ("auto", "auto", True), ("auto", -1, True),
     ("auto", "0,1", True), ("ddp", 1, True)],
)  # fmt: skip
def test_which_devices_are_several(strategy, devices, several):
    assert asks_for_several(strategy, OmegaConf.create({"devices": devices}).devices) == several


def test_a_job_of_a_sweep_may_not_start_several_processes(tmp_path):
    finished = sweep(tmp_path, *TINY, "trainer=ddp", "seed=0,1")
    assert finished.returncode == 1
    assert "a job of a sweep uses one device" in finished.stderr
    assert not results(tmp_path)


def test_a_sweep_of_more_than_a_thousand_jobs_has_to_be_meant(tmp_path):
    finished = sweep(
        tmp_path, *TINY, "seed=range(0,100)", "optimizer.lr=1e-3,1e-4", "model=cnn3,cnn4,ahmad3,resnet18,vgg16,neamtiu4"
    )
    assert finished.returncode == 1
    assert "more than 1,000 jobs" in finished.stderr
    assert "hydra.callbacks.sweep_report.max_jobs=N" in finished.stderr
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_tensorboard_shows_what_the_jobs_of_a_sweep_vary_beside_their_final_metrics(tmp_path):
    assert sweep(tmp_path, *TINY, "trainer.max_epochs=1", "model.net.kernel_size=3,5").returncode == 0
    shown = {}
    for folder in {path.parent for path in tmp_path.glob("sweep/**/events.out*")}:
        events = EventAccumulator(str(folder)).Reload()
        if "_hparams_/session_start_info" in events.summary_metadata:
            shown[str(folder)] = (events.Scalars("final/test/acc")[-1].value, folder)
    assert len(shown) == 2


def test_a_sweep_has_the_same_folder_for_the_same_command_wherever_it_runs():
    name = sweep_name("train", ["-m", "model=cnn3,cnn4", "seed=0,1"])
    assert name.startswith("cnn3,cnn4_0,1_")
    same = ["seed=0,1", "--multirun", "hydra/launcher=ray", "data.cache_dir=/elsewhere", "model=cnn3,cnn4"]
    assert sweep_name("train", same) == name
    assert sweep_name("train", ["-m", "model=cnn3,cnn4", "seed=0,2"]) != name
    assert sweep_name("baseline", same) != name


def test_a_jobs_folder_is_one_folder_and_not_too_long_for_one():
    assert job_name(["model=cnn3", "model.net.kernel_size=3", "seed=1"]) == "model-cnn3_kernel_size-3_seed-1"
    assert "/" not in job_name(["model.init_from=/a/b/best.ckpt"])
    for one, other in [("data.root=/a", "data.root=/b"), ("x=-1", "x=1"), ("x=1e-3", "x=1e+3"), ("x=[1,2]", "x=1,2")]:
        assert job_name([one]) != job_name([other])
    long = [f"model.setting_{n}=3" for n in range(40)]
    assert len(job_name(long)) < LONGEST + 10
    assert job_name(long) != job_name([*long, "seed=1"])
