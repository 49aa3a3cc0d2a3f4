"""ExpressionClassifier: it learns, and a checkpoint alone rebuilds it."""

from functools import partial
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from fer_lightning import callbacks, optim
from fer_lightning.callbacks import FreezeBackbone
from fer_lightning.checkpoint import check_fits, load_checkpoint
from fer_lightning.data.batch import FaceBatch
from fer_lightning.data.datamodule import FaceDataModule
from fer_lightning.data.faces import FaceIndex
from fer_lightning.data.splits import official
from fer_lightning.errors import InputError
from fer_lightning.module import ExpressionClassifier
from fer_lightning.preprocess import Preprocess

CLASSES = ("angry", "happy", "sad")
NET = {"name": "cnn4", "dropout": 0.0}
PREPROCESS = Preprocess().to_dict()


def separable_faces() -> FaceIndex:
    """Three classes told apart by which third is bright: 48 images to train on, 12 each to validate and test."""
    targets = np.arange(72) % 3

    def read(i: int) -> np.ndarray:
        image = np.full((48, 48), i % 50, np.uint8)
        image[16 * targets[i] : 16 * targets[i] + 16] += 150
        return image

    splits = np.repeat(["train", "val", "test"], [48, 12, 12])
    return FaceIndex(
        dataset="separable",
        class_names=CLASSES,
        names=[f"{i}.png" for i in range(72)],
        targets=targets,
        read=read,
        source_key="separable",
        splits=splits,
    )


@pytest.fixture
def datamodule(tmp_path: Path) -> FaceDataModule:
    return FaceDataModule(separable_faces, official, Preprocess(), batch_size=16, cache_dir=tmp_path / "cache")


def make_model(**settings) -> ExpressionClassifier:
    torch.manual_seed(0)
    settings = {
        "optimizer": partial(torch.optim.Adam, lr=1e-3),
        "scheduler": partial(optim.one_cycle, max_lr=1e-3),
        **settings,
    }
    return ExpressionClassifier(NET, CLASSES, PREPROCESS, **settings)


def make_trainer(folder: Path, **settings) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=1,
        **{"enable_progress_bar": False, **settings},
    )


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_separable_classes_are_learned(datamodule, tmp_path, precision):
    model = make_model()
    trainer = make_trainer(tmp_path, max_epochs=8, precision=precision, enable_checkpointing=False)
    trainer.fit(model, datamodule=datamodule)
    [scores] = trainer.test(model, datamodule=datamodule, verbose=False)
    assert scores["test/acc"] == 1.0


def test_a_checkpoint_alone_rebuilds_the_model_without_running_code(datamodule, tmp_path):
    model = make_model()
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(model, datamodule=datamodule)
    path = trainer.checkpoint_callback.best_model_path
    torch.load(path, weights_only=True)
    rebuilt = ExpressionClassifier.load_from_checkpoint(path, weights_only=True)
    images = next(iter(datamodule.val_dataloader())).images
    assert rebuilt.class_names == list(CLASSES)
    assert Preprocess(**rebuilt.hparams.preprocess) == datamodule.preprocess
    torch.testing.assert_close(rebuilt.eval()(images), model.eval()(images))


def test_the_progress_bar_shows_the_loss_and_no_step_waits_for_it(datamodule, tmp_path, monkeypatch):
    reads = []
    item = torch.Tensor.item
    monkeypatch.setattr(torch.Tensor, "item", lambda tensor: reads.append(tensor.shape) or item(tensor))
    monkeypatch.setattr(callbacks, "READ_EVERY_S", 3600)
    counts = []
    for steps in (1, 3):
        reads.clear()
        bar = callbacks.ProgressBar()
        settings = {"limit_train_batches": steps, "limit_val_batches": 0, "enable_checkpointing": False}
        trainer = make_trainer(tmp_path, max_epochs=1, enable_progress_bar=True, callbacks=[bar], **settings)
        model = make_model(optimizer=partial(torch.optim.SGD, lr=1e-3), scheduler=None)
        trainer.fit(model, datamodule=datamodule)
        counts.append(len(reads))
    assert counts[0] == counts[1]
    assert bar.get_metrics(trainer, model)["loss"] > 0


