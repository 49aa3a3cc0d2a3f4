"""Which parts of a face an answer depends on, by captum's occlusion.   Shapes: N images, S side in pixels.

A patch slides over the face; the map shows where covering lowers the answer's probability (Zeiler and Fergus, 2014).
This works with any model, ONNX files included. Gradients through a network with large dense layers at its end, as in
most of the papers, would leave many faces without a map.
"""

import importlib.util
from collections.abc import Callable

import numpy as np
import torch

PATCH, STRIDE = 12, 4  # pixels, for faces of 48
AT_ONCE = 32  # covered faces per batch


def why_not() -> str | None:
    """Why attribution is not available here; None if it is."""
    if importlib.util.find_spec("captum") is None:
        return "captum is not installed: pip install 'fer-lightning[explain]'"
    return None


def occlusion_maps(
    probabilities: Callable[[np.ndarray], np.ndarray], images: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """How much covering each place lowers a class's probability, float (N, S, S); negative where it raises it.

    Args:
        probabilities: Function from the network's input, float32 (M, C, S, S), to probabilities (M, K).
        images: The network's input, (N, C, S, S).
        classes: The class to explain for each image, (N,).
    """
    from captum.attr import Occlusion

    def of_classes(covered: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(probabilities(covered.numpy()))

    scale = images.shape[-1] / 48
    patch, stride = (max(1, round(side * scale)) for side in (PATCH, STRIDE))
    channels = images.shape[1]
    maps = Occlusion(of_classes).attribute(
        torch.from_numpy(images),
        sliding_window_shapes=(channels, patch, patch),
        strides=(channels, stride, stride),
        baselines=float(images.mean()),
        target=torch.from_numpy(classes),
        perturbations_per_eval=max(1, AT_ONCE // len(images)),
    )
    return maps.mean(dim=1).numpy()
