"""Which code runs: its commit, and the versions of what it stands on."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fer_lightning import __version__

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
