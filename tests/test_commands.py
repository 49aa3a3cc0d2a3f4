"""`python -m fer_lightning.train` as a person or a cluster runs it: in a process of its own."""

import importlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from fer_lightning.module import ExpressionClassifier
from fer_lightning.settings.config import compose_config, instantiate

FEW_FACES = ("data.reader.train=160", "data.reader.val=33", "data.reader.test=14")
TINY = (
    "model=cnn3",
    *FEW_FACES,
    "data.batch_size=8",
    "data.num_workers=0",
    "logger=none",
)
EPOCHS = 4  # of a run that is killed


def command(*overrides: str) -> list[str]:
    return [sys.executable, "-m", "fer_lightning.train", *overrides]


def run(folder: Path, *overrides: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command with `folder` as working directory."""
    finished = subprocess.run(command(*overrides), cwd=folder, capture_output=True, text=True, timeout=300)
    assert not check or finished.returncode == 0, finished.stdout + finished.stderr
    return finished


def kill_in_mid_epoch(folder: Path, run_dir: Path, *overrides: str) -> None:
    """Start the command and SIGKILL it a moment after its second epoch has been written down."""
    with subprocess.Popen(command(*overrides), cwd=folder, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not len_of(run_dir / "metrics.csv") >= 2:
            time.sleep(0.005)
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    last = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] + 1 < EPOCHS, "the run had trained to its end before it was killed"


def len_of(table: Path) -> int:
    return len(pd.read_csv(table)) if table.exists() else 0


def test_a_run_has_a_folder_named_after_it_with_its_settings_and_its_log(tmp_path):
    run(tmp_path, *TINY, "trainer.max_epochs=1", "trainer.limit_train_batches=1")
    [folder] = (tmp_path / "outputs" / "runs").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_synthetic_cnn3", folder.name)
    assert OmegaConf.load(folder / ".hydra" / "config.yaml").model.net.name == "cnn3"
    assert "synthetic, protocol official: 160 train" in (folder / "train.log").read_text()


@pytest.mark.parametrize(
    ("name", "reader"),
    [("train", "synthetic"), ("baseline", "synthetic"), ("evaluate", "fer2013"), ("audit", "fer2013")],
)
def test_a_command_prints_its_settings(name, reader, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--cfg", "job"])
    importlib.import_module(f"fer_lightning.{name}").main()
    assert OmegaConf.create(capsys.readouterr().out).data.reader._target_.endswith(f"read_{reader}")


@pytest.mark.slow
def test_a_run_killed_in_mid_epoch_and_resumed_ends_as_one_that_was_not(tmp_path):
    settings = (*TINY, "callbacks=ema", f"trainer.max_epochs={EPOCHS}", "trainer.accelerator=cpu")
    run(tmp_path, *settings, "hydra.run.dir=whole")
    kill_in_mid_epoch(tmp_path, tmp_path / "killed", *settings, "hydra.run.dir=killed")
    assert not (tmp_path / "killed" / "result.json").exists()
    run(tmp_path, *settings, "ckpt_path=killed/checkpoints/last.ckpt")

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for checkpoint in ("last.ckpt", "best.ckpt"):
        states = [torch.load(d / "checkpoints" / checkpoint, weights_only=True)["state_dict"] for d in (whole, killed)]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    results = [json.loads((d / "result.json").read_text()) for d in (whole, killed)]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert results[0]["epochs"] == results[1]["epochs"] == EPOCHS
    tables = [pd.read_csv(d / "metrics.csv").drop(columns=["images_per_s", "seconds"]) for d in (whole, killed)]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.slow
def test_two_processes_measure_what_one_measures_with_no_sample_counted_twice(tmp_path):
    cpu = ("trainer.accelerator=cpu", "trainer.precision=32-true", "data.cache_dir=cache")
    run(tmp_path, *TINY, *cpu, "trainer=ddp", "trainer.max_epochs=1", "hydra.run.dir=two")
    two = json.loads((tmp_path / "two" / "result.json").read_text())
    assert two["hardware"]["devices"] == 2
    predictions = pd.read_csv(tmp_path / "two" / "predictions.csv")
    assert predictions["image"].is_unique
    assert len(predictions) == 14

    model = ExpressionClassifier.load_from_checkpoint(tmp_path / "two/checkpoints/best.ckpt", weights_only=True)
    cfg = compose_config(*TINY, *cpu, f"data.cache_dir={tmp_path / 'cache'}", "output_dir=unused")
    trainer = instantiate(cfg.trainer, precision="32-true", logger=False, enable_progress_bar=False)
    [one] = trainer.validate(model, datamodule=instantiate(cfg.data), verbose=False)
    assert one == pytest.approx({name: two["metrics"][name] for name in one}, abs=1e-6)


def test_two_runs_that_start_at_the_same_moment_do_not_share_a_folder(tmp_path):
    few = (*TINY, "trainer.max_epochs=1", "trainer.limit_train_batches=2", "hydra.run.dir=one")
    both = [
        subprocess.Popen(command(*few, f"seed={seed}"), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for seed in (0, 1)
    ]
    errors = [process.communicate(timeout=300)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1]
    refusals = ("already holds a run", "is being written by another process")
    assert sum(any(refusal in error for refusal in refusals) for error in errors) == 1
    assert (tmp_path / "one" / "result.json").exists()


def test_results_are_not_parted_from_their_log(tmp_path):
    finished = run(tmp_path, *FEW_FACES, "output_dir=elsewhere", check=False)
    assert finished.returncode == 1
    assert "output_dir=elsewhere would part the results from their log: set hydra.run.dir=DIR" in finished.stderr
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [*FEW_FACES, "model.net.kernel_size=7"],
            "kernel_size=7 with valid padding leaves no pixels .* use padding=same",
        ),
        (["data=ckplus", "data.root=nowhere"], "no CK.48 images .* found in .*nowhere: download .* data.root=DIR"),
        (["model=cnn9"], "Could not find 'model/cnn9' Available options in 'model': .*cnn4"),
        (["hydra.run.dir=a_file/run"], "Not a directory: a_file.*hydra.run.dir=DIR"),
    ],
)
def test_a_mistake_is_told_in_one_sentence_without_a_traceback(tmp_path, overrides, message):
    (tmp_path / "a_file").touch()
    finished = run(tmp_path, *overrides, check=False)
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    [line] = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert re.search(message, line), line
    assert not list(tmp_path.rglob("outputs/runs/*"))
