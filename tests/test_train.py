"""The training command from end to end, on a handful of drawn faces."""

import importlib.metadata
import json
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from hydra.errors import InstantiationException
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fer_lightning.callbacks import AveragedWeights, EpochSeed
from fer_lightning.checkpoint import load_checkpoint
from fer_lightning.errors import InputError
from fer_lightning.labels import FER2013_CLASSES
from fer_lightning.leaderboard.runs import collect
from fer_lightning.runs import training
from fer_lightning.runs.artifacts import print_results
from fer_lightning.runs.folder import claimed
from fer_lightning.runs.training import train
from fer_lightning.settings.config import compose_config
from fer_lightning.settings.plain_errors import explain

SMALL = (
    "data.reader.train=70",
    "data.reader.val=21",
    "data.reader.test=14",
    "data.batch_size=32",
    "data.num_workers=0",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "~callbacks.progress",
)


@pytest.fixture
def run(tmp_path: Path):
    """run(*overrides, folder=...): train on a few synthetic faces and return the run folder."""

    def run_in(*overrides: str, folder: str = "run") -> Path:
        output_dir = tmp_path / folder
        output_dir.mkdir(parents=True, exist_ok=True)
        places = (f"output_dir={output_dir}", f"data.cache_dir={tmp_path / 'cache'}")
        train(compose_config(*SMALL, *places, *overrides))
        return output_dir

    return run_in


def last_checkpoint(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


@contextmanager
def power_cut(*, epoch: int) -> Iterator[None]:
    """Runs inside break off in this epoch, after its first batch."""

    def cut(self: EpochSeed, trainer: L.Trainer, *_: object) -> None:
        if trainer.current_epoch + 1 == epoch:
            raise RuntimeError("power cut")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(EpochSeed, "on_train_batch_end", cut)
        yield


def test_a_run_folder_holds_everything_and_a_result_that_says_what_it_is(run):
    folder = run("callbacks.pictures.every_n_epochs=1")
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    written = result(folder)
    assert written["schema_version"] == 1
    assert written["config"]["model"]["net"]["name"] == "cnn4"
    assert written["data"]["protocol"] == "official"
    assert written["data"]["splits"]["train"]["count"] == 70
    assert written["parameters"] == 2_489_095
    assert written["multiply_adds"] == pytest.approx(86.8e6, rel=0.001)
    assert written["selection"] == "best epoch by val/acc"
    assert (written["epochs"], written["seed"]) == (2, 0)
    for name in ("acc", "f1_macro", "precision_macro", "recall_macro", "specificity_macro", "ece"):
        assert 0 <= written["metrics"][f"test/{name}"] <= 1
    assert set(written["per_class"]["test"]) == set(FER2013_CLASSES)
    assert written["versions"]["torch"] == importlib.metadata.version("torch")
    assert (written["hardware"]["precision"], written["hardware"]["devices"]) == ("32-true", 1)
    assert written["images_per_s"] > 0


def test_the_tables_of_a_run_agree_with_its_result(run):
    folder = run()
    written, predictions = result(folder), pd.read_csv(folder / "predictions.csv")
    assert len(predictions) == 14
    assert predictions.person.str.fullmatch(r"S\d{3}").all()
    assert (predictions.target == predictions.prediction).mean() == pytest.approx(written["metrics"]["test/acc"])
    probabilities = predictions[[f"p_{name}" for name in FER2013_CLASSES]]
    assert probabilities.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-4)
    counts = pd.read_csv(folder / "confusion_matrix.csv", index_col=0)
    assert list(counts.index) == list(counts.columns) == list(FER2013_CLASSES)
    assert counts.to_numpy().trace() == (predictions.target == predictions.prediction).sum()
    epochs = pd.read_csv(folder / "metrics.csv")
    assert epochs["epoch"].tolist() == [1, 2]
    assert epochs["val/acc"].max() == pytest.approx(written["metrics"]["val/acc"])


