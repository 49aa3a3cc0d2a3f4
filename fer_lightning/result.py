"""`result.json`: everything one must know to read a run's numbers, written last; a folder without it is unfinished."""

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fer_lightning import __version__
from fer_lightning.atomic import replacing
from fer_lightning.module import ExpressionClassifier

SCHEMA_VERSION = 1
PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "albumentations",
    "opencv-python",
    "opencv-python-headless",
    "numpy",
    "hydra-core",
)


def describe_code() -> dict[str, Any]:
    """Commit and versions of the code that runs; to be asked before training, during which files may change."""
    return {
        "git_commit": git_commit(),
        "versions": {"fer_lightning": __version__, "python": sys.version.split()[0]}
        | {package: _version(package) for package in PACKAGES},
    }


def write_result(path: Path, facts: dict[str, Any]) -> None:
    """Write `facts` as one JSON file, whole or not at all."""
    with replacing(path) as temporary:
        text = json.dumps({"schema_version": SCHEMA_VERSION, **facts}, indent=2, allow_nan=False)
        temporary.write_text(text + "\n")


def count_parameters(net: nn.Module) -> int:
    """Trainable and frozen."""
    return sum(parameter.numel() for parameter in net.parameters())


def count_multiply_adds(model: ExpressionClassifier) -> int:
    """Multiply-adds of one image through the convolutions and dense layers, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(model.example_input_array.to(model.device))
    return counter.get_total_flops() // 2


def _version(package: str) -> str | None:
    """None where it is not installed: of the two builds of OpenCV one is enough."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """The commit of the code that runs, with `-dirty` where files were changed since; None outside a clone."""
    clone = Path(__file__).parents[1]
    if not (clone / ".git").exists():  # git itself would find a repository that an environment happens to lie in
        return None
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=clone,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()
