"""A checkpoint run by torch, without Lightning.   Shapes: N faces, C channels, S side in pixels, K classes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fer_lightning.checkpoint import load_checkpoint
from fer_lightning.errors import InputError
from fer_lightning.inference.model_card import ModelCard
from fer_lightning.machine.hardware import has_gpu
from fer_lightning.models import net_of


class TorchBackend:
    """A checkpoint of an ExpressionClassifier.

    Args:
        path: A run's best.ckpt or last.ckpt.
        device: `auto` uses a GPU if there is one.

    Raises:
        InputError: The file cannot be used, or a GPU is requested and there is none.
    """

    def __init__(self, path: str | Path, *, device: str = "auto") -> None:
        self.device = "cuda" if device != "cpu" and has_gpu() else "cpu"
        if device == "cuda" and self.device == "cpu":
            raise InputError("no GPU that CUDA can use was found: use --device cpu")
        self.threads = torch.get_num_threads() if self.device == "cpu" else None
        checkpoint = load_checkpoint(path)
        self.card = card_of(checkpoint)
        self._net = net_of(checkpoint, str(path)).to(self.device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def logits(self, images: np.ndarray) -> np.ndarray:
        """Map float32 (N, C, S, S) to float32 (N, K)."""
        return self._net(torch.from_numpy(images).to(self.device)).float().cpu().numpy()


def card_of(checkpoint: Mapping[str, Any]) -> ModelCard:
    """The model card from a checkpoint."""
    hyper_parameters = checkpoint["hyper_parameters"]
    epochs = next((state["rows"] for state in checkpoint.get("callbacks", {}).values() if "rows" in state), [])
    scores = {name: value for name, value in (epochs[-1] if epochs else {}).items() if name.startswith("val/")}
    names = ("class_names", "preprocess", "crop_margin", "temperature", "training")
    facts = {name: hyper_parameters[name] for name in names if name in hyper_parameters}
    return ModelCard.from_facts(**facts, metrics=scores)