def test_a_run_writes_its_pictures_and_leaves_no_temporary_file(run):
    folder = run()
    for name in ("confusion_matrix", "sample_predictions", "worst_mistakes", "learning_curves"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert not list(folder.glob(".*"))  # no temporary file is left


def test_tensorboard_shows_curves_pictures_the_graph_and_hyper_parameters(run):
    folder = run("callbacks.pictures.every_n_epochs=1")
    scalars, images, graphs, plugins = set(), set(), 0, set()
    for file in folder.glob("events.out.tfevents.*"):
        events = EventAccumulator(str(file)).Reload()
        scalars |= set(events.Tags()["scalars"])
        images |= set(events.Tags()["images"])
        graphs += events.Tags()["graph"]
        plugins |= set(events.summary_metadata)
    assert {"train/loss", "val/loss", "train/acc", "val/f1_macro", "lr", "test/acc", "final/test/acc"} <= scalars
    assert images == {"faces/train_augmented", "confusion_matrix/val", "faces/val_worst_mistakes"}
    assert graphs == 1
    assert any(plugin.startswith("_hparams_") for plugin in plugins)


def test_a_network_that_learns_nothing_is_told_and_one_that_learns_is_not(run, caplog):
    once = ("callbacks.learning_check.epochs=2", "data.batch_size=8", "model=cnn3")
    # All images in one batch: between batches, such steps would change the answer that all of them are given.
    stuck = ("data.batch_size=128", "optimizer=sgd", "optimizer.lr=20", "trainer.gradient_clip_val=5")
    run(*once, *stuck, folder="stuck")
    assert "nothing is learnt yet after 2 epochs: macro recall on train is " in caplog.text
    caplog.clear()
    run(*once, "augmentation=none", folder="learns")
    assert "nothing is learnt" not in caplog.text


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(run):
    weights = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        path = run(f"seed={seed}", "logger=none", folder=folder) / "checkpoints" / "last.ckpt"
        weights.append(torch.load(path, weights_only=True)["state_dict"])
    same, other = ([torch.equal(weights[0][name], w[name]) for name in w] for w in weights[1:])
    assert all(same)
    assert not all(other)


def test_a_protocol_without_validation_keeps_the_last_epoch(run):
    folder = run("protocol=random_80_20")
    written = result(folder)
    assert written["selection"] == "last epoch"
    assert written["best_epoch"] == 2
    assert written["data"]["leaks"]
    assert {name.partition("/")[0] for name in written["metrics"]} == {"test"}
    predictions = pd.read_csv(folder / "predictions.csv")
    assert len(predictions) == 21
    assert (predictions.target == predictions.prediction).mean() == pytest.approx(written["metrics"]["test/acc"])


@pytest.mark.parametrize("watching", ["scheduler=plateau", "callbacks=early_stopping"])
def test_what_watches_validation_is_refused_where_there_is_none(run, watching):
    with pytest.raises(InputError, match="watches val/acc, but this protocol has no validation split"):
        run("protocol=random_80_20", watching)


def test_without_a_test_split_val_is_reported_under_its_own_name(run):
    folder = run("data.reader.test=0")
    written = result(folder)
    assert not any(name.startswith("test/") for name in written["metrics"])
    assert set(written["per_class"]) == {"val"}
    assert set(pd.read_csv(folder / "predictions.csv")["split"]) == {"val"}


def test_a_split_that_lacks_a_class_says_so(caplog, tmp_path, write_image, face):
    for split, classes in {"train": ("calm", "glad"), "val": ("calm",)}.items():
        for label, name in enumerate(classes):
            write_image(tmp_path / "mine" / split / name / "0.png", face(label, len(split)))
    folders = (f"data.root={tmp_path / 'mine'}", f"data.cache_dir={tmp_path}", f"output_dir={tmp_path}")
    with caplog.at_level("WARNING"):
        train(compose_config("data=folder", *folders, *SMALL[3:], "logger=none", "trainer.max_epochs=1"))
    assert "val has no image of class glad: if a face is predicted as such a class, it counts as 0" in caplog.text


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon", "sgd"])
@pytest.mark.parametrize("scheduler", ["none", "one_cycle", "cosine", "plateau"])
def test_every_optimizer_trains_with_every_schedule(run, optimizer, scheduler):
    network = ("model=cnn3", "preprocess.size=16")
    folder = run(*network, f"optimizer={optimizer}", f"scheduler={scheduler}", "logger=none", "~callbacks.pictures")
    [state] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"]
    [group] = state["param_groups"]
    own, decay = {
        "adam": ("betas", 0),
        "adamw": ("betas", 0.01),
        "muon": ("momentum", 0.05),
        "sgd": ("momentum", 1e-4),
    }[optimizer]
    assert own in group
    assert len(state["state"]) == len(group["params"])  # each parameter was stepped
    assert group["weight_decay"] == decay
    rates = pd.read_csv(folder / "metrics.csv")["lr"]
    assert (rates.nunique() > 1) == (scheduler in ("one_cycle", "cosine"))


def test_averaged_weights_are_what_is_kept_and_tested(run):
    folder = run("callbacks=ema", "callbacks.ema.decay=0.5", "logger=none")
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    name = "net.head.4.weight"
    assert not torch.equal(best["state_dict"][name], best["current_model_state"][name])
    epochs = pd.read_csv(folder / "metrics.csv")
    # The numbers of the best checkpoint are those that its epoch was chosen by.
    assert result(folder)["metrics"]["val/acc"] == pytest.approx(epochs["val/acc"].max())
    assert result(folder)["metrics"]["val/loss"] == pytest.approx(
        epochs["val/loss"][epochs["val/acc"].idxmax()], abs=1e-4
    )


def test_an_average_of_a_few_steps_is_not_of_the_first_weights():
    average, network = AveragedWeights(decay=0.999), L.LightningModule()
    network.weight = torch.nn.Parameter(torch.zeros(1))
    average.setup(None, network, "fit")
    average.average(network)
    network.weight.data.fill_(1)
    for _ in range(49):
        average.average(network)
    assert average._average_model.module.weight > 0.99


def test_an_average_has_the_last_whole_numbers_and_a_mean_of_the_others():
    average, network = AveragedWeights(decay=0.25), L.LightningModule()
    network.weight = torch.nn.Parameter(torch.tensor([8.0]))
    network.register_buffer("count", torch.tensor(3))
    average.setup(None, network, "fit")
    for weight, count in ((8.0, 4), (4.0, 5)):
        network.weight.data.fill_(weight)
        network.count.fill_(count)
        average.average(network)
    averaged = average._average_model.module
    assert (averaged.weight.item(), averaged.count.item()) == (pytest.approx(8 * 2 / 11 + 4 * 9 / 11), 5)


def test_an_average_lies_where_the_network_is_trained():
    average, network = AveragedWeights(decay=0.9), L.LightningModule()
    network.layer = torch.nn.Linear(1, 1)
    average.setup(None, network, "fit")  # as Lightning does before it moves the network
    average.on_fit_start(None, network.to("meta"))
    assert {parameter.device.type for parameter in average._average_model.parameters()} == {"meta"}


@pytest.mark.parametrize("patience", [0, 1])
def test_early_stopping_ends_a_run_that_no_longer_improves(run, patience):
    folder = run(
        "callbacks=early_stopping",
        f"callbacks.early_stopping.patience={patience}",
        "optimizer.lr=1e-12",
        "trainer.max_epochs=20",
        "logger=none",
    )
    assert 0 < result(folder)["epochs"] < 20


def test_a_run_that_had_stopped_early_does_not_go_on_when_it_is_resumed(run):
    never_better = ("callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optimizer.lr=1e-12")
    settings = (*never_better, "trainer.max_epochs=20", "logger=none")
    folder = run(*settings)
    epochs = result(folder)["epochs"]
    assert result(run(*settings, f"ckpt_path={folder}/checkpoints/last.ckpt"))["epochs"] == epochs


def test_gradients_are_clipped_where_that_is_asked_for(run):
    moved = {}
    for clip in (1e-6, 1.0):
        sgd = ("optimizer=sgd", "optimizer.weight_decay=0", "scheduler=none", "trainer.max_epochs=1", "logger=none")
        folder = run(f"trainer.gradient_clip_val={clip}", *sgd, folder=str(clip))
        moved[clip] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"][
            "net.head.4.bias"
        ]
    assert moved[1e-6].abs().max() < 1e-6 < moved[1.0].abs().max()  # biases start at zero


