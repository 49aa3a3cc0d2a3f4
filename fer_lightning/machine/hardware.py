"""Facts about this machine, and settings that make training fast on it: number format and memory."""

import ctypes
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fer_lightning.errors import InputError
from fer_lightning.machine.cores import usable_cores

# Lightning has more, but networks whose very weights are of another format do not go through metrics and pictures.
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # mallopt(3)


def uses_gpu(accelerator: str) -> bool:
    """Whether a Trainer with this setting (`auto`, `cpu`, `gpu` or `cuda`) trains on a CUDA GPU here."""
    return accelerator in ("gpu", "cuda", "auto") and has_gpu()


def has_gpu() -> bool:
    """Whether there is a CUDA GPU here.

    Raises:
        InputError: There is one, but this PyTorch cannot use it, for example because the driver is too old.
    """
    if not torch.cuda.is_available():  # Lightning lets it count the GPUs without a look at their driver
        return False
    try:
        torch.cuda.init()
    except RuntimeError as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise InputError(
            f"this PyTorch cannot use the GPU ({reason}): update its driver, install a PyTorch that is made for it, or "
            "leave the GPU aside with CUDA_VISIBLE_DEVICES=-1"
        ) from error
    return True


def choose_precision(requested: str | int, accelerator: str) -> tuple[str, str]:
    """Turn `auto` into one of Lightning's precision names, and give the reason.

    bfloat16 keeps float32's range, so it needs no loss scaling; it is chosen if the hardware multiplies it natively,
    since emulated bfloat16 is slower than float32.

    Args:
        requested: `auto`, or one of `PRECISIONS`, which is returned as it is; 32 is short for `32-true`.
        accelerator: The Trainer's accelerator: `auto`, `cpu`, `gpu` or `cuda`.

    Raises:
        InputError: It is none of these, or float16 where there is no GPU.
    """
    on_gpu = uses_gpu(accelerator)
    device = torch.cuda.get_device_name() if on_gpu else "this processor"
    native = torch.cuda.get_device_capability() >= (8, 0) if on_gpu else _cpu_has_bfloat16()
    requested = "32-true" if str(requested) == "32" else requested
    if requested not in ("auto", *PRECISIONS):
        raise InputError(f"trainer.precision must be auto, {', '.join(PRECISIONS)}, got {requested}")
    if requested == "16-mixed" and not on_gpu:
        raise InputError("trainer.precision=16-mixed needs a GPU: on a CPU use auto, or bf16-mixed")
    if requested != "auto":
        emulated = requested.startswith("bf16") and not native
        return requested, "as configured" + (
            f", though {device} has no native bfloat16: it is emulated, and slower than trainer.precision=32-true"
            if emulated
            else ""
        )
    if native and (on_gpu or accelerator in ("cpu", "auto")):
        return "bf16-mixed", f"{device} multiplies bfloat16 natively"
    return "32-true", f"{device} has no native bfloat16" + ("; try trainer.precision=16-mixed" if on_gpu else "")


def finish_gpu_work(device: torch.device) -> None:
    """Wait until a GPU has done what it was given, so that a clock tells how long that took."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def keep_freed_memory() -> None:
    """Let the C library, if it is glibc, keep freed blocks for the next batch.

    Otherwise every tensor above 32 MB is mapped anew and each of its pages faults on the first write, which takes 13 to
    20 % of the time of a training step on a CPU.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**28)):
            libc.mallopt(option, value)


def describe_hardware(gpus: Sequence[int] | None = None) -> dict[str, Any]:
    """Processor, threads and GPUs, as plain data.

    Args:
        gpus: Positions of the GPUs that were used; None names all that this process may use.
    """
    return {
        "cpu": _cpu_name(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in (range(torch.cuda.device_count()) if gpus is None else gpus)],
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "platform": platform.platform(),
    }


def device_name(device: str) -> str:
    """The processor's or the first GPU's name, for `cpu` or `cuda`; `cuda` itself if this PyTorch cannot tell."""
    if device == "cpu":
        return _cpu_name()
    return torch.cuda.get_device_name() if torch.cuda.is_available() else device


def _cpu_has_bfloat16() -> bool:
    return bool({"avx512_bf16", "amx_bf16"} & set(_cpuinfo("flags").split()))


def _cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(field: str) -> str:
    """A field of the first processor in Linux's list; empty on other systems."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")