def test_label_smoothing_is_for_training_only(datamodule):
    model = make_model(label_smoothing=0.3)
    model.log = lambda *_, **__: None  # there is no trainer to log to
    batch = next(iter(datamodule.val_dataloader()))
    smoothed = model.training_step(batch, 0)
    model.validation_step(batch, 0)
    logits = model(batch.images)
    torch.testing.assert_close(smoothed, cross_entropy(logits, batch.targets, label_smoothing=0.3))
    torch.testing.assert_close(model.val_meter.compute()["val/loss"], cross_entropy(logits, batch.targets).detach())


@pytest.mark.parametrize(
    ("skipped", "new"),
    [
        ([], set()),
        (["features.0"], {"features.0.weight", "features.0.bias"}),
        (["features.0.bias"], {"features.0.bias"}),
    ],
    ids=["all else begun", "a layer without initial weights", "a parameter without"],
)
def test_while_the_backbone_is_frozen_the_classes_alone_are_trained(datamodule, tmp_path, skipped, new):
    def weights_after(epochs: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = ExpressionClassifier(
            {"name": "cnn3"},
            CLASSES,
            PREPROCESS,
            optimizer=partial(torch.optim.Adam, lr=1e-3, weight_decay=0.1),
            init_skip=skipped,
        )
        callbacks = [FreezeBackbone(epochs=2)]
        make_trainer(tmp_path, max_epochs=epochs, callbacks=callbacks, enable_checkpointing=False).fit(
            model, datamodule=datamodule
        )
        return {name: value.clone() for name, value in model.net.state_dict().items()}

    one, two, three = weights_after(1), weights_after(2), weights_after(3)
    still = {name for name in one if torch.equal(one[name], two[name])}
    assert one.keys() - still == {"head.4.weight", "head.4.bias"} | new
    assert not {name for name in one if torch.equal(two[name], three[name])}


def test_channels_last_changes_the_layout_and_not_the_result():
    images = torch.rand(4, 1, 48, 48)
    last, first = make_model(channels_last=True), make_model(channels_last=False)
    assert last.net.features[2].weight.is_contiguous(memory_format=torch.channels_last)
    assert first.net.features[2].weight.is_contiguous()
    torch.testing.assert_close(last(images), first(images), atol=1e-5, rtol=1e-5)


def test_an_optimizer_that_refuses_its_settings_is_told_in_a_sentence():
    model = ExpressionClassifier(NET, CLASSES, PREPROCESS, optimizer=partial(torch.optim.Adam, lr=-1))
    with pytest.raises(InputError, match="the optimizer does not accept these settings: Invalid learning rate: -1"):
        model.configure_optimizers()


class TestCheckpointsFromAnywhere:
    """What load_checkpoint refuses, and how."""

    def test_a_missing_checkpoint_is_named(self, tmp_path):
        with pytest.raises(InputError, match="there is no checkpoint at .*no.ckpt"):
            load_checkpoint(tmp_path / "no.ckpt")

    @pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
    def test_a_file_that_is_no_checkpoint_is_refused(self, tmp_path, content):
        path = tmp_path / "model.ckpt"
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"model.ckpt \({len(content)} bytes\) is damaged or not a checkpoint"):
            load_checkpoint(path)

    def test_a_truncated_checkpoint_is_refused(self, tmp_path):
        path = tmp_path / "model.ckpt"
        torch.save({"state_dict": {"weight": torch.zeros(1000)}, "hyper_parameters": {}}, path)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(InputError, match="is damaged or not a checkpoint"):
            load_checkpoint(path)

    def test_a_checkpoint_with_code_in_it_is_refused_and_the_code_never_run(self, tmp_path):
        path, witness = tmp_path / "model.ckpt", tmp_path / "code_was_run"
        torch.save({"state_dict": {}, "hyper_parameters": Payload(witness)}, path)
        with pytest.raises(InputError, match="contains more than weights and plain data and was not loaded"):
            load_checkpoint(path)
        assert not witness.exists()

    def test_a_checkpoint_of_another_program_is_refused(self, tmp_path):
        path = tmp_path / "model.pt"
        for content in ({"weight": torch.zeros(1)}, {"state_dict": {}, "hyper_parameters": {"lr": 0.1}}):
            torch.save(content, path)
            with pytest.raises(InputError, match="is not a checkpoint of fer_lightning"):
                load_checkpoint(path)

    @pytest.mark.parametrize(
        "other",
        [
            {"class_names": ["cat", "dog", "cow"]},
            {"net": {"name": "cnn4", "kernel_size": 5}},
            {"preprocess": Preprocess(size=64).to_dict()},
        ],
    )
    def test_a_checkpoint_of_other_classes_network_or_preprocessing_is_refused(self, other):
        ours = dict(make_model().hparams)
        [name] = other
        with pytest.raises(InputError, match=f"old.ckpt was trained with {name} .*, this run has"):
            check_fits({"hyper_parameters": ours | other}, ours, "old.ckpt", ".")

    def test_a_checkpoint_older_than_a_setting_that_is_left_at_null_is_taken(self, tmp_path):
        ours = dict(make_model().hparams)
        newer = ours | {"net": ours["net"] | {"new_setting": None}}
        checkpoint = {"hyper_parameters": ours, "callbacks": {"best": {"dirpath": str(tmp_path)}}}
        check_fits(checkpoint, newer, tmp_path / "last.ckpt", tmp_path)