@pytest.mark.parametrize(
    "settings",
    [
        ("scheduler=one_cycle",),
        # Every epoch counts as none the better, so that each one lowers the rate.
        ("scheduler=plateau", "scheduler.patience=0", "optimizer.lr=1e-9"),
        ("scheduler=cosine", "callbacks=ema", "callbacks.ema.decay=0.9"),
    ],
    ids=["one cycle", "plateau", "averaged"],
)
def test_a_run_that_breaks_off_in_mid_epoch_and_is_resumed_ends_as_one_that_did_not(run, settings):
    settings = (*settings, "model=cnn3", "trainer.max_epochs=4", "logger=none")
    whole = run(*settings, folder="whole")
    with power_cut(epoch=3), pytest.raises(RuntimeError, match="power cut"):
        run(*settings)
    resumed = run(*settings, f"ckpt_path={whole.parent / 'run' / 'checkpoints' / 'last.ckpt'}")

    for checkpoint in ("last.ckpt", "best.ckpt"):
        weights, others = (load_checkpoint(d / "checkpoints" / checkpoint)["state_dict"] for d in (whole, resumed))
        assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert result(whole)["metrics"] == result(resumed)["metrics"]
    tables = [pd.read_csv(d / "metrics.csv").drop(columns=["images_per_s", "seconds"]) for d in (whole, resumed)]
    pd.testing.assert_frame_equal(*tables)


