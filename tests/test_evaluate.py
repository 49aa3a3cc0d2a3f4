"""Measuring a trained model on its own dataset and on others."""

import json
import logging
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from fer_lightning.config import compose_config
from fer_lightning.errors import InputError
from fer_lightning.evaluate import evaluate
from fer_lightning.evaluation.measurement import ClassesInCommon
from fer_lightning.export import export
from fer_lightning.inference.backends import load_backend

# Of `finished_run`, whose model is measured here.
SYNTHETIC = ("data=synthetic", "data.reader.train=140", "data.reader.val=35", "data.reader.test=35")


# What takes long is asked for by the tests that look at it.
QUICK = ("evaluate.robustness=0", "evaluate.attribution=0", "evaluate.resamples=20")


@pytest.fixture
def run(tmp_path, finished_run):
    """run(*overrides): measure and return what was written."""

    def run_in(*overrides: str, model: Path | str = finished_run) -> dict:
        places = (f"data.cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path / 'evaluation'}")
        evaluate(compose_config(f"ckpt_path={model}", *places, *QUICK, *overrides, command="evaluate"))
        written = tmp_path / "evaluation" / "result.json"
        return json.loads(written.read_text()) if written.exists() else {}

    return run_in


@pytest.fixture
def report(run, tmp_path):
    """report(*overrides): measure and return what report.json says."""

    def report_of(*overrides: str, **places: Path | str) -> dict:
        run(*overrides, **places)
        return json.loads((tmp_path / "evaluation" / "report" / "report.json").read_text())

    return report_of


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_model_on_its_own_splits_has_its_own_scores(run, finished_run, split):
    measured, trained = run(*SYNTHETIC, f"split={split}")["metrics"], result(finished_run)["metrics"]
    assert measured[f"{split}/acc"] == pytest.approx(trained[f"{split}/acc"], abs=0.03)  # it was bfloat16 there
    assert measured[f"{split}/loss"] == pytest.approx(trained[f"{split}/loss"], abs=0.02)


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
    report = json.loads((tmp_path / "evaluation" / "report" / "report.json").read_text())
    assert report["scores"]["acc_all_classes"] <= written["metrics"]["test/acc"]
    assert (table.target == table.prediction).mean() == pytest.approx(written["metrics"]["test/acc"])


def test_classes_match_by_name_whatever_their_order_and_spelling():
    asked = ClassesInCommon.of(("happy", "sad", "neutral"), ("Anger", "Sadness", "Happiness"))
    assert asked == ClassesInCommon(names=("happy", "sad"), ours=[0, 1], theirs=[2, 1])
    assert asked.target_of(np.array([2, 1, 1])).tolist() == [0, 1, 1]


def test_fewer_than_two_classes_in_common_are_nothing_to_measure():
    with pytest.raises(InputError, match="fewer than two classes in common"):
        ClassesInCommon.of(("happy", "sad"), ("cat", "dog", "happy"))


def test_images_with_a_twin_in_train_are_left_out_where_an_audit_lists_them(report, tmp_path):
    (tmp_path / "audit").mkdir()
    plain = report(*SYNTHETIC, "split=val")
    assert "twins" not in plain
    table = pd.read_csv(tmp_path / "evaluation" / "predictions.csv")
    (tmp_path / "evaluation").rename(tmp_path / "plain")
    flags = {"exact_in_train": [True] * 5 + [False] * 5, "near_in_train": True}
    listed = pd.DataFrame({"image": table.image[:10], "split": "val"} | flags)
    listed.to_csv(tmp_path / "audit" / "flagged.csv", index=False)
    twins = report(*SYNTHETIC, "split=val", f"audit={tmp_path / 'audit'}")["twins"]
    right = table.target == table.prediction
    for kind, left in (("exact", 5), ("near", 10)):
        part = twins[f"no {kind} twin in train, by the audit"]
        assert part["images"] == 35 - left
        assert part["acc"]["value"] == pytest.approx(right[left:].mean())


