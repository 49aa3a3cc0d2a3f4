"""`fer-export RUN/checkpoints/best.ckpt`: a verified ONNX model file that contains all that is needed to use it."""

from fer_lightning.settings import config  # isort: skip - sets what must be set before albumentations is imported

import io
import json
import re
import statistics
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import onnx
import torch
import typer
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fer_lightning.atomic import replacing
from fer_lightning.checkpoint import load_checkpoint
from fer_lightning.command import run_command
from fer_lightning.data.datamodule import FaceDataModule
from fer_lightning.errors import InputError
from fer_lightning.evaluation.cost import cost_of, seconds_of
from fer_lightning.inference.backends import OnnxBackend
from fer_lightning.inference.model_card import KEY, ModelCard
from fer_lightning.inference.predictor import softmax
from fer_lightning.inference.torch_backend import TorchBackend, card_of
from fer_lightning.models import net_of
from fer_lightning.settings.plain_errors import USERS_MISTAKES, explain
from fer_lightning.sweeps.folders import run_of

Precision = Literal["float32", "float16", "int8"]
# The largest allowed change of a probability, and the allowed share of faces that change their class.
LARGEST_CHANGE = {"float32": 1e-4, "float16": 0.02, "int8": 1.0}
CHANGED_CLASSES = {"float32": 0.0, "float16": 0.01, "int8": 0.05}
FACES = 512  # real faces to calibrate and compare on
OF_DATA = ("fer_lightning.data.", "fer_lightning.preprocess.")  # where the functions of a run's `data` are


class Examples(NamedTuple):
    """Real face crops as network input, float32 (N, C, S, S), and their targets (N,)."""

    images: np.ndarray
    targets: np.ndarray


class Parity(NamedTuple):
    """How an exported network differs from its checkpoint, on the same faces."""

    largest_change: float  # of a probability
    changed_classes: float  # share of the faces
    accuracy_before: float
    accuracy_after: float


def main(
    checkpoint: Annotated[Path, typer.Argument(help="A run's best.ckpt.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: model.onnx in the run's folder.")
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="Weight precision; int8 is calibrated on the run's faces.")
    ] = "float32",
) -> None:
    """Write a verified ONNX model file that `fer-predict --model` takes."""
    try:
        export(checkpoint, output or _run_folder(checkpoint) / "model.onnx", precision)
    except USERS_MISTAKES as error:
        raise InputError(explain(error)) from error


def export(checkpoint_path: Path, output: Path, precision: Precision) -> Parity:
    """Convert, compare with the checkpoint on real faces, print the comparison, and write `output`.

    Raises:
        InputError: The checkpoint cannot be used, its dataset is not found, or the model differs too much from it.
    """
    checkpoint = load_checkpoint(checkpoint_path)
    result = _result_of(_run_folder(checkpoint_path))
    card = card_of(checkpoint)
    if checkpoint_path.name == "best.ckpt":
        # All metrics of the finished run, which are those of its best checkpoint.
        card = replace(card, metrics=result["metrics"])
    _make_parent(output)
    datamodule = _datamodule_of(result, _run_folder(checkpoint_path))
    unseen = next(stage for stage in ("val", "test", "train") if datamodule.has(stage))
    faces = _some_faces(datamodule, unseen)
    net = net_of(checkpoint, str(checkpoint_path))
    card = replace(card, cost=cost_of(net, card.preprocess))
    model = to_onnx(net, card)
    if precision == "float16":
        model = _halved(model)
    elif precision == "int8":
        model = _quantised(model, _some_faces(datamodule, "train"))
    with tempfile.TemporaryDirectory() as folder:
        candidate = Path(folder) / "candidate.onnx"
        candidate.write_bytes(serialised_with_card(model, card))
        before, after = TorchBackend(checkpoint_path, device="cpu"), OnnxBackend(candidate, device="cpu")
        parity = _compare(before.logits, after.logits, faces, card.temperature)
        latencies = [1000 * statistics.median(seconds_of(backend, 1)) for backend in (before, after)]
        _print(checkpoint_path, candidate, precision, parity, latencies)
        if parity.largest_change > LARGEST_CHANGE[precision] or parity.changed_classes > CHANGED_CLASSES[precision]:
            raise InputError(
                f"not written: compared with the checkpoint, the {precision} model changes a probability by "
                f"{parity.largest_change:.2g} (allowed {LARGEST_CHANGE[precision]:g}) and changes the class of "
                f"{parity.changed_classes:.1%} of the faces (allowed {CHANGED_CLASSES[precision]:.0%}): "
                "use another --precision"
            )
        with replacing(output) as temporary:
            temporary.write_bytes(candidate.read_bytes())
    Console().print(
        f"Written: [bold]{escape(str(output))}[/bold]. Try it: fer-predict --model {escape(str(output))} PHOTO",
        soft_wrap=True,
    )
    return parity


def _make_parent(output: Path) -> None:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output.parent} cannot be created ({error.strerror}): choose another --output") from error
    if output.is_dir():
        raise InputError(f"{output} is a folder: name the file, as --output {output}/model.onnx")
    if output.suffix != ".onnx":
        raise InputError(f"{output} must end in .onnx, by which model files are known: --output {output}.onnx")


def _run_folder(checkpoint: Path) -> Path:
    if (run := run_of(checkpoint.absolute())) is None:
        raise InputError(f"{checkpoint} lies in no run: give RUN/checkpoints/best.ckpt, whose run names its dataset")
    return run