def test_a_run_does_not_go_on_from_another_fold_seed_or_schedule(run, tmp_path):
    folder = run("data.reader.subjects=20", "protocol=subject_kfold", "logger=none")
    resume = f"ckpt_path={folder / 'checkpoints' / 'last.ckpt'}"
    for other, difference in (
        ("protocol.fold=3", "'splits'"),
        ("seed=5", "'seed': 0"),
        ("data.seed=5", "'data_seed': 0"),
        ("trainer.max_epochs=9", "'max_epochs': 2"),
        ("optimizer=sgd", "'optimizer'"),
        ("model.scheduler=null", "'scheduler'"),
        ("model.loss=null", "'loss'"),
        ("data.augmentation=null", "'augmentation'"),
        ("callbacks=ema", "'callbacks'"),
        ("model.label_smoothing=0.2", "'label_smoothing'"),
        ("trainer.gradient_clip_val=1", "'gradient_clip_val'"),
        ("trainer.precision=bf16-mixed", "'precision'"),
        ("+trainer.accumulate_grad_batches=2", "'accumulate_grad_batches'"),
    ):
        with pytest.raises(InputError, match=f"was trained with training .*{difference}.* this run has"):
            run("data.reader.subjects=20", "protocol=subject_kfold", "logger=none", resume, other)
    with pytest.raises(InputError, match="was trained with crop_margin 0.0, this run has 0.2"):
        run("data.reader.subjects=20", "protocol=subject_kfold", "logger=none", resume, "model.crop_margin=0.2")
    assert result(folder)["epochs"] == 2


def test_names_in_brackets_are_printed(capsys):
    row = {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 3}
    print_results("Best of [mine]", {"val/acc": 1.0}, {"happy [posed]": row}, "val")
    printed = capsys.readouterr().out
    assert "Best of [mine]" in printed
    assert "happy [posed]" in printed


def test_what_only_watches_may_change_when_a_run_goes_on(run):
    folder = run("logger=none")
    run("logger=none", f"ckpt_path={folder / 'checkpoints' / 'last.ckpt'}", "callbacks.learning_check.epochs=1")


def test_a_run_that_goes_on_under_other_code_says_so(run, monkeypatch, caplog):
    folder = run("logger=none")
    resume = f"ckpt_path={folder / 'checkpoints' / 'last.ckpt'}"
    run("logger=none", resume)
    assert "other code" not in caplog.text
    assert result(folder)["earlier_code"] == []
    monkeypatch.setattr("fer_lightning.machine.code_version.code_digest", lambda: "edited")
    run("logger=none", resume)
    assert "last.ckpt was written by another code version: this run mixes two code versions" in caplog.text
    assert len(result(folder)["earlier_code"]) == 1
    run("logger=none", resume)
    assert len(result(folder)["earlier_code"]) == 1


def test_a_checkpoint_that_was_moved_does_not_go_on_where_its_best_epoch_is_unknown(run, tmp_path):
    folder = run("logger=none")
    moved = tmp_path / "moved"
    folder.rename(moved)
    for place in ("moved", "elsewhere"):
        with pytest.raises(InputError, match="a run is resumed in its own folder, so move it back"):
            run("logger=none", f"ckpt_path={moved / 'checkpoints' / 'last.ckpt'}", folder=place)
    assert (moved / "result.json").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links need privileges")
