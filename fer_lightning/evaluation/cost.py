"""Size and latency of a model.   Shapes: N images per batch, C channels, S side in pixels."""

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fer_lightning.checkpoint import load_checkpoint
from fer_lightning.inference.backends import Backend, load_backend
from fer_lightning.machine.hardware import device_name
from fer_lightning.models import net_of
from fer_lightning.models.cost import count_multiply_adds, count_parameters
from fer_lightning.preprocess import Preprocess

BATCHES = (1, 64)
SECONDS = 1.0  # timing per batch size and device


def size_of(path: Path) -> dict[str, Any]:
    """File size in bytes, runtime, parameters, and multiply-adds of one face, None if an ONNX file does not tell."""
    size = path.stat().st_size
    if path.suffix == ".onnx":
        unknown = {"parameters": None, "multiply_adds": None}
        return {"bytes": size, "runtime": "ONNX Runtime", **unknown, **load_backend(path, device="cpu").card.cost}
    checkpoint = load_checkpoint(path)
    preprocess = Preprocess(**checkpoint["hyper_parameters"]["preprocess"])
    return {"bytes": size, "runtime": "PyTorch", **cost_of(net_of(checkpoint, str(path)), preprocess)}


def cost_of(net: nn.Module, preprocess: Preprocess) -> dict[str, int]:
    """A network's parameters and multiply-adds of one face."""
    example = torch.zeros(1, preprocess.channels, preprocess.size, preprocess.size)
    return {"parameters": count_parameters(net), "multiply_adds": count_multiply_adds(net, example)}


def latencies(path: Path) -> list[dict[str, Any]]:
    """Milliseconds per batch, from prepared faces to logits, on the CPU and on a GPU if the backend can use one."""
    backends = [load_backend(path, device="cpu")]
    if (fastest := load_backend(path)).device != "cpu":
        backends.append(fastest)
    rows = []
    for backend in backends:
        for batch in BATCHES:
            times = seconds_of(backend, batch)
            p50, p95 = statistics.median(times), float(np.percentile(times, 95))
            speed = {"p50_ms": 1000 * p50, "p95_ms": 1000 * p95, "images_per_s": batch / p50}
            setting = {"device": backend.device, "hardware": device_name(backend.device), "threads": backend.threads}
            rows.append(setting | {"batch": batch} | speed)
    return rows


def seconds_of(backend: Backend, batch: int) -> list[float]:
    """What each of some repetitions takes, for a batch of this size, after a few that warm up."""
    preprocess = backend.card.preprocess
    images = np.zeros((batch, preprocess.channels, preprocess.size, preprocess.size), np.float32)
    for _ in range(3):
        backend.logits(images)
    times: list[float] = []
    while sum(times) < SECONDS or len(times) < 5:
        start = time.perf_counter()
        backend.logits(images)
        times.append(time.perf_counter() - start)
    return times
