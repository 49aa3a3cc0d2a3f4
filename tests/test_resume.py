"""A run that was killed and resumed ends as one that was not."""

import subprocess
import sys
from pathlib import Path

import pytest

SETTINGS = [
    "data=synthetic",
    "data.reader.train=140",
    "data.reader.val=70",
    "data.reader.test=70",
    "data.batch_size=20",
    "optimizer.lr=2e-3",
    "trainer.max_epochs=4",
    "trainer.accelerator=cpu",
    "callbacks.progress=null",
    "logger=none",
]


def command(folder: Path, cache: Path, *overrides: str) -> list[str]:
    run = [sys.executable, "-m", "fer_lightning.train", *SETTINGS, f"data.cache_dir={cache}", *overrides]
    return [*run, f"hydra.run.dir={folder}"] if folder else run


def kill_in_the_middle_of_an_epoch(folder: Path, cache: Path, *overrides: str) -> None:
    """SIGKILL a run once two epochs are in its table and the third is under way."""
    process = subprocess.Popen(command(folder, cache, *overrides, "+trainer.callbacks=null"))
    process.wait()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")