def test_exact_twins_in_train_are_found_without_an_audit(report, tmp_path, ckplus_tree):
    source, copy = sorted((ckplus_tree / "CK+48" / "happy").glob("S005*")), "S999_009_00000001.png"
    (ckplus_tree / "CK+48" / "happy" / copy).write_bytes(source[0].read_bytes())
    overrides = ("data=ckplus", f"data.root={ckplus_tree}", "protocol=random_80_20")
    written = report(*overrides)
    twins = written.get("twins")
    expected = json.loads((tmp_path / "evaluation" / "result.json").read_text())["data"]["duplicates"]["test"]
    assert (twins is None) == (expected == 0)
    if twins:
        assert twins["all"]["images"] - twins["no exact twin in train"]["images"] == expected


class TestWhatWasTrainedOn:
    def test_another_split_of_the_training_data_is_refused(self, run):
        with pytest.raises(
            InputError, match=r"trained on another split of synthetic .*or say evaluate.allow_seen=true"
        ):
            run(*SYNTHETIC, "data.reader.seed=5")

    def test_the_training_split_is_refused(self, run):
        with pytest.raises(InputError, match=r"trained on this very split of synthetic: evaluate it on split=test"):
            run(*SYNTHETIC, "split=train")

    def test_both_are_measured_where_it_is_asked_for(self, run, tmp_path):
        assert "train/acc" in run(*SYNTHETIC, "split=train", "evaluate.allow_seen=true")["metrics"]
        page = (tmp_path / "evaluation" / "report" / "index.html").read_text()
        assert "images that the model was trained on" in page


class TestReport:
    def test_everything_is_there_and_no_picture_is_empty(self, report, tmp_path):
        written = report(
            *SYNTHETIC, "evaluate.robustness=20", "evaluate.attribution=4", "evaluate.tta=flip", "evaluate.resamples=50"
        )
        folder = tmp_path / "evaluation" / "report"
        keys = {"scores", "classes", "faces", "calibration", "averaging", "robustness", "cost", "learning"}
        assert keys <= written.keys()
        pictures = {path.stem for path in folder.glob("*.png")}
        assert pictures == {
            *("classes", "confusion_matrix", "curves", "samples", "worst_mistakes", "least_certain"),
            *("suspicious_labels", "reliability", "robustness", "attribution", "learning_curves"),
        }
        for path in folder.glob("*.png"):
            assert cv2.imread(str(path)).std() > 5, path
        tables = {path.stem for path in folder.glob("*.csv")}
        assert {"scores", "classes", "calibration", "abstaining", "averaging", "robustness", "latency"} <= tables
        page = (folder / "index.html").read_text()
        assert page.count("<img") == len(pictures)
        assert "not a feeling" in (folder / "model_card.md").read_text()

    def test_its_numbers_are_those_of_the_predictions_beside_it(self, report, tmp_path):
        written = report(*SYNTHETIC, "split=val")
        table = pd.read_csv(tmp_path / "evaluation" / "predictions.csv")
        assert written["scores"]["by_image"]["acc"]["value"] == pytest.approx((table.target == table.prediction).mean())
        happy = table[table.target == "happy"]
        assert written["classes"]["happy"]["support"] == len(happy)
        assert written["classes"]["happy"]["recall"]["value"] == pytest.approx((happy.prediction == "happy").mean())

    def test_frames_of_a_recording_answer_together(self, report, ckplus_tree):
        written = report("data=ckplus", f"data.root={ckplus_tree}", "protocol=random_80_20", "split=all")
        assert written["scores"]["images"] == 72
        assert set(written["scores"]) >= {"by_image", "by_sequence"}

    def test_val_says_that_it_chose_the_epoch(self, run, tmp_path):
        run(*SYNTHETIC, "split=val")
        assert "The epoch was chosen on these images" in (tmp_path / "evaluation" / "report" / "index.html").read_text()

    def test_scores_by_the_users_groups(self, report, tmp_path):
        run_names = [f"test/{i}" for i in range(35)]
        report(*SYNTHETIC)
        run_names = pd.read_csv(tmp_path / "evaluation" / "predictions.csv").image
        (tmp_path / "evaluation").rename(tmp_path / "first")
        groups = pd.DataFrame({"image": run_names, "glasses": ["yes", "no"] * 17 + ["yes"]})
        groups.to_csv(tmp_path / "groups.csv", index=False)
        part = report(*SYNTHETIC, f"data.groups={tmp_path / 'groups.csv'}")["groups_glasses"]
        assert {name: of["images"] for name, of in part["groups"].items()} == {"no": 17, "yes": 18}
        assert part["gaps"] == {}
        groups[5:].to_csv(tmp_path / "groups.csv", index=False)
        (tmp_path / "evaluation").rename(tmp_path / "second")
        with pytest.raises(InputError, match=r"groups\.csv lacks 5 of 35 images, the first .*: give each a row"):
            report(*SYNTHETIC, f"data.groups={tmp_path / 'groups.csv'}")


