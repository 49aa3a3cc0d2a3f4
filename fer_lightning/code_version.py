"""Which code runs: its commit, a digest of its files, and the versions of what it stands on."""

import hashlib
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
    """What says which code runs; to be asked before training, during which files may change."""
    return {
        "git_commit": git_commit(),
        "code_sha256": code_digest(),
        "versions": {"fer_lightning": __version__, "python": sys.version.split()[0]}
        | {package: _version(package) for package in PACKAGES},
    }


def _version(package: str) -> str | None:
    """None where it is not installed: of the two builds of OpenCV one is enough."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def code_digest() -> str:
    """A hash of the package's Python files, which tells two states of a clone apart that were not committed."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


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