def test_a_run_goes_on_through_a_link_to_its_folder(run, tmp_path):
    (tmp_path / "large_disk").mkdir()
    (tmp_path / "outputs").symlink_to(tmp_path / "large_disk")
    folder = run("logger=none", folder="outputs/run")
    assert result(run("logger=none", f"ckpt_path={folder}/checkpoints/last.ckpt", folder="outputs/run"))["epochs"] == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.lr=1e12"], "the (train|val) loss is (nan|inf) in epoch 1: lower optimizer.lr"),
        (["seed=-1"], "seed must be 0 to 4294967295, got -1"),
        (["seed=99999999999"], "seed must be 0 to 4294967295, got 99999999999"),
        (["trainer.max_epochs=0"], "trainer.max_epochs must be at least 1, got 0"),
        (["+trainer.fast_dev_run=true"], "trainer.fast_dev_run takes away what a run needs: for a quick trial set"),
        (["trainer.num_sanity_val_steps=2"], "trainer.num_sanity_val_steps takes away what a run needs"),
        (["+trainer.max_steps=3"], "trainer.max_steps would end a run within an epoch, before val: set trainer.max_"),
        (["model=seresnet_s", "preprocess.size=16"], "seresnet_s needs images of at least 17 pixels, got 16"),
        (["model=cnn3", "model.net.batch_norm=no"], "model.net.batch_norm must be true or false or null, got 'no'"),
        (
            ["+callbacks.best_checkpoint.save_top_k=3"],
            "best_checkpoint.save_top_k would keep other epochs than the best",
        ),
        (["model=vgg16", "preprocess.size=24"], "vgg16 needs images of at least 33 pixels, got 24"),
        (["trainer.max_epochs=null"], "trainer.max_epochs must be at least 1, got None"),
        (["model.label_smoothing=2"], "label_smoothing must be 0 to 1, got 2"),
        (["optimizer.lr=-1"], "the optimizer does not accept these settings: Invalid learning rate"),
        (
            ["callbacks.best_checkpoint.monitor=val/f1_macro"],
            "best_checkpoint would keep the epoch of max val/f1_macro, and monitor.metric is val/acc: set monitor",
        ),
        (["monitor.metric=val/typo"], "monitor.metric val/typo is not measured: choose from val/loss, .*val/acc"),
        (
            ["scheduler=plateau", "scheduler.monitor=typo"],
            "scheduler.monitor typo is not measured: choose from val/loss",
        ),
        (["callbacks=early_stopping", "callbacks.early_stopping.monitor=typo"], "early_stopping.monitor typo is not"),
        (["callbacks.pictures.every_n_epochs=0"], "every_n_epochs must be at least 1, got 0"),
        (["trainer=ddp", "callbacks=finetune"], "callbacks=finetune freezes layers, .* train on one device"),
        (["trainer.devices=2", "callbacks=finetune"], "callbacks=finetune .* on trainer.devices=2 .* on one device"),
        (["model=seresnet_s", "model.net.drop_path=1.5"], "drop_path must be 0 to 1, got 1.5"),
        (["callbacks=ema", "callbacks.ema.decay=1"], "callbacks.ema.decay must be from 0 to below 1, got 1"),
        (["~callbacks.epoch_table"], "a run needs callbacks.epoch_table"),
        (["scheduler.pct_start=1"], "scheduler.pct_start is a fraction of all steps, from 0 to below 1, got 1"),
        (["scheduler.max_lr=a"], "scheduler.max_lr must be a number, got 'a'"),
        (["+protocol.bogus=1"], "the protocol does not accept these settings: .*bogus"),
        (["+data.reader.bogus=1"], "the reader does not accept these settings: .*bogus"),
        (["data.num_workers=-1"], "data.num_workers must be at least 0"),
        (
            ["+trainer.limit_val_batches=0"],
            "all of val is measured after each epoch, .*: omit trainer.limit_val_batches",
        ),
        (["+trainer.limit_test_batches=2"], "and all of test once: omit trainer.limit_test_batches"),
        (["+trainer.check_val_every_n_epoch=2"], "all of val is measured after each epoch"),
        (["+trainer.val_check_interval=0.3"], "all of val is measured after each epoch"),
        (["trainer.limit_train_batches=0"], "trainer.limit_train_batches must be above 0, or null for all, got 0"),
        (["trainer.limit_train_batches=0.001"], "the trainer does not accept these settings: .*limit_train_batches"),
        (["trainer.precision=bf16-true"], "trainer.precision must be auto, .*, got bf16-true"),
        (["+trainer.max_time=00:08:00:00"], "trainer.max_time would end a run within an epoch, before val"),
        (
            ["callbacks.last_checkpoint.filename=mine"],
            "callbacks.last_checkpoint must write checkpoints/last.ckpt at the end of .* omit its filename",
        ),
        (["+callbacks.best_checkpoint.save_weights_only=true"], "best.ckpt .* all of it: omit its save_weights_only"),
        (["callbacks.best_checkpoint.save_on_train_epoch_end=false"], "omit its save_on_train_epoch_end"),
        (["callbacks.last_checkpoint.dirpath=elsewhere"], "callbacks.last_checkpoint .* omit its dirpath"),
        (["callbacks.best_checkpoint.enable_version_counter=true"], "omit its enable_version_counter"),
        (["callbacks.epoch_seed.seed=9"], "callbacks.epoch_seed.seed=9 is not the run's seed, 0: set seed alone"),
        (
            ["monitor.metric=val/loss", "monitor.mode=max"],
            "monitor.mode=max would take the worst val/loss for the best",
        ),
        (
            ["scheduler=plateau", "scheduler.monitor=val/loss", "scheduler.mode=max"],
            "scheduler.mode=max would take the worst val/loss",
        ),
        (["scheduler=plateau", "scheduler.factor=1.5"], "scheduler.factor must be between 0 and 1, got 1.5"),
        (["scheduler=cosine", "scheduler.final=-1"], "scheduler.final, .*, must be at least 0, got -1"),
        (["scheduler.max_lr=-0.01"], "scheduler.max_lr, the highest rate, must be above 0, got -0.01"),
        (["trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val must be a number from 0, or null, got -1"),
        (
            ["+trainer.accumulate_grad_batches=0"],
            "trainer.accumulate_grad_batches must be a whole number from 1, got 0",
        ),
        (
            ["trainer=ddp", "trainer.strategy=ddp_spawn"],
            "trainer.strategy=ddp_spawn would leave no results in this pro",
        ),
        (["+callbacks.pictures.faces=0"], "callbacks.pictures.faces must be at least 1, got 0"),
        (["model.crop_margin=20"], "model.crop_margin must be 0 to 2, got 20"),
        (
            ["callbacks=early_stopping", "monitor.metric=null"],
            "early_stopping has nothing to watch: set mon",
        ),
        (["callbacks=finetune"], "callbacks=finetune would freeze random weights: say where to begin with"),
        (["data.reader.val=0", "data.reader.test=0"], "has neither val nor test images"),
        (["data.reader.train=0"], "leaves no training image of class angry, .*: nothing can be trained on this synth"),
        (["protocol=unsplit"], "protocol unsplit leaves no training image of class angry"),
        (["data.seed=-1"], "data.seed must be at least 0, got -1"),
        (["data.reader.seed=-1"], "seed=-1 cannot be drawn from"),
        (["preprocess.scaling=standard", "preprocess.mean=128", "preprocess.std=64"], "pixels from 0 to 1: divide"),
    ],
)
def test_a_setting_that_cannot_work_is_told_in_a_sentence_and_leaves_no_folder(run, tmp_path, overrides, message):
    with pytest.raises((InputError, InstantiationException)) as caught:
        run(*overrides)
    assert re.search(message, explain(caught.value)), explain(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_loss_chooses_its_lowest_epoch(run):
    folder = run("monitor.metric=val/loss", "logger=none", "trainer.max_epochs=3")
    epochs = pd.read_csv(folder / "metrics.csv")
    assert result(folder)["best_epoch"] == epochs["epoch"][epochs["val/loss"].idxmin()]


@pytest.mark.parametrize("watching", ["scheduler=plateau", "callbacks=early_stopping"])
def test_what_watches_a_loss_waits_for_a_lower_one(tmp_path, watching):
    name = watching.partition("=")[2]
    cfg = compose_config(watching, "output_dir=x", "monitor.metric=val/loss")
    assert (cfg.scheduler if name == "plateau" else cfg.callbacks.early_stopping).mode == "min"
    place = "scheduler" if name == "plateau" else f"callbacks.{name}"
    other = compose_config(watching, "output_dir=x", f"{place}.monitor=val/loss")
    assert (other.scheduler if name == "plateau" else other.callbacks.early_stopping).mode == "min"
    assert other.monitor.mode == "max"


def test_fewer_images_than_processes_are_told(tmp_path, write_image, face):
    for name in ("train/calm/0", "train/calm/1", "train/glad/0", "train/glad/1", "val/calm/2"):
        write_image(tmp_path / "mine" / f"{name}.png", face(0))
    places = (f"data.root={tmp_path / 'mine'}", f"data.cache_dir={tmp_path}", f"output_dir={tmp_path}")
    with pytest.raises(InputError, match=r"val has 1 images for 2 processes: lower trainer\.devices to 1"):
        train(compose_config("data=folder", *places, *SMALL[3:], "trainer=ddp", "trainer.accelerator=cpu"))


def test_a_minimised_metric_does_no_harm_without_validation(run):
    folder = run("monitor.metric=val/loss", "protocol=random_80_20", "logger=none")
    assert result(folder)["best_epoch"] == 2


def test_a_run_that_is_still_being_written_is_not_resumed_beside_it(run):
    folder = run("logger=none")
    again = (f"ckpt_path={folder}/checkpoints/last.ckpt", "logger=none")
    before = result(folder)
    with (
        claimed(folder, f"{folder}/checkpoints/last.ckpt"),
        pytest.raises(InputError, match="by another process: wait"),
    ):
        run(*again)
    assert result(folder) == before
    assert not (folder / ".run.lock").exists()


def test_a_resumed_run_keeps_its_result_until_its_settings_are_known_to_work(run):
    folder = run("logger=none")
    before = result(folder)
    with pytest.raises((InputError, InstantiationException)):
        run("logger=none", f"ckpt_path={folder}/checkpoints/last.ckpt", "callbacks.pictures.every_n_epochs=0")
    assert result(folder) == before


def test_a_run_without_schedule_and_augmentation_is_written_whole(run):
    assert result(run("model.scheduler=null", "model.loss=null", "data.augmentation=null"))["metrics"]


def test_a_run_stopped_in_its_first_epoch_is_told_as_unfinished_and_may_be_repeated(run, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr("fer_lightning.runs.training._make_trainer", stop)
        with pytest.raises(SystemExit):
            run("logger=none")
    assert collect([tmp_path]).unreadable == {tmp_path / "run": "is unfinished: it has no result.json"}
    assert result(run("logger=none"))
    assert not collect([tmp_path]).unreadable


def test_a_stopped_command_that_trains_nothing_is_no_unfinished_run(tmp_path):
    with pytest.raises(SystemExit), claimed(tmp_path / "audit"):
        raise SystemExit
    assert not collect([tmp_path]).unreadable


def test_a_claimed_folder_with_a_checkpoint_holds_a_run(tmp_path):
    with claimed(tmp_path / "run"):
        (tmp_path / "run" / "checkpoints").mkdir()
        (tmp_path / "run" / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(InputError, match="already holds a run"), claimed(tmp_path / "run"):
        pass


def test_a_folder_that_holds_a_run_is_not_overwritten(run):
    before = result(run("logger=none"))
    with pytest.raises(InputError, match=r"already holds a run: resume it with ckpt_path=.*last\.ckpt"):
        run("logger=none")
    assert result(Path(before["config"]["output_dir"])) == before


def test_a_run_starts_from_another_runs_weights_and_other_classes_layer(run, finished_run, caplog):
    first = finished_run / "checkpoints" / "best.ckpt"
    caplog.set_level("INFO")
    folder = run(f"model.init_from={first}", "callbacks=finetune", "trainer.max_epochs=1")
    assert f"initialised from {first}, except head.4.bias, head.4.weight" in caplog.text
    started, ended = (torch.load(path, weights_only=True)["state_dict"] for path in (first, last_checkpoint(folder)))
    changed = {name for name in started if not torch.equal(started[name], ended[name])}
    assert changed == {"net.head.4.bias", "net.head.4.weight"}  # two epochs are frozen, and this was one


def test_a_run_that_is_resumed_still_says_what_its_initial_weights_were_trained_on(run, finished_run, tmp_path):
    first = Path(shutil.copy(finished_run / "checkpoints" / "best.ckpt", tmp_path / "first.ckpt"))
    settings, folder = ("logger=none", f"model.init_from={first}"), tmp_path / "run"
    with power_cut(epoch=2), pytest.raises(RuntimeError, match="power cut"):
        run(*settings)
    first.unlink()  # no longer needed
    run(*settings, f"ckpt_path={last_checkpoint(folder)}")
    assert load_checkpoint(last_checkpoint(folder))["epoch"] == 1  # it went on
    trained = load_checkpoint(finished_run / "checkpoints" / "best.ckpt")["hyper_parameters"]["training"]
    ended = load_checkpoint(last_checkpoint(folder))["hyper_parameters"]["training"]
    assert ended["initial_weights"] == trained


def test_a_run_learns_from_another_and_resumes_only_with_the_same_teachers(run, finished_run):
    first = finished_run / "checkpoints" / "best.ckpt"
    settings = (f"model.teachers=[{first}]", "model.teacher_share=0.5", "callbacks=ema", "logger=none")
    last = last_checkpoint(run(*settings, "trainer.max_epochs=1"))
    trained = load_checkpoint(first)["hyper_parameters"]["training"]
    assert load_checkpoint(last)["hyper_parameters"]["training"]["teachers"] == [trained]
    resumed = (*settings, "trainer.max_epochs=1", f"ckpt_path={last}")
    with pytest.raises(InputError, match=r"teacher_share': 0\.5.*teacher_share': 0\.1"):
        run(*resumed, "model.teacher_share=0.1")
    with pytest.raises(InputError, match="was trained with teachers"):
        run(*resumed, "model.teachers=null", "model.teacher_share=0")


@pytest.mark.parametrize(
    ("model", "parameters", "multiply_adds"),
    [("seresnet_s", 2_815_157, 91_671_296), ("efficientnet_b0", 4_015_939, 22_428_752)],
)
def test_a_network_that_is_no_plain_cnn_trains_and_tells_its_cost(run, model, parameters, multiply_adds):
    written = result(run(f"model={model}", "trainer.max_epochs=1", "callbacks.pictures=null"))
    assert written["config"]["model"]["net"]["name"] == model
    assert (written["parameters"], written["multiply_adds"]) == (parameters, multiply_adds)


# From pictures that tell nothing, a network learns the classes' shares, here 1/8 of the rare one; a remedy raises it.
@pytest.mark.parametrize(
    ("setting", "loss", "oversample", "rare"),
    [
        ("loss=cross_entropy", "cross_entropy", 0, 1 / 8),
        ("loss=weighted", "weighted", 0, 1 / 2),
        ("loss=focal", "focal", 0, 0.326),  # where (1 - p)^2 log p + 7 p^2 log(1 - p) is greatest
        ("loss=logit_adjusted", "logit_adjusted", 0, 1 / 2),
        ("data.oversample=1", "cross_entropy", 1, 1 / 2),
    ],
)
def test_a_remedy_for_uneven_classes_makes_the_rare_one_likelier_and_is_on_record(
    tmp_path, write_image, setting, loss, oversample, rare
):
    for place, count in {"train/common": 28, "train/rare": 4, "test/common": 1, "test/rare": 1}.items():
        for number in range(count):
            write_image(tmp_path / "mine" / place / f"{number}.png", np.full((48, 48), 128, np.uint8))
    folders = (f"data.root={tmp_path / 'mine'}", f"data.cache_dir={tmp_path}", f"output_dir={tmp_path}")
    small = ("model=cnn3", "model.net.batch_norm=false", "model.net.dropout=0", "preprocess.size=16")
    learning = ("optimizer.lr=0.01", "scheduler=none", "augmentation=none", "trainer.max_epochs=40", "logger=none")
    train(compose_config("data=folder", *folders, *SMALL[3:], *small, *learning, setting))
    training = torch.load(last_checkpoint(tmp_path), weights_only=True)["hyper_parameters"]["training"]
    assert training["loss"]["name"] == f"fer_lightning.losses.{loss}"
    assert training["oversample"] == oversample
    assert pd.read_csv(tmp_path / "predictions.csv")["p_rare"].to_numpy() == pytest.approx(rare, abs=0.1)


@pytest.mark.parametrize("preprocess", ["gaussian", "laplacian", "moodscope", "clahe"])
def test_a_filter_travels_with_the_checkpoint(run, preprocess):
    folder = run(f"preprocess={preprocess}", "preprocess.scaling=standard", "logger=none")
    settings = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["hyper_parameters"]["preprocess"]
    assert (settings["clahe"], settings["gaussian_kernel"], settings["laplacian"]) == {
        "gaussian": (None, 3, False),
        "laplacian": (None, None, True),
        "moodscope": (None, 3, True),
        "clahe": (2.0, None, False),
    }[preprocess]
    assert 0 < settings["std"] < 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_network_learns_the_same_and_keeps_its_names(run):
    # Compiled, dropout draws other numbers.
    settings = ("model=cnn3", "model.net.dropout=0", "optimizer=sgd", "optimizer.lr=1e-3")
    plain, compiled = (run(*settings, f"trainer.compile={on}", folder=on) for on in ("false", "true"))
    states = [torch.load(last_checkpoint(folder), weights_only=True)["state_dict"] for folder in (plain, compiled)]
    assert states[0].keys() == states[1].keys()
    for name in states[0]:
        torch.testing.assert_close(states[1][name], states[0][name], rtol=1e-3, atol=1e-4)


def test_a_network_is_compiled_where_that_is_asked_for(run, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **_: compiled.append(type(module).__name__))
    folder = run("logger=none")
    run("trainer.compile=true", "logger=none", folder="compiled")
    assert compiled == ["CNN"]
    teacher = ("model.teacher_share=0.5", f"model.teachers=[{folder / 'checkpoints' / 'best.ckpt'}]")
    run("trainer.compile=true", *teacher, "logger=none", folder="taught")
    assert compiled == ["CNN", "CNN", "CNN"]


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that CUDA can use")


@needs_gpu
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # a fork, on Python >= 3.12
def test_a_gpu_trains_in_the_precision_that_suits_it(run):
    folder = run("trainer.accelerator=gpu", "trainer.precision=auto", "data.num_workers=1", "logger=none")
    written = result(folder)
    assert written["hardware"]["gpus"]
    native = torch.cuda.get_device_capability() >= (8, 0)
    assert written["hardware"]["precision"] == ("bf16-mixed" if native else "32-true")


@needs_gpu
def test_a_gpu_trains_with_all_that_a_long_recipe_has_and_goes_on_after_a_power_cut(run):
    on_gpu = ("trainer.accelerator=gpu", "trainer.precision=auto")
    teacher = run(*on_gpu, folder="teacher") / "checkpoints" / "best.ckpt"
    recipe = (
        "augmentation=batch",
        "optimizer=muon",
        "callbacks=ema",
        "model.mixup=0.2",
        "model.decay_weights_only=true",
    )
    taught = (f"model.teachers=[{teacher}]", "model.teacher_share=0.5")
    with pytest.raises(RuntimeError, match="power cut"), power_cut(epoch=2):
        run(*on_gpu, *recipe, *taught)
    last = last_checkpoint(teacher.parents[2] / "run")
    assert result(run(*on_gpu, *recipe, *taught, f"ckpt_path={last}"))["epochs"] == 2


def test_training_on_the_cpu_beside_a_gpu_warns_of_nothing(run, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.trainer.setup.CUDAAccelerator.is_available", lambda: True)
    assert result(run("logger=none"))["metrics"]


def test_a_training_that_fails_ends_its_other_processes(tmp_path):
    def fail(*_, **__):
        raise RuntimeError("CUDA error: unspecified launch failure")

    killed = []
    strategy = SimpleNamespace(launcher=SimpleNamespace(kill=killed.append))
    with pytest.raises(RuntimeError, match="launch failure"):
        training._fit(SimpleNamespace(fit=fail, strategy=strategy), None, None, None, tmp_path)
    assert killed == [signal.SIGKILL]


def test_a_mistake_takes_back_what_the_run_put_in_its_folder_and_nothing_else(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"a photo")
    for folder in ("mine", "new"):
        with pytest.raises((InputError, InstantiationException)):
            run("model.net.kernel_size=7", folder=folder)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["photo.jpg"]
    assert not (tmp_path / "new").exists()
