"""Which places of a face an answer rests on, by captum's occlusion.   Shapes: N images, S side in pixels.

A patch that slides over the face shows where covering costs the answer its probability (Zeiler and Fergus, 2014).
It asks the model as it is, an ONNX file too, where gradients through a network that ends in large dense layers, as most
of the papers' do, leave many faces without any map.
"""

import importlib.util
from collections.abc import Callable

import numpy as np
import torch

PATCH, STRIDE = 12, 4  # pixels, of 48
AT_ONCE = 32  # covered faces that are asked about together


def why_not() -> str | None:
    """Why there can be no attribution here; None where there can."""
    if importlib.util.find_spec("captum") is None:
        return "captum is not installed: pip install 'fer-lightning[explain]'"
    return None


def occlusion_maps(
    probabilities: Callable[[np.ndarray], np.ndarray], images: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """By how much covering each place lowers a class's probability, float (N, S, S); below 0 where it raises it.

    Args:
        probabilities: Maps images as the network reads them, float32 (M, C, S, S), to (M, K).
        images: (N, C, S, S).
        classes: The class that is asked about, (N,).
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