def _result_of(run: Path) -> dict[str, Any]:
    path = run / "result.json"
    if not path.is_file():
        raise InputError(
            f"{run} holds no result.json: give a checkpoint in the folder of its finished run, which names the dataset "
            "to compare on"
        )
    return json.loads(path.read_text())


def _datamodule_of(result: dict[str, Any], run: Path) -> FaceDataModule:
    """The run's faces, without augmentation.

    A `result.json` may come from anywhere, and Hydra calls whatever function it names: only the public ones of this
    package's readers, protocols and preprocessing are called.
    """
    settings = result["config"]["data"] | {"augmentation": None}
    text = json.dumps(settings)
    for target in re.findall(r'"_target_": "(.*?)"', text):
        if "${" in text or not _is_of_data(target):
            raise InputError(
                f"{run}/result.json calls {target}, which is no reader of this package, and might do anything: give a "
                "checkpoint whose dataset is read by this package"
            )
    return config.instantiate(settings)


def _is_of_data(target: str) -> bool:
    if not target.startswith(OF_DATA) or "._" in target:
        return False
    try:
        return f"{config.get_object(target).__module__}.".startswith(OF_DATA)
    except ImportError:
        return False


def _some_faces(datamodule: FaceDataModule, stage: str) -> Examples:
    dataset = datamodule.dataset(stage)
    chosen = np.random.default_rng(0).permutation(len(dataset))[:FACES].tolist()
    batch = dataset.__getitems__([(0, position) for position in chosen])
    return Examples(batch.images.numpy(), batch.targets.numpy())


def to_onnx(net: torch.nn.Module, card: ModelCard) -> onnx.ModelProto:
    """Convert a network to ONNX, for any number of faces at once."""
    size, channels = card.preprocess.size, card.preprocess.channels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporter's internals
        program = torch.onnx.export(
            net,
            (torch.zeros(2, channels, size, size),),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("faces")},),
            dynamo=True,
            verbose=False,
        )
    return _without_traces(program.model_proto)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the source locations that the exporter writes into each node, since they contain paths of this machine."""
    del model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    for function in model.functions:
        del function.metadata_props[:]
        for node in function.node:
            node.doc_string = ""
            del node.metadata_props[:]
    return model


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    halved = OnnxModel(convert_float_to_float16(model, keep_io_types=True))
    halved.topological_sort()  # the conversion appends its casts at the end, where ONNX does not allow them
    return halved.model


def _quantised(model: onnx.ModelProto, faces: Examples) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        original, prepared, int8 = (Path(folder) / f"{name}.onnx" for name in ("original", "prepared", "int8"))
        original.write_bytes(model.SerializeToString())
        quant_pre_process(original, prepared)
        quantize_static(prepared, int8, _Calibration(faces.images), quant_format=QuantFormat.QDQ, per_channel=True)
        return onnx.load(io.BytesIO(int8.read_bytes()))


def _batches(images: np.ndarray) -> list[np.ndarray]:
    """Parts of about 32 images, since a large network has no memory for hundreds at once."""
    return np.array_split(images, max(1, len(images) // 32))


class _Calibration(CalibrationDataReader):
    def __init__(self, images: np.ndarray) -> None:
        self._batches = iter(_batches(images))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def serialised_with_card(model: onnx.ModelProto, card: ModelCard) -> bytes:
    """The content of the model file, with the card in its metadata."""
    onnx.helper.set_model_props(model, {KEY: card.to_json()})
    return model.SerializeToString()


def _compare(before: Callable, after: Callable, faces: Examples, temperature: float) -> Parity:
    remedies = {"checkpoint": "give another checkpoint", "exported model": "use another --precision"}
    logits = [np.concatenate([network(part) for part in _batches(faces.images)]) for network in (before, after)]
    for given, (whose, remedy) in zip(logits, remedies.items(), strict=True):
        if bad := int((~np.isfinite(given)).any(axis=1).sum()):  # a change by NaN would be above no limit
            raise InputError(
                f"not written: the {whose} gives {bad} of {len(given)} faces logits that are not finite: {remedy}"
            )
    one, other = (softmax(given / temperature) for given in logits)
    return Parity(
        largest_change=float(np.abs(one - other).max()),
        changed_classes=float((one.argmax(axis=1) != other.argmax(axis=1)).mean()),
        accuracy_before=float((one.argmax(axis=1) == faces.targets).mean()),
        accuracy_after=float((other.argmax(axis=1) == faces.targets).mean()),
    )


def _print(checkpoint: Path, candidate: Path, precision: str, parity: Parity, latencies: list[float]) -> None:
    before, after = latencies
    table = Table("", "checkpoint, torch", f"ONNX, {precision}", title="Exported")
    sizes = [path.stat().st_size / 1e6 for path in (checkpoint, candidate)]
    table.add_row("size", *(f"{size:.1f} MB" for size in sizes))
    table.add_row("one face, median", f"{before:.2f} ms", f"{after:.2f} ms")
    table.add_row("accuracy on the faces compared", f"{parity.accuracy_before:.4f}", f"{parity.accuracy_after:.4f}")
    table.add_row("largest change of a probability", "", f"{parity.largest_change:.2g}")
    table.add_row("faces with another class", "", f"{parity.changed_classes:.2%}")
    Console().print(table)


def run() -> None:
    """Entry point of the command."""
    run_command(main)


if __name__ == "__main__":
    run()
