"""The trained network that is part of the package, checked before use."""

import hashlib
from pathlib import Path

from fer_lightning.errors import InputError

NAME = "fer2013-cnn4-1"  # trained on, network, version
WEIGHTS = Path(__file__).parents[1] / "weights"
# One file to predict with, and one to fine-tune from.
SHA256 = {
    ".onnx": "7d4ff6aac6567d13cd6c3d7af4c3e0df02a843b87c12e2e43561bc9d1e9cacde",
    ".ckpt": "754c655ecd843c97b9c7a95f0cf14057aacfcebdfe85077d08b5c2fdb92c103c",
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
