"""From a checkpoint to a model file that says of itself how to use it."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import fer_lightning
from fer_lightning import export as export_module
from fer_lightning.checkpoint import load_checkpoint
from fer_lightning.command import make_command
from fer_lightning.errors import InputError
from fer_lightning.evaluation.cost import size_of
from fer_lightning.export import Examples, _compare, export, to_onnx
from fer_lightning.inference import backends
from fer_lightning.inference.backends import OnnxBackend, load_backend
from fer_lightning.inference.model_card import KEY, ModelCard
from fer_lightning.inference.model_file import find_model
from fer_lightning.inference.torch_backend import card_of
from fer_lightning.labels import FER2013_CLASSES
from fer_lightning.models import create_model
from fer_lightning.preprocess import Preprocess


@pytest.fixture
def checkpoint(finished_run):
    return finished_run / "checkpoints" / "best.ckpt"


def test_a_model_file_predicts_as_its_checkpoint_at_every_batch_size(checkpoint, onnx_model):
    faces = np.random.default_rng(0).random((5, 1, 48, 48), dtype=np.float32)
    one, other = load_backend(checkpoint, device="cpu"), load_backend(onnx_model)
    for count in (1, 5):
        np.testing.assert_allclose(other.logits(faces[:count]), one.logits(faces[:count]), atol=1e-4)


def test_a_model_file_carries_classes_preprocessing_training_and_metrics(onnx_model, finished_run):
    card = load_backend(onnx_model).card
    assert card.class_names == FER2013_CLASSES
    assert card.preprocess == Preprocess()
    assert (card.crop_margin, card.temperature) == (0.0, 1.0)
    assert card.training["dataset"] == "synthetic"
    assert card.metrics == json.loads((finished_run / "result.json").read_text())["metrics"]


def test_the_bundled_network_is_exported_with_pooling_that_onnx_runtime_does_fast():
    net = create_model("seresnet_s", num_classes=7).eval()
    nodes = to_onnx(net, ModelCard(class_names=FER2013_CLASSES, preprocess=Preprocess())).graph.node
    pools = [node for node in nodes if node.op_type == "AveragePool"]
    assert len(pools) == 4  # one in front of each shortcut
    assert not any(attribute.i for node in pools for attribute in node.attribute if attribute.name == "ceil_mode")


def test_the_last_epochs_model_does_not_bear_the_scores_of_the_best(finished_run, tmp_path):
    output = tmp_path / "new" / "last.onnx"
    export(finished_run / "checkpoints" / "last.ckpt", output, "float32")
    last_epoch = pd.read_csv(finished_run / "metrics.csv").iloc[-1]
    metrics = load_backend(output).card.metrics
    assert metrics == {name: pytest.approx(last_epoch[name]) for name in last_epoch.index if name.startswith("val/")}
    checkpoint = load_checkpoint(finished_run / "checkpoints" / "last.ckpt")
    rows = [{"epoch": 1, "val/acc": 0.5}, {"epoch": 2, "val/acc": 0.25, "train/acc": 0.75}]
    assert card_of(checkpoint | {"callbacks": {"the table": {"rows": rows}}}).metrics == {"val/acc": 0.25}
    with pytest.raises(InputError, match="is a folder: name the file"):
        export(finished_run / "checkpoints" / "last.ckpt", tmp_path / "new", "float32")


@pytest.mark.parametrize(("precision", "smaller"), [("float16", 1.9), ("int8", 3.5)])
def test_a_smaller_model_predicts_nearly_as_its_checkpoint(
    checkpoint, onnx_model, tmp_path, monkeypatch, precision, smaller
):
    # After one epoch probabilities are close to each other, so that small changes turn more classes than they would.
    monkeypatch.setitem(export_module.CHANGED_CLASSES, precision, 0.2)
    parity = export(checkpoint, tmp_path / "small.onnx", precision)
    onnx.checker.check_model(onnx.load(tmp_path / "small.onnx"))
    assert parity.largest_change < 0.1
    assert onnx_model.stat().st_size / (tmp_path / "small.onnx").stat().st_size > smaller
    assert load_backend(tmp_path / "small.onnx").card.class_names == FER2013_CLASSES
    of_checkpoint, of_small = size_of(checkpoint), size_of(tmp_path / "small.onnx")
    for name in ("parameters", "multiply_adds"):
        assert of_small[name] == of_checkpoint[name] > 0


def test_without_an_output_the_model_lies_in_its_run(finished_run, tmp_path):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (run / "model.onnx").unlink(missing_ok=True)
    told = CliRunner().invoke(make_command(export_module.main), [str(run / "checkpoints" / "best.ckpt")])
    assert told.exit_code == 0, told.output + told.stderr
    assert find_model(run) == run / "model.onnx"


def test_a_model_that_differs_too_much_is_not_written(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(export_module.LARGEST_CHANGE, "float32", 0.0)
    with pytest.raises(InputError, match="not written: .* changes a probability by .* use another --precision"):
        export(checkpoint, tmp_path / "model.onnx", "float32")
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_compared_by_the_probabilities_that_it_gives():
    faces = Examples(np.zeros((1, 1), np.float32), np.zeros(1, int))
    one, other = (lambda images, x=x: np.float32([[x, 0]]) for x in (0.0, 1.0))
    assert _compare(one, other, faces, 0.5).largest_change == pytest.approx(1 / (1 + np.exp(-2)) - 0.5)


def test_a_network_is_compared_in_parts_that_a_large_one_has_memory_for():
    sizes = []
    faces = Examples(np.zeros((100, 1), np.float32), np.zeros(100, int))

    def network(images):
        sizes.append(len(images))
        return np.zeros((len(images), 2), np.float32)

    _compare(network, network, faces, 1.0)
    assert max(sizes) <= 34
    assert sum(sizes) == 200


def test_logits_that_are_not_finite_are_refused():
    faces = Examples(np.zeros((2, 1), np.float32), np.zeros(2, int))
    good, bad = (lambda images, x=x: np.float32([[0, 1], [x, 0]]) for x in (0, np.nan))
    with pytest.raises(InputError, match="exported model gives 1 of 2 faces .* not finite: use another --precision"):
        _compare(good, bad, faces, 1.0)
    with pytest.raises(InputError, match="checkpoint gives 1 of 2 faces .* not finite: give another checkpoint"):
        _compare(bad, bad, faces, 1.0)


def test_a_name_that_no_model_file_has_is_refused(checkpoint, tmp_path):
    with pytest.raises(InputError, match=r"must end in \.onnx, by which model files are known: --output .*model\.onnx"):
        export(checkpoint, tmp_path / "model", "float32")


def test_a_checkpoint_without_its_run_is_refused(checkpoint, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    lonely = tmp_path / "run" / "checkpoints" / "best.ckpt"
    lonely.write_bytes(checkpoint.read_bytes())
    with pytest.raises(InputError, match="holds no result.json: give a checkpoint in the folder of its finished run"):
        export(lonely, tmp_path / "model.onnx", "float32")
    moved = lonely.rename(tmp_path / "moved.ckpt")
    with pytest.raises(InputError, match=r"moved\.ckpt lies in no run: give RUN/checkpoints/best\.ckpt"):
        export(moved, tmp_path / "model.onnx", "float32")


def test_a_run_from_elsewhere_cannot_have_a_function_of_its_choice_called(finished_run, tmp_path):
    foreign = tmp_path / "run"
    shutil.copytree(finished_run, foreign)
    result = json.loads((foreign / "result.json").read_text())
    made = tmp_path / "made"
    for target, arguments in (
        ("os.mkdir", [str(made)]),
        ("fer_lightning.data.cache.os.mkdir", [str(made)]),
        ("fer_lightning.sweeps.jobs._wait", [["touch", str(made)], None, True]),
        ("fer_lightning.data.tree._zip_stamps", [str(made)]),
        ("fer_lightning.data.no_such_reader", []),
    ):
        result["config"]["data"]["reader"] = {"_target_": target, "_args_": arguments}
        (foreign / "result.json").write_text(json.dumps(result))
        with pytest.raises(InputError, match=f"result.json calls {target}, which is no reader of this package"):
            export(foreign / "checkpoints" / "best.ckpt", tmp_path / "model.onnx", "float32")
    assert not made.exists()


def test_a_runtime_of_cpus_alone_says_what_to_install(onnx_model, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(InputError, match="^this ONNX Runtime runs on the CPU only: install onnxruntime-gpu"):
        load_backend(onnx_model, device="cuda")


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider'")
def test_a_runtime_that_was_built_for_cuda_and_cannot_use_it_says_so(onnx_model, monkeypatch, capsys):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [backends.CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr("onnxruntime.preload_dlls", lambda: print("libcudart.so is not here"))
    assert load_backend(onnx_model).device == "cpu"
    assert capsys.readouterr().out == ""
    with pytest.raises(InputError, match="^ONNX Runtime cannot use CUDA on this machine: check the driver"):
        load_backend(onnx_model, device="cuda")


class TestForeignModels:
    """What is refused as a model file, and how."""

    @pytest.mark.parametrize("content", [b"", b"not a model", bytes(5000)], ids=["empty", "text", "zeros"])
    def test_a_file_that_is_no_model_is_refused(self, tmp_path, content):
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"model.onnx \({len(content):,} bytes\) is damaged or not an ONNX model"):
            load_backend(path)

    def test_a_truncated_model_file_is_refused(self, tmp_path, onnx_model):
        path = tmp_path / "model.onnx"
        path.write_bytes(onnx_model.read_bytes()[:-100_000])
        with pytest.raises(InputError, match="is damaged or not an ONNX model"):
            load_backend(path)

    def test_a_model_that_does_not_describe_itself_is_refused(self, tmp_path, onnx_model):
        model = onnx.load(onnx_model)
        del model.metadata_props[:]
        onnx.save(model, tmp_path / "plain.onnx")
        with pytest.raises(
            InputError, match="does not name its classes and preprocessing: create model files with fer-exp"
        ):
            load_backend(tmp_path / "plain.onnx")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"preprocess": Preprocess(size=64).to_dict()},
                r"takes \[1, 48, 48\] .* but its description says \[1, 64, 64\]",
            ),
            ({"class_names": ["a", "b"]}, r"gives \[7\], but its description says .* \[2\]"),
            ({"class_names": ["a", "a"]}, "are not two or more different ones"),
            ({"temperature": 0}, "temperature must be above 0"),
            ({"bogus": 1}, "has no valid description as fer-export writes it"),
        ],
    )
    def test_a_description_that_does_not_fit_its_network_is_refused(self, tmp_path, onnx_model, change, message):
        model = onnx.load(onnx_model)
        facts = json.loads(OnnxBackend(onnx_model).card.to_json()) | change
        onnx.helper.set_model_props(model, {KEY: json.dumps(facts)})
        onnx.save(model, tmp_path / "odd.onnx")
        with pytest.raises(InputError, match=message):
            load_backend(tmp_path / "odd.onnx")

    def test_weights_in_another_file_are_not_fetched(self, tmp_path, onnx_model):
        onnx.save(onnx.load(onnx_model), tmp_path / "split.onnx", save_as_external_data=True, location="elsewhere.bin")
        assert (tmp_path / "elsewhere.bin").exists()
        with pytest.raises(InputError, match="is damaged or not an ONNX model"):
            load_backend(tmp_path / "split.onnx")

    def test_a_file_of_another_suffix_is_refused(self, tmp_path):
        (tmp_path / "model.pt").touch()
        with pytest.raises(InputError, match=r"model.pt is not a model file: its name must end in .onnx or .ckpt"):
            load_backend(tmp_path / "model.pt")

    def test_a_checkpoint_with_the_weights_of_another_network_is_refused(self, tmp_path, finished_run):
        checkpoint = torch.load(finished_run / "checkpoints" / "best.ckpt", weights_only=True)
        checkpoint["hyper_parameters"]["net"]["kernel_size"] = 5
        torch.save(checkpoint, tmp_path / "odd.ckpt")
        with pytest.raises(InputError, match="contains weights for another network than it names"):
            load_backend(tmp_path / "odd.ckpt")


def test_a_card_travels_as_text():
    card = ModelCard(class_names=("a", "b"), preprocess=Preprocess(size=64), temperature=1.5, metrics={"val/acc": 0.5})
    assert ModelCard.from_json(card.to_json(), "file") == card


def test_a_model_file_names_no_place_of_the_machine_that_wrote_it(onnx_model):
    content = onnx_model.read_bytes()
    for place in (str(Path(fer_lightning.__file__).parents[1]), str(Path(torch.__file__).parent), str(Path.home())):
        assert place.encode() not in content
