"""Which model file to use if the user gives no model, a word or a folder."""

from pathlib import Path

from fer_lightning.errors import InputError
from fer_lightning.weights.bundled import bundled

RUNS = Path("outputs/runs")


def find_model(model: str | Path | None, *, exported: bool = True) -> Path:
    """The path of a model file: the given file, or the model in a run's folder; `newest` is the newest finished run.

    Args:
        model: A path or a word; None or `bundled` gives the bundled model.
        exported: In a run's folder prefer `model.onnx`, unless the best checkpoint is newer; if False, prefer the
            checkpoint.

    Raises:
        InputError: There is no such model.
    """
    if model is None or str(model) == "bundled":
        return bundled()
    if str(model) == "newest":
        finished = [path for path in RUNS.glob("*/result.json") if _models_in(path.parent)]
        if not finished:
            raise InputError(
                f"{RUNS.absolute()} holds no finished run: train one (make demo, or python -m fer_lightning.train), or "
                "omit newest for the bundled model"
            )
        return find_model(max(finished, key=lambda path: path.stat().st_mtime).parent, exported=exported)
    path = Path(model)
    if not path.is_dir():
        return path
    if models := _models_in(path):
        return max(models, key=lambda file: file.stat().st_mtime) if exported else models[0]
    raise InputError(f"{path.absolute()} is not a run's folder: it holds neither model.onnx nor checkpoints/best.ckpt")


def _models_in(run: Path) -> list[Path]:
    return [path for path in (run / "checkpoints" / "best.ckpt", run / "model.onnx") if path.is_file()]
