"""Train, honestly measure and deploy facial expression networks."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer_lightning.inference.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__"]


def __getattr__(name: str) -> Any:
    """Import `Predictor` only when it is first used: importing the package alone costs nothing."""
    if name == "Predictor":
        from fer_lightning.inference.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