class Payload:
    """What an attacker would put into a pickle."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return (Path.touch, (self.witness,))


class TestMixup:
    def test_pairs_are_blended_and_the_loss_is_of_both_targets(self, monkeypatch):
        seen = {}

        def forward(images):
            seen["images"] = images
            return torch.zeros(len(images), 3)

        def loss(logits, targets, counts, *, label_smoothing):
            seen.setdefault("targets", []).append(targets.tolist())
            return torch.tensor(float(targets[0]))

        model = make_model(mixup=0.4, loss=loss)
        monkeypatch.setattr(model, "forward", forward)
        monkeypatch.setattr(model, "log", lambda *args, **kwargs: None)
        images = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 1, 48, 48)
        monkeypatch.setattr(torch, "randperm", lambda count, device: torch.tensor([1, 0]))
        value = model.training_step(FaceBatch(images, torch.tensor([0, 1]), torch.arange(2)), 0)
        share = 1 - seen["images"][0, 0, 0, 0].item()
        assert 0.5 <= share < 1
        assert seen["images"][1].mean().item() == pytest.approx(share)
        assert seen["targets"] == [[0, 1], [1, 0]]
        assert value.item() == pytest.approx(1 - share)

    def test_a_negative_alpha_is_refused(self):
        with pytest.raises(InputError, match=r"model\.mixup must be at least 0, got -1"):
            make_model(mixup=-1)


def test_biases_and_batch_norms_can_be_spared_the_decay():
    optimizer = partial(torch.optim.SGD, lr=0.1, weight_decay=0.5)
    model = make_model(decay_weights_only=True, optimizer=optimizer, scheduler=None)
    decaying, spared = model.configure_optimizers()["optimizer"].param_groups
    assert (decaying["weight_decay"], spared["weight_decay"]) == (0.5, 0.0)
    assert {parameter.ndim for parameter in decaying["params"]} == {2, 4}
    assert {parameter.ndim for parameter in spared["params"]} == {1}
    assert len(decaying["params"]) + len(spared["params"]) == len(list(model.parameters()))
