"""Backends that run a network.   Shapes: N faces, C channels, S side in pixels, K classes."""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np

from fer_lightning.errors import InputError
from fer_lightning.inference.model_card import KEY, ModelCard
from fer_lightning.machine.cores import usable_cores

SUFFIXES = (".onnx", ".ckpt")
Device = Literal["auto", "cpu", "cuda"]
CUDA = "CUDAExecutionProvider"


class Backend(Protocol):
    """A network in memory, with its card."""

    card: ModelCard
    device: str  # `cpu` or `cuda`
    threads: int | None  # on the CPU

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Map float32 (N, C, S, S) to float32 (N, K)."""
        ...


class OnnxBackend:
    """An ONNX model file under ONNX Runtime.

    Args:
        path: File written by fer-export.
        device: `auto` uses CUDA if this ONNX Runtime can.

    Raises:
        InputError: The file is damaged, was not written by fer-export, or contradicts its own card, or CUDA cannot be
            used as asked.
    """

    def __init__(self, path: str | Path, *, device: Device = "auto") -> None:
        import onnxruntime

        # Loaded from bytes, so that a model cannot refer to other files of this machine for its weights.
        data = Path(path).read_bytes()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised, and reported below
        # A thread that spins while waiting would take the core from threads that decode and detect.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.intra_op_num_threads = usable_cores()
        providers = _providers(device)
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=providers)
        except Exception as error:  # ONNX Runtime's errors share no narrower class
            reason = str(error).splitlines()[0][:200]
            raise InputError(f"{path} ({len(data):,} bytes) is damaged or not an ONNX model ({reason})") from error
        # What it was built with may not work here; then it takes the CPU.
        self.device = "cuda" if CUDA in self._session.get_providers() else "cpu"
        self.threads = options.intra_op_num_threads if self.device == "cpu" else None
        if device == "cuda" and self.device == "cpu":
            raise InputError(
                "ONNX Runtime cannot use CUDA on this machine: check the driver and the libraries that onnxruntime-gpu "
                "asks for, or give --device cpu"
            )
        metadata = self._session.get_modelmeta().custom_metadata_map
        if KEY not in metadata:
            raise InputError(f"{path} does not name its classes and preprocessing: create model files with fer-export")
        self.card = ModelCard.from_json(metadata[KEY], str(path))
        self._check_shapes(path)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Map float32 (N, C, S, S) to float32 (N, K)."""
        [logits] = self._session.run(None, {self._session.get_inputs()[0].name: images})
        return logits

    def _check_shapes(self, path: str | Path) -> None:
        preprocess = self.card.preprocess
        expected = ([preprocess.channels, preprocess.size, preprocess.size], [len(self.card.class_names)])
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        found = [[tensor.shape[1:] for tensor in tensors] for tensors in (inputs, outputs)]
        if found != [[shape] for shape in expected]:
            taken, given = (", ".join(map(str, shapes)) or "nothing" for shapes in found)
            raise InputError(
                f"{path} takes {taken} and gives {given}, but its description says {expected[0]} and {expected[1]}: "
                "export it again with fer-export"
            )


def load_backend(path: str | Path, *, device: Device = "auto") -> Backend:
    """Load a model file, ONNX or a checkpoint.

    Raises:
        InputError: There is no such file, or it cannot be used.
    """
    path = Path(path)
    if device not in get_args(Device):
        raise InputError(f"device must be {', '.join(get_args(Device))}, got {device!r}")
    if not path.is_file():
        raise InputError(f"there is no model file at {path.absolute()}")
    if path.suffix == ".onnx":
        return OnnxBackend(path, device=device)
    if path.suffix == ".ckpt":
        from fer_lightning.inference.torch_backend import TorchBackend  # torch takes seconds to import

        return TorchBackend(path, device=device)
    raise InputError(f"{path} is not a model file: its name must end in {' or '.join(SUFFIXES)}")


def _providers(device: str) -> list[str]:
    import onnxruntime

    has_cuda = CUDA in onnxruntime.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise InputError(
            "this ONNX Runtime runs on the CPU only: install onnxruntime-gpu instead of onnxruntime, "
            "or give a .ckpt, or --device cpu"
        )
    if not has_cuda or device == "cpu":
        return ["CPUExecutionProvider"]
    # It finds the CUDA libraries that pip has installed, as torch, which is not imported here, would have. What it
    # prints of those it lacks is dropped: if they are needed, CUDA cannot be used, and that is said.
    with redirect_stdout(StringIO()):
        onnxruntime.preload_dlls()
    return [CUDA, "CPUExecutionProvider"]
