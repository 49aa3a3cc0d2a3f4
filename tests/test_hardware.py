"""Which number format is chosen on which hardware."""

import platform
import subprocess
import sys

import pytest
import torch

from fer_lightning.errors import InputError
from fer_lightning.inference.backends import load_backend
from fer_lightning.machine import hardware
from fer_lightning.machine.hardware import choose_precision, describe_hardware
from fer_lightning.weights.bundled import bundled


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ("fpu avx2 avx512f avx512_bf16", "bf16-mixed"),
        ("fpu avx2 amx_bf16 amx_tile", "bf16-mixed"),
        ("fpu avx2 avx512f", "32-true"),
        ("", "32-true"),
    ],
)
def test_auto_takes_bfloat16_where_the_processor_multiplies_it(monkeypatch, flags, precision):
    monkeypatch.setattr(hardware, "_cpuinfo", lambda field: flags)
    assert choose_precision("auto", "cpu")[0] == precision


@pytest.mark.parametrize(("capability", "precision"), [((9, 0), "bf16-mixed"), ((7, 5), "32-true")])
def test_auto_looks_at_the_gpu_where_there_is_one(monkeypatch, capability, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    chosen, reason = choose_precision("auto", "auto")
    assert chosen == precision
    assert "a GPU" in reason


OLD_DRIVER = r"cannot use the GPU \(The NVIDIA driver on your system is too old \(found version 12040\)\): update its"


def test_a_gpu_whose_driver_is_too_old_is_told_with_the_remedy(old_driver):
    with pytest.raises(InputError, match=f"{OLD_DRIVER} driver, .* leave the GPU aside with CUDA_VISIBLE_DEVICES=-1"):
        choose_precision("auto", "auto")
    assert choose_precision("32-true", "cpu") == ("32-true", "as configured")


def test_a_checkpoint_is_read_on_the_processor_if_the_gpus_driver_is_too_old(old_driver):
    with pytest.raises(InputError, match=OLD_DRIVER):
        load_backend(bundled(".ckpt"))
    assert load_backend(bundled(".ckpt"), device="cpu").device == "cpu"


def test_float16_is_refused_where_there_is_no_gpu(monkeypatch):
    for accelerator in ("cpu", "auto"):
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        with pytest.raises(InputError, match="16-mixed needs a GPU: on a CPU use auto, or bf16-mixed"):
            choose_precision("16-mixed", accelerator)


def test_a_precision_that_is_asked_for_is_kept():
    assert choose_precision("32-true", "cpu") == ("32-true", "as configured")
    assert choose_precision(32, "cpu") == ("32-true", "as configured")  # Hydra reads trainer.precision=32 as a number


@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "half"])
def test_a_precision_that_metrics_and_pictures_do_not_go_through_is_refused(precision):
    message = f"trainer.precision must be auto, 32-true, bf16-mixed, 16-mixed, got {precision}"
    with pytest.raises(InputError, match=message):
        choose_precision(precision, "cpu")


@pytest.mark.parametrize(("flags", "told"), [("avx512_bf16", False), ("avx2", True)])
def test_bfloat16_on_a_processor_that_emulates_it_is_used_and_told_of(monkeypatch, flags, told):
    monkeypatch.setattr(hardware, "_cpuinfo", lambda field: flags)
    precision, reason = choose_precision("bf16-mixed", "cpu")
    assert precision == "bf16-mixed"
    assert ("it is emulated, and slower than trainer.precision=32-true" in reason) == told


def test_the_hardware_is_described_in_plain_data():
    described = describe_hardware()
    assert described["cores"] >= 1
    assert isinstance(described["cpu"], str)


def test_of_several_gpus_those_that_were_used_are_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"GPU {i}")
    assert describe_hardware()["gpus"] == ["GPU 0", "GPU 1", "GPU 2"]
    assert describe_hardware(gpus=[1])["gpus"] == ["GPU 1"]
    assert describe_hardware(gpus=())["gpus"] == []


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_the_memory_of_a_freed_tensor_is_kept_for_the_next():
    code = """
import sys, torch
from pathlib import Path
from fer_lightning.machine.hardware import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1])
before = resident()
torch.ones(20_000_000)
print((resident() - before) * 4096)
"""
    left = {
        mode: int(subprocess.run([sys.executable, "-c", code, mode], capture_output=True, text=True, check=True).stdout)
        for mode in ("keep", "return")
    }
    assert left["return"] < 20_000_000 < left["keep"]