class TestCalibration:
    @pytest.fixture
    def checkpoint(self, finished_run, tmp_path) -> Path:
        """A copy that may be changed."""
        shutil.copytree(finished_run, tmp_path / "run")
        return tmp_path / "run" / "checkpoints" / "best.ckpt"

    def test_the_temperature_lowers_vals_loss_and_is_stored_and_exported_when_asked_for(self, report, checkpoint):
        before = report(*SYNTHETIC, "split=val", model=checkpoint)["calibration"]
        assert load_backend(checkpoint).card.temperature == 1.0
        raw, fitted = before["rows"]
        assert fitted["log_loss"] < raw["log_loss"]
        shutil.rmtree(checkpoint.parents[2] / "evaluation")
        report(*SYNTHETIC, "split=val", "evaluate.calibrate=true", model=checkpoint)
        assert load_backend(checkpoint).card.temperature == pytest.approx(before["temperature"])
        shutil.rmtree(checkpoint.parents[2] / "evaluation")
        after = report(*SYNTHETIC, "split=val", model=checkpoint)
        assert after["scores"]["by_image"]["log_loss"]["value"] == pytest.approx(fitted["log_loss"], abs=1e-4)
        export(checkpoint, checkpoint.parent / "model.onnx", "float32")
        assert load_backend(checkpoint.parent / "model.onnx").card.temperature == pytest.approx(before["temperature"])

    def test_nothing_is_fitted_on_images_that_did_not_choose_the_model(self, report, ckplus_tree, tmp_path):
        overrides = ("data=ckplus", f"data.root={ckplus_tree}", "protocol=random_80_20", "split=all")
        assert report(*overrides)["calibration"]["temperature"] is None
        page = (tmp_path / "evaluation" / "report" / "index.html").read_text()
        assert "No temperature is fitted: this protocol has no val split" in page

    def test_an_onnx_file_is_not_written_to(self, run, onnx_model):
        with pytest.raises(InputError, match="stores a temperature in a checkpoint"):
            run(*SYNTHETIC, "evaluate.calibrate=true", model=onnx_model)


def test_several_models_stand_side_by_side(report, finished_run, onnx_model, tmp_path):
    written = report(*SYNTHETIC, model=f"[{finished_run / 'checkpoints' / 'best.ckpt'},{onnx_model}]")
    assert [name for name in written if name not in ("schema_version", "title", "models")] == [
        "comparison",
        "differences",
    ]
    [behind] = written["differences"].values()
    assert behind["value"] == pytest.approx(0, abs=0.03)
    for folder in ("1_run", "2_run_model.onnx"):
        assert (tmp_path / "evaluation" / folder / "report" / "index.html").is_file()
        assert result(tmp_path / "evaluation" / folder)["images"] == 35


def test_answers_that_are_no_numbers_are_counted_and_named(run, finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["net.head.1.weight"][:] = float("nan")
    torch.save(checkpoint, path)
    with pytest.raises(InputError, match=r"run gives no number \(NaN or infinity\) for 35 of 35 images, the first "):
        run(*SYNTHETIC, model=path)
    assert not (tmp_path / "evaluation").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["split=tests"], "split must be train, val, test, all, or null, got 'tests'"),
        (["evaluate.tta=flop"], "evaluate.tta must be none, flip, flip_shift, got 'flop'"),
        (["evaluate.resamples=-1"], "evaluate.resamples must be at least 0, got -1"),
        (["data.groups=nowhere.csv"], "data.groups=nowhere.csv cannot be read as csv"),
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
