"""Measuring a trained model on its own dataset and on others."""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fer_lightning.config import compose_config
from fer_lightning.errors import InputError
from fer_lightning.evaluate import ClassesInCommon, evaluate

# Of `finished_run`, whose model is measured here.
SYNTHETIC = ("data=synthetic", "data.reader.train=140", "data.reader.val=35", "data.reader.test=35")


@pytest.fixture
def run(tmp_path, finished_run):
    """run(*overrides): measure and return what was written."""

    def run_in(*overrides: str, model: Path = finished_run) -> dict:
        places = (f"data.cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path / 'evaluation'}")
        evaluate(compose_config(f"ckpt_path={model}", *places, *overrides, command="evaluate"))
        return json.loads((tmp_path / "evaluation" / "result.json").read_text())

    return run_in


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_model_on_its_own_splits_has_its_own_scores(run, finished_run, split, caplog):
    measured, trained = run(*SYNTHETIC, f"split={split}")["metrics"], result(finished_run)["metrics"]
    assert measured[f"{split}/acc"] == pytest.approx(trained[f"{split}/acc"], abs=0.03)  # it was bfloat16 there
    assert measured[f"{split}/loss"] == pytest.approx(trained[f"{split}/loss"], abs=0.02)
    assert "another split" not in caplog.text


def test_an_onnx_file_measures_as_its_checkpoint(run, finished_run, onnx_model, tmp_path):
    of_checkpoint = run(*SYNTHETIC, model=finished_run / "checkpoints" / "best.ckpt")
    (tmp_path / "evaluation").rename(tmp_path / "first")
    of_onnx = run(*SYNTHETIC, model=onnx_model)
    assert of_onnx["metrics"] == pytest.approx(of_checkpoint["metrics"], abs=1e-4)


def test_another_dataset_is_asked_for_the_classes_in_common(run, ckplus_tree, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    written = run("data=ckplus", f"data.root={ckplus_tree}", "protocol=random_80_20", "split=all")
    assert written["class_names"] == ["angry", "disgust", "fear", "happy", "sad", "surprise"]
    assert (written["images"], written["images_of_other_classes"]) == (72, 12)
    assert "the model also knows neutral, which the dataset does not" in caplog.text
    assert "left out: 12 images of contempt, which the model does not know" in caplog.text
    table = pd.read_csv(tmp_path / "evaluation" / "predictions.csv")
    assert set(table.target) == set(written["class_names"])
    assert "p_neutral" not in table
    np.testing.assert_allclose(table.filter(like="p_").sum(axis=1), 1, atol=1e-4)
    assert written["metrics"]["test/acc_all_classes"] <= written["metrics"]["test/acc"]
    assert (table.target == table.prediction).mean() == pytest.approx(written["metrics"]["test/acc"])


def test_classes_match_by_name_whatever_their_order_and_spelling():
    asked = ClassesInCommon.of(("happy", "sad", "neutral"), ("Anger", "Sadness", "Happiness"))
    assert asked == ClassesInCommon(names=("happy", "sad"), ours=[0, 1], theirs=[2, 1])
    assert asked.target_of(np.array([2, 1, 1])).tolist() == [0, 1, 1]


def test_fewer_than_two_classes_in_common_are_nothing_to_measure():
    with pytest.raises(InputError, match="fewer than two classes in common"):
        ClassesInCommon.of(("happy", "sad"), ("cat", "dog", "happy"))


def test_images_with_a_twin_in_train_are_left_out_where_an_audit_lists_them(run, tmp_path):
    (tmp_path / "audit").mkdir()
    names = [f"val/{i}" for i in range(35)]
    plain = run(*SYNTHETIC, "split=val")
    table = pd.read_csv(tmp_path / "evaluation" / "predictions.csv")
    (tmp_path / "evaluation").rename(tmp_path / "plain")
    names = table.image.tolist()
    flags = {"exact_in_train": [True] * 5 + [False] * 5, "near_in_train": True}
    pd.DataFrame({"image": names[:10], "split": "val"} | flags).to_csv(tmp_path / "audit" / "flagged.csv", index=False)
    written = run(*SYNTHETIC, "split=val", f"audit={tmp_path / 'audit'}")
    assert written["metrics"] == plain["metrics"]
    right = table.target == table.prediction
    for kind, left in (("exact", 5), ("near", 10)):
        part = written["without_twins_in_train"][kind]
        assert part["images"] == 35 - left
        assert part["metrics"]["val/acc"] == pytest.approx(right[left:].mean())


def test_another_split_of_the_training_data_is_warned_of(run, caplog):
    run("data=synthetic", "data.reader.train=140", "data.reader.val=35", "data.reader.test=35", "data.reader.seed=5")
    assert "the model was trained on another split of synthetic" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["split=train"], "split must be val, test, all, or null, got 'train'"),
        (["split=all"], "the model was trained on a part of synthetic: evaluate it on split=test"),
        (["audit=nowhere"], r"there is no nowhere.flagged\.csv: make it with python -m fer_lightning.audit"),
        (["ckpt_path=nowhere.ckpt"], "there is no model file at .*nowhere.ckpt"),
        (["+bogus=1"], "there is no bogus in the configuration"),
    ],
)
def test_a_mistake_is_told_and_leaves_no_folder(run, tmp_path, overrides, message):
    with pytest.raises(InputError, match=message):
        run(*SYNTHETIC, *overrides)
    assert not (tmp_path / "evaluation").exists()
