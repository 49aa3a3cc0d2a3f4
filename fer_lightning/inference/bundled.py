"""The trained network that is part of the package, checked before use."""

import hashlib
from pathlib import Path

from fer_lightning.errors import InputError

NAME = "fer2013-seresnet_s-2"  # trained on, network, version
WEIGHTS = Path(__file__).parents[1] / "weights"
# One file to predict with, and one to fine-tune from.
SHA256 = {
    ".onnx": "6320bf11d44f57d4725282116bbbfe616b33f361a20948ff1ee031d4b0c11cb6",
    ".ckpt": "ec3b4173c468d592fc87c6a0662db80b8c4c2f45a15c8748b99576ce52dc7ed8",
}


def checkpoint_path(source: str | Path) -> Path:
    """The path of a checkpoint to train from: the bundled one for `bundled`, or the given file."""
    return bundled(".ckpt") if str(source) == "bundled" else Path(source)


def bundled(suffix: str = ".onnx") -> Path:
    """The path of the bundled file with this suffix.

    Raises:
        InputError: It is missing, or is not the published file.
    """
    path = WEIGHTS / f"{NAME}{suffix}"
    if not path.is_file():
        raise InputError(f"{path} is missing: install the package again, or give a model of your own")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256[suffix]:
        raise InputError(
            f"{path} is damaged or was changed (its sha256 begins with {found[:12]}, not {SHA256[suffix][:12]}): "
            "install the package again with pip install --force-reinstall --no-deps, or give a model of your own"
        )
    return path
