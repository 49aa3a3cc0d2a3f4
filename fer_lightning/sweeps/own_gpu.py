"""Gives each job of `hydra/launcher=joblib_gpus` a GPU, which it has alone or shares with a given number of others."""

import os
import tempfile
import time
from itertools import product, takewhile
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from fer_lightning.errors import InputError

VISIBLE = "CUDA_VISIBLE_DEVICES"
LOOK_S = 0.2


def visible_gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if VISIBLE in os.environ:
        names = (name.strip() for name in os.environ[VISIBLE].split(","))
        return [name for name in takewhile(lambda name: not name.startswith("-"), names) if name]  # as CUDA reads it
    import torch  # takes seconds, but only once per sweep

    return [str(index) for index in range(torch.cuda.device_count())]


class OwnGpu(Callback):
    """Hydra calls it around each job, in the job's process; it also respects jobs of other sweeps on this machine.

    Args:
        jobs_per_gpu: Number of jobs that may use a GPU at the same time.
    """

    def __init__(self, jobs_per_gpu: int = 1) -> None:
        if jobs_per_gpu < 1:
            raise InputError(f"hydra.callbacks.own_gpu.jobs_per_gpu must be at least 1, got {jobs_per_gpu}")
        self.jobs_per_gpu = jobs_per_gpu
        self.gpus: list[str] = []  # a single run has all of them

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """List the GPUs once, before jobs are given theirs."""
        self.gpus = visible_gpus()

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Wait for a GPU with room for a job and make only this one visible to it."""
        if self.gpus:
            self._before = os.environ.get(VISIBLE)
            gpu, self._lock = _take_one(self.gpus, self.jobs_per_gpu)
            os.environ[VISIBLE] = gpu

    def on_job_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Release the GPU; a killed process releases it by ending."""
        if self.gpus:
            self._lock.release()
            os.environ.pop(VISIBLE)
            if self._before is not None:
                os.environ[VISIBLE] = self._before


def _take_one(gpus: list[str], jobs_per_gpu: int) -> tuple[str, FileLock]:
    folder = Path(tempfile.gettempdir()) / f"fer_lightning_gpus_{os.getuid()}"
    folder.mkdir(exist_ok=True)
    while True:
        for place, gpu in product(range(jobs_per_gpu), gpus):  # each GPU's first place, then each one's second
            lock = FileLock(folder / f"{gpu}.{place}.lock", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                continue
            return gpu, lock
        time.sleep(LOOK_S)
