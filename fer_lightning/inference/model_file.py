"""Which model to use, where none, a word or only a folder is named."""

from pathlib import Path

from fer_lightning.errors import InputError
from fer_lightning.inference.bundled import bundled

RUNS = Path("outputs/runs")


def find_model(model: str | Path | None, *, exported: bool = True) -> Path:
    """A model file as it is, or a run's; `newest` is the newest finished run.

    Args:
        model: A path, or a word; nothing, or `bundled`, is the one that comes with the package.
        exported: Of a run's folder take its `model.onnx`, unless its best checkpoint was written since; else always the
            checkpoint, where it is there.

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
        return find_model(max(finished, key=lambda path: path.stat().st_mtime).parent, exported=exported)
    path = Path(model)
    if not path.is_dir():
        return path
    if models := _models_in(path):
        return max(models, key=lambda file: file.stat().st_mtime) if exported else models[0]
    raise InputError(f"{path.absolute()} is no run's folder: it holds neither model.onnx nor checkpoints/best.ckpt")


def _models_in(run: Path) -> list[Path]:
    return [path for path in (run / "checkpoints" / "best.ckpt", run / "model.onnx") if path.is_file()]
