"""The trained network that is part of the package, checked before use."""

import hashlib
from pathlib import Path

from fer_lightning.errors import InputError

NAME = "fer2013-seresnet_s-1"  # trained on, network, version
WEIGHTS = Path(__file__).parents[1] / "weights"
# One file to predict with, and one to fine-tune from.
SHA256 = {
    ".onnx": "7e21f8551fa0d572ab617fea53360aa94b6fa231b1adef6dd9c00bd5d2ea0188",
    ".ckpt": "34d7725baf8a01f7c81a10476dd23073e44b3904f0b3128bad8c045bcc736f41",
}


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
