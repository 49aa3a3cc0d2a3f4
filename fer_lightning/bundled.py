"""The trained network that is part of the package, checked before use."""

from pathlib import Path

from fer_lightning.code_version import file_digest
from fer_lightning.errors import InputError

NAME = "fer2013-seresnet_s-4"  # trained on, network, version
WEIGHTS = Path(__file__).parent / "weights"
# One file to predict with, and one to fine-tune from.
SHA256 = {
    ".onnx": "09c5204f98be02a806201537e4768de00f1faaca559a134183eff27bd4c79f86",
    ".ckpt": "f2fa211798dfdfc4dc53d0bb562017cffb071f30c9d8501d11bd65059f91f35e",
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
    found = file_digest(path)
    if found != SHA256[suffix]:
        raise InputError(
            f"{path} is damaged or was changed (its sha256 begins with {found[:12]}, not {SHA256[suffix][:12]}): "
            "install the package again with pip install --force-reinstall --no-deps, or give a model of your own"
        )
    return path
