"""Which model to use, where none or only a folder is named."""

from pathlib import Path

from fer_lightning.errors import InputError

RUNS = Path("outputs/runs")


def find_model(model: str | Path | None) -> Path:
    """A model file as it is; of a run's folder its best checkpoint; of nothing that of the newest finished run.

    Raises:
        InputError: There is none.
    """
    if model is None:
        finished = sorted(RUNS.glob("*/result.json"), key=lambda path: path.stat().st_mtime)
        if not finished:
            raise InputError(
                f"there is no model: none comes with the package yet, and {RUNS.absolute()} holds no finished run; "
                "train one (make demo, or python -m fer_lightning.train), or name a file with --model"
            )
        return find_model(finished[-1].parent)
    path = Path(model)
    if not path.is_dir():
        return path
    for candidate in (path / "model.onnx", path / "checkpoints" / "best.ckpt"):
        if candidate.is_file():
            return candidate
    raise InputError(f"{path.absolute()} is no run's folder: it holds neither model.onnx nor checkpoints/best.ckpt")
