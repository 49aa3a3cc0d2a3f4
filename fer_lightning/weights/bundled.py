"""The trained network that is part of the package, checked before use."""

from pathlib import Path

from fer_lightning.errors import InputError
from fer_lightning.machine.code_version import file_digest

NAME = "fer2013-seresnet_s-5"  # trained on, network, version
WEIGHTS = Path(__file__).parent
# One file to predict with, and one to fine-tune from.
SHA256 = {
    ".onnx": "16aa2d805bedda5232cc1f9311462463bde65aa96da22ff8797abf6366ef94fe",
    ".ckpt": "a21baaa865dab991001f6e58d65a90cd0ca9fb219049767becd090d4e464eae0",
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
