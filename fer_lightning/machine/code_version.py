"""Which code runs: its commit, a digest of its files, and the versions of its main dependencies."""

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
    """Facts that identify the running code; call it before training, as files may change during training."""
    return {
        "git_commit": git_commit(),
        "code_sha256": code_digest(),
        "versions": {"fer_lightning": __version__, "python": sys.version.split()[0]}
        | {package: _version(package) for package in PACKAGES},
    }


def _version(package: str) -> str | None:
    """The installed version, or None: one of the two OpenCV packages is enough."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def code_digest() -> str:
    """A hash of the package's Python files, which tells uncommitted states of a clone apart."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_commit() -> str | None:
    """The commit of the running code, with `-dirty` if files were changed since; None outside a clone."""
    clone = Path(__file__).parents[2]
    if not (clone / ".git").exists():  # git itself would also find a repository that merely surrounds the environment
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
