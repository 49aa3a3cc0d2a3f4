"""Which model to use, where none, a word or only a folder is named."""

from pathlib import Path

from fer_lightning.errors import InputError
from fer_lightning.inference.bundled import bundled

RUNS = Path("outputs/runs")


def find_model(model: str | Path | None) -> Path:
    """A model file as it is; of a run's folder its best checkpoint; `newest` is that of the newest finished run.

    Nothing, or `bundled`, is the one that comes with the package.

    Raises:
        InputError: There is none.
    """
    if model is None or str(model) == "bundled":
        return bundled()
    if str(model) == "newest":
        finished = [path for path in RUNS.glob("*/result.json") if _models_in(path.parent)]
        if not finished:
            raise InputError(
                f"{RUNS.absolute()} holds no finished run: train one (make demo, or python -m fer_lightning.train), or "
                "leave newest away for the model that comes with the package"
            )
        return find_model(max(finished, key=lambda path: path.stat().st_mtime).parent)
    path = Path(model)
    if not path.is_dir():
        return path
    if models := _models_in(path):
        return models[0]
    raise InputError(f"{path.absolute()} is no run's folder: it holds neither model.onnx nor checkpoints/best.ckpt")


def _models_in(run: Path) -> list[Path]:
    return [path for path in (run / "model.onnx", run / "checkpoints" / "best.ckpt") if path.is_file()]
