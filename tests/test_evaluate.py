"""Measuring a trained model on its own dataset and on others."""

import json
import logging
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from fer_lightning.checkpoint import load_checkpoint
from fer_lightning.data.fingerprint import NO_IMAGES
from fer_lightning.errors import InputError
from fer_lightning.evaluate import evaluate
from fer_lightning.evaluation import cost, sections
from fer_lightning.evaluation.comparison import comparison_sections
from fer_lightning.evaluation.measurement import ClassesInCommon, Measurement, logits_of
from fer_lightning.evaluation.scores import OVERALL, Score, Scores, scores_with_intervals
from fer_lightning.evaluation.twins import read_audit
from fer_lightning.export import export
from fer_lightning.inference.backends import load_backend
from fer_lightning.inference.predictor import Predictor
from fer_lightning.machine.hardware import describe_hardware
from fer_lightning.preprocess import Preprocess
from fer_lightning.runs import training as train_module
from fer_lightning.settings.config import compose_config, instantiate
from fer_lightning.text import html_page
from fer_lightning.weights.bundled import NAME

# Of `finished_run`, whose model is measured here.
SYNTHETIC = ("data=synthetic", "data.reader.train=140", "data.reader.val=35", "data.reader.test=35")


# What takes long is asked for by the tests that look at it.
QUICK = ("evaluate.robustness=0", "evaluate.attribution=0", "evaluate.resamples=20")


draw = html_page.png


@pytest.fixture(autouse=True)
def five_repetitions_and_no_pictures(monkeypatch):
    monkeypatch.setattr(cost, "SECONDS", 0.0)
    monkeypatch.setattr(html_page, "png", lambda figure: plt.close(figure) or b"")


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
    costs = [
        json.loads((tmp_path / name / "report" / "report.json").read_text())["cost"] for name in ("first", "evaluation")
    ]
    assert costs[0]["parameters"] == costs[1]["parameters"] == 2_489_095
    assert of_onnx["metrics"] == pytest.approx(of_checkpoint["metrics"], abs=1e-4)


def test_what_runs_on_the_processor_asks_for_no_gpu(run, onnx_model, old_driver):
    assert run(*SYNTHETIC, model=onnx_model)["hardware"]["gpus"] == []


def test_prediction_reads_a_crop_as_the_evaluation_does(run, finished_run, tmp_path):
    run(*SYNTHETIC)
    measured = pd.read_csv(tmp_path / "evaluation" / "predictions.csv").set_index("image")
    index = instantiate(compose_config(*SYNTHETIC, f"data.cache_dir={tmp_path / 'cache'}").data).index
    predictor = Predictor(finished_run, detector="none", device="cpu")
    crop = tmp_path / "crop.png"
    for name in measured.index:
        cv2.imwrite(str(crop), index.read(index.names.index(name)))
        [face] = predictor.predict(crop)
        assert face.emotion == measured.loc[name].prediction
        expected = {f"p_{key}": pytest.approx(value, abs=1e-4) for key, value in face.probabilities.items()}
        assert measured.loc[name].filter(like="p_").to_dict() == expected


def test_another_dataset_is_asked_for_the_classes_in_common(run, ckplus_tree, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    written = run("data=ckplus", f"data.root={ckplus_tree}", "protocol=random_80_20", "split=all")
    assert written["class_names"] == ["angry", "disgust", "fear", "happy", "sad", "surprise"]
    assert (written["images"], written["images_of_other_classes"]) == (72, 12)
    assert "classes of the model that the dataset lacks are ignored: neutral" in caplog.text
    assert "left out: 12 images of contempt, which the model does not have" in caplog.text
    table = pd.read_csv(tmp_path / "evaluation" / "predictions.csv")
    assert set(table.target) == set(written["class_names"])
    assert "p_neutral" not in table
    np.testing.assert_allclose(table.filter(like="p_").sum(axis=1), 1, atol=1e-4)
    report = json.loads((tmp_path / "evaluation" / "report" / "report.json").read_text())
    assert report["scores"]["acc_all_classes"] <= written["metrics"]["test/acc"]
    assert (table.target == table.prediction).mean() == pytest.approx(written["metrics"]["test/acc"])


def test_a_few_faces_of_ones_own_are_measured_without_a_split(run, face, write_image, tmp_path):
    for label, name in enumerate(("Happy", "sadness", "wink")):
        for number in range(2):
            write_image(tmp_path / "mine" / name / f"{number}.png", face(label, number))
    written = run("data=folder", f"data.root={tmp_path / 'mine'}", "protocol=unsplit")
    assert (written["images"], written["images_of_other_classes"]) == (4, 2)
    (tmp_path / "evaluation").rename(tmp_path / "first")
    bundled = run("data=folder", f"data.root={tmp_path / 'mine'}", "protocol=unsplit", model="null")
    assert Path(bundled["model"]["path"]).name == f"{NAME}.onnx"


def test_without_a_test_split_val_is_measured_and_the_title_says_so(run, tmp_path):
    written = run(*SYNTHETIC, "data.reader.test=0", "evaluate.allow_seen=true")
    assert "val/acc" in written["metrics"]
    assert "val (there is no test split)" in (tmp_path / "evaluation" / "report" / "index.html").read_text()


def test_a_changed_image_is_what_the_model_answers():
    faces = np.arange(3 * 48 * 48).reshape(3, 48, 48) % 200
    datamodule = SimpleNamespace(faces=lambda i: faces[i].astype(np.uint8), batch_size=2, preprocess=Preprocess())
    backend = SimpleNamespace(logits=lambda images: images.mean(axis=(2, 3)))
    brighter = logits_of(backend, datamodule, np.arange(3), change=lambda images: images + 51)
    np.testing.assert_allclose(brighter, logits_of(backend, datamodule, np.arange(3)) + 0.2, atol=1e-6)


def test_classes_match_by_name_whatever_their_order_and_spelling():
    asked = ClassesInCommon.of(("happy", "sad", "neutral"), ("Anger", "Sadness", "Happiness"))
    assert asked == ClassesInCommon(names=("happy", "sad"), in_model=[0, 1], in_dataset=[2, 1])
    assert asked.target_of(np.array([2, 1, 1])).tolist() == [0, 1, 1]
    accents = ClassesInCommon.of(("joie", "col\u00e8re"), ("cole\u0300re", "joie"))
    assert accents.in_dataset == [1, 0]


def test_classes_of_the_same_standard_spelling_stay_apart():
    names = ("anger", "angry", "sad")
    assert ClassesInCommon.of(names, names).in_dataset == [0, 1, 2]
    assert ClassesInCommon.of(names, ("Angry", "sad")).in_model == [0, 2]
    assert ClassesInCommon.of(names, ("angry", "sad")).in_model == [1, 2]


def test_a_table_of_another_program_beside_a_model_is_no_learning_curve(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,train_loss\n0,9,1.2\n")
    assert sections.learning_section(tmp_path) is None


def test_fewer_than_two_classes_in_common_are_nothing_to_measure():
    with pytest.raises(InputError, match="fewer than two classes in common"):
        ClassesInCommon.of(("happy", "sad"), ("cat", "dog", "happy"))


def test_images_with_a_twin_in_train_are_left_out_where_an_audit_lists_them(report, tmp_path):
    (tmp_path / "audit").mkdir()
    plain = report(*SYNTHETIC, "split=val")
    assert plain["twins"]["no exact twin in train"] == plain["twins"]["all"]
    table = pd.read_csv(tmp_path / "evaluation" / "predictions.csv")
    (tmp_path / "evaluation").rename(tmp_path / "plain")
    flags = {"exact_in_train": [True] * 5 + [False] * 5, "near_in_train": True}
    listed = pd.DataFrame({"image": table.image[:10], "split": "val"} | flags)
    listed.to_csv(tmp_path / "audit" / "flagged.csv", index=False)
    splits = {stage: of_split["sha256"] for stage, of_split in plain["data"]["splits"].items()}
    about = {"dataset": "synthetic", "protocol": "official", "splits": splits}
    (tmp_path / "audit" / "report.json").write_text(json.dumps(about))
    twins = report(*SYNTHETIC, "split=val", f"audit={tmp_path / 'audit'}")["twins"]
    right = table.target == table.prediction
    for kind, left in (("exact", 5), ("near", 10)):
        part = twins[f"no {kind} twin in train, by the audit"]
        assert part["images"] == 35 - left
        assert part["acc"]["value"] == pytest.approx(right[left:].mean())


@pytest.mark.parametrize("other", ["train", "test"])
def test_an_audit_of_another_split_is_refused(tmp_path, other):
    (tmp_path / "flagged.csv").write_text("image,split,exact_in_train,near_in_train\n")  # a test that it never saw
    audited = {"train": "some", "test": "others"} | {other: "yet others"}
    about = {"dataset": "synthetic", "protocol": "random_80_20", "splits": audited}
    (tmp_path / "report.json").write_text(json.dumps(about))
    datamodule = SimpleNamespace(
        index=SimpleNamespace(names=["a", "b"]),
        split={"test": [1]},
        fingerprint={"splits": {"train": {"sha256": "some"}, "test": {"sha256": "others"}}},
    )
    with pytest.raises(
        InputError, match=r"flagged\.csv covers another split or other images \(synthetic, random_80_20\)"
    ):
        read_audit(str(tmp_path), datamodule, "test")


def test_exact_twins_in_train_are_found_without_an_audit(report, tmp_path, fer2013_tree):
    for number, path in enumerate(sorted((fer2013_tree / "test").rglob("*.jpg"))):
        path.write_bytes(cv2.imencode(".jpg", np.full((48, 48), 9 * number, np.uint8))[1].tobytes())
    for label, copied in (("happy", "PrivateTest_3000"), ("sad", "PrivateTest_4001")):
        twin = sorted((fer2013_tree / "train" / label).iterdir())[0]
        (fer2013_tree / "test" / label / f"{copied}.jpg").write_bytes(twin.read_bytes())
    data = ("data=fer2013", f"data.root={fer2013_tree}", f"data.cache_dir={tmp_path / 'cache'}")
    train_run = ("trainer.max_epochs=1", "trainer.accelerator=cpu", "data.num_workers=0", "logger=none")
    train_module.train(compose_config(*data, *train_run, "model=cnn3", f"output_dir={tmp_path / 'run'}"))
    twins = report(*data[:2], model=tmp_path / "run")["twins"]
    assert [part["images"] for part in twins.values()] == [14, 12]
    card = (tmp_path / "evaluation" / "report" / "model_card.md").read_text()
    assert "| no exact twin in train | 12 |" in card


class TestWhatWasTrainedOn:
    def test_another_split_of_the_training_data_is_refused(self, run):
        protocol = r"\(official, protocol.seed=0, protocol.val_percent=0\)"
        with pytest.raises(
            InputError, match=rf"trained on another split of synthetic {protocol}.*or set evaluate.allow_seen=true"
        ):
            run(*SYNTHETIC, "data.reader.seed=5")

    def test_a_split_that_may_hold_images_which_chose_the_epoch_is_refused(self, run, finished_run, tmp_path):
        checkpoint = load_checkpoint(finished_run / "checkpoints" / "best.ckpt")
        splits = checkpoint["hyper_parameters"]["training"]["splits"]
        splits["val"] = "images that are in this protocol's test"
        torch.save(checkpoint, tmp_path / "model.ckpt")
        with pytest.raises(InputError, match=r"chosen on another val split of synthetic .*allow_seen=true"):
            run(*SYNTHETIC, model=tmp_path / "model.ckpt")
        splits["val"] = NO_IMAGES
        torch.save(checkpoint, tmp_path / "model.ckpt")
        assert run(*SYNTHETIC, model=tmp_path / "model.ckpt")["seen"] is None

    def test_a_split_that_the_model_held_out_is_measured_whatever_part_of_the_others_it_was_trained_on(self, run):
        for split in ("train", "all"):
            with pytest.raises(InputError, match="trained on another split of synthetic"):
                run(*SYNTHETIC, "protocol.train_percent=50", f"split={split}")
        result = run(*SYNTHETIC, "protocol.train_percent=50", "split=val")
        assert (result["seen"], "The epoch was chosen on these images" in result["note"]) == (None, True)

    def test_where_no_metric_chose_the_last_epoch_none_is_said_to_have_been_chosen(self, run, finished_run, tmp_path):
        checkpoint = load_checkpoint(finished_run / "checkpoints" / "best.ckpt")
        checkpoint["hyper_parameters"]["training"]["monitor"] = None
        torch.save(checkpoint, tmp_path / "model.ckpt")
        result = run(*SYNTHETIC, "split=val", model=tmp_path / "model.ckpt")
        assert (result["seen"], result["chosen"]) == (None, False)
        assert "The model was neither trained nor chosen on these images" in result["note"]

    def test_a_temperature_that_was_fitted_on_the_images_is_told_whatever_part_it_was_trained_on(
        self, run, finished_run, tmp_path
    ):
        checkpoint = load_checkpoint(finished_run / "checkpoints" / "best.ckpt")
        checkpoint["hyper_parameters"]["temperature"] = 2.0
        torch.save(checkpoint, tmp_path / "model.ckpt")
        result = run(*SYNTHETIC, "protocol.train_percent=50", "split=val", model=tmp_path / "model.ckpt")
        assert result["note"].endswith("The temperature was fitted on them too.")

    def test_images_that_chose_the_epoch_of_the_initial_weights_are_told(self, run, finished_run, tmp_path):
        checkpoint = load_checkpoint(finished_run / "checkpoints" / "best.ckpt")
        first = checkpoint["hyper_parameters"]["training"]
        later = {"dataset": "ckplus", "splits": {"train": "other images", "val": "more"}, "initial_weights": first}
        checkpoint["hyper_parameters"]["training"] = later
        torch.save(checkpoint, tmp_path / "finetuned.ckpt")
        result = run(*SYNTHETIC, "split=val", model=tmp_path / "finetuned.ckpt")
        assert (result["seen"], result["chosen"]) == (None, True)
        assert "An epoch of the model's initial weights or teachers was chosen on these images" in result["note"]

    def test_the_training_split_is_refused(self, run):
        with pytest.raises(InputError, match=r"trained on this very split of synthetic: evaluate it on split=test"):
            run(*SYNTHETIC, "split=train")

    @pytest.mark.parametrize(
        ("name", "words"),
        [("initial_weights", "It began with weights of"), ("teachers", "It learned from the answers of a network of")],
    )
    def test_what_the_initial_weights_or_teachers_were_trained_on_is_refused_too(
        self, run, finished_run, tmp_path, name, words
    ):
        checkpoint = load_checkpoint(finished_run / "checkpoints" / "best.ckpt")
        first = checkpoint["hyper_parameters"]["training"]
        later = {"dataset": "ckplus", "protocol": "subject_kfold", "splits": {"train": "other images"}}
        checkpoint["hyper_parameters"]["training"] = later | {name: [first] if name == "teachers" else first}
        model = tmp_path / "finetuned.ckpt"
        torch.save(checkpoint, model)
        whose = "a network that the model began with or learned from"
        with pytest.raises(InputError, match=rf"{whose} was trained on this very split of synthetic: use a split or"):
            run(*SYNTHETIC, "split=train", model=model)
        run(*SYNTHETIC, model=model)
        card = (tmp_path / "evaluation" / "report" / "model_card.md").read_text()
        assert f"* ckplus, protocol subject_kfold. {words} synthetic, protocol official, seed 0" in card
        assert "CK+ is for non-commercial research" in card
        assert "Faces drawn by this package: a model of them knows nothing of real ones." in card

    def test_folders_are_datasets_of_their_own_and_one_that_has_grown_stays_the_same(
        self, run, finished_run, ckplus_tree, tmp_path
    ):
        checkpoint = load_checkpoint(finished_run / "checkpoints" / "best.ckpt")
        data = ("data=folder", f"data.root={ckplus_tree}", "protocol=random_80_20", "split=all")
        for dataset, refused in (("folder ckplus", True), ("folder others", False)):
            checkpoint["hyper_parameters"]["training"] = {"dataset": dataset, "splits": {"train": "other images"}}
            torch.save(checkpoint, tmp_path / "model.ckpt")
            with pytest.raises(InputError, match="another split of folder ckplus") if refused else nullcontext():
                run(*data, model=tmp_path / "model.ckpt")

    def test_unknown_initial_weights_may_know_the_images(self, report, finished_run, tmp_path):
        checkpoint = load_checkpoint(finished_run / "checkpoints" / "best.ckpt")
        checkpoint["hyper_parameters"]["training"]["initial_weights"] = {}
        torch.save(checkpoint, tmp_path / "finetuned.ckpt")
        report(*SYNTHETIC, model=tmp_path / "finetuned.ckpt")
        page = (tmp_path / "evaluation" / "report" / "index.html").read_text()
        assert "initial weights or teachers saw is not recorded" in page

    def test_both_are_measured_where_it_is_asked_for(self, run, tmp_path):
        assert "train/acc" in run(*SYNTHETIC, "split=train", "evaluate.allow_seen=true")["metrics"]
        written = result(tmp_path / "evaluation")
        assert written["seen"].startswith("the model was trained on this very split of synthetic")
        assert "the figures say little about new faces" in written["note"]
        assert written["note"] in (tmp_path / "evaluation" / "report" / "index.html").read_text()

    def test_the_same_pixels_are_known_under_another_name_and_order_of_labels(self, run, finished_run, tmp_path):
        datamodule = instantiate(compose_config(*SYNTHETIC, f"data.cache_dir={tmp_path / 'cache'}").data)
        names = sorted(datamodule.class_names)
        for position in datamodule.split.train:
            folder = tmp_path / "copy" / "train" / datamodule.class_names[datamodule.index.targets[position]]
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{position}.png"), datamodule.index.read(int(position)))
        for name in names:  # a test split of other faces
            (tmp_path / "copy" / "test" / name).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / "copy" / "test" / name / "0.png"), np.full((48, 48), 99, np.uint8))
        copy = ("data=folder", f"data.root={tmp_path / 'copy'}", "protocol=official")
        with pytest.raises(InputError, match="the model was trained on this very split of folder"):
            run(*copy, "split=train")
        assert run(*copy, "split=test")["images"] == 7


class TestReport:
    def test_everything_is_there_and_no_picture_is_empty(self, report, tmp_path, monkeypatch):
        monkeypatch.setattr(html_page, "png", draw)
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
        card = (folder / "model_card.md").read_text()
        assert "not a feeling" in card
        model = written["cost"]
        assert f"* {model['bytes'] / 1e6:.1f} MB, {model['parameters']:,} parameters" in card
        milliseconds, processor = f"{model['latency'][0]['p50_ms']:.1f}", describe_hardware()["cpu"]
        assert f"One face, prepared, takes {milliseconds} ms (median; PyTorch, {processor}, threads: " in card
        mouth = pd.read_csv(folder / "robustness.csv", index_col=0).loc["mouth covered"]
        assert f"| mouth covered | {' | '.join(f'{acc:.1%}' for acc in mouth)} |" in card
        worst = pd.read_csv(folder / "mistakes.csv").iloc[0]
        assert f"| {worst.image} | {worst.label} | {worst.model_says} | {worst.p_model:.1%} |" in card

    def test_mistakes_are_listed_with_the_most_confident_first(self, report, tmp_path):
        written = report(*SYNTHETIC)
        folder = tmp_path / "evaluation"
        answers = pd.read_csv(folder / "predictions.csv").query("target != prediction")
        mistakes = pd.read_csv(folder / "report" / "mistakes.csv")
        assert len(mistakes) == written["faces"]["mistakes"] > 0
        assert sorted(mistakes.image) == sorted(answers.image)
        assert mistakes.p_model.is_monotonic_decreasing
        assert (mistakes.label != mistakes.model_says).all()

    def test_its_numbers_are_those_of_the_predictions_beside_it(self, report, tmp_path):
        written = report(*SYNTHETIC, "split=val")
        table = pd.read_csv(tmp_path / "evaluation" / "predictions.csv")
        assert written["scores"]["by_image"]["acc"]["value"] == pytest.approx((table.target == table.prediction).mean())
        happy = table[table.target == "happy"]
        of_happy = written["classes"]["of"]["happy"]
        assert of_happy["support"] == len(happy)
        assert of_happy["recall"]["value"] == pytest.approx((happy.prediction == "happy").mean())

    def test_groups_are_wanted_of_the_images_that_are_measured_alone(self, report, ckplus_tree, tmp_path):
        data = ("data=ckplus", f"data.root={ckplus_tree}", "protocol=random_80_20", "split=all")
        report(*data)
        names = pd.read_csv(tmp_path / "evaluation" / "predictions.csv").image  # the model has no contempt
        (tmp_path / "evaluation").rename(tmp_path / "first")
        pd.DataFrame({"image": names, "glasses": "no"}).to_csv(tmp_path / "groups.csv", index=False)
        assert report(*data, f"groups={tmp_path / 'groups.csv'}")["groups_glasses"]["groups"]["no"]["images"] == 72

    def test_frames_of_a_recording_answer_together(self, report, ckplus_tree, tmp_path):
        for last in ckplus_tree.rglob("*_00000014.png"):  # unlike the two before it
            cv2.imwrite(str(last), 255 - cv2.imread(str(last)))
        written = report("data=ckplus", f"data.root={ckplus_tree}", "protocol=random_80_20", "split=all")
        assert written["scores"]["images"] == 72
        table = pd.read_csv(tmp_path / "evaluation" / "predictions.csv")
        recording = table.image.str.extract(r"(S\d+_\d+)_", expand=False)
        means = table.filter(like="p_").groupby(recording).mean()
        targets = table.target.groupby(recording).first()
        log_loss = -np.mean([np.log(means.loc[name, f"p_{target}"]) for name, target in targets.items()])
        assert written["scores"]["by_sequence"]["log_loss"]["value"] == pytest.approx(log_loss, rel=1e-4)
        assert written["scores"]["by_image"]["log_loss"]["value"] > log_loss + 0.1
        assert "twins" not in written  # the model has seen none of them, wherever they stand

    def test_uneven_batches_change_nothing(self, report, tmp_path):
        whole = report(*SYNTHETIC)["scores"]["by_image"]
        (tmp_path / "evaluation").rename(tmp_path / "whole")
        parts = report(*SYNTHETIC, "data.batch_size=16")["scores"]["by_image"]
        for name, score in whole.items():
            assert parts[name]["value"] == pytest.approx(score["value"], abs=1e-5), name

    def test_val_says_that_it_chose_the_epoch(self, run, tmp_path):
        run(*SYNTHETIC, "split=val")
        assert "The epoch was chosen on these images" in (tmp_path / "evaluation" / "report" / "index.html").read_text()

    def test_scores_are_told_for_each_of_the_users_groups(self, report, tmp_path):
        places = (*SYNTHETIC, f"groups={tmp_path / 'groups.csv'}")
        report(*SYNTHETIC)
        names = pd.read_csv(tmp_path / "evaluation" / "predictions.csv").image
        (tmp_path / "evaluation").rename(tmp_path / "first")
        groups = pd.DataFrame({"image": names, "glasses": ["NA", "no"] * 17 + [None]})
        groups.to_csv(tmp_path / "groups.csv", index=False)
        part = report(*places)["groups_glasses"]
        assert {name: of["images"] for name, of in part["groups"].items()} == {"NA": 17, "no": 17, "unknown": 1}
        assert part["gaps"] == {}
        groups[5:].to_csv(tmp_path / "groups.csv", index=False)
        (tmp_path / "evaluation").rename(tmp_path / "second")
        with pytest.raises(InputError, match=r"groups\.csv lacks 5 of 35 images, the first .*: give each a row"):
            report(*places)
        pd.concat([groups, groups[:1].assign(glasses="no")]).to_csv(tmp_path / "groups.csv", index=False)
        with pytest.raises(InputError, match=r"groups\.csv puts .* in two groups: give it one row"):
            report(*places)
        groups.rename(columns={"glasses": "age/band"}).to_csv(tmp_path / "groups.csv", index=False)
        with pytest.raises(InputError, match=r"a column name must have letters, digits and _ only, got 'age/band'"):
            report(*places)


class TestCalibration:
    @pytest.fixture
    def checkpoint(self, finished_run, tmp_path) -> Path:
        """A copy that may be changed."""
        shutil.copytree(finished_run, tmp_path / "run")
        return tmp_path / "run" / "checkpoints" / "best.ckpt"

    def test_a_temperature_is_stored_and_exported_when_it_is_asked_for(self, report, checkpoint, monkeypatch):
        # One epoch leaves nothing to calibrate.
        monkeypatch.setattr(sections, "fit_temperature", lambda logits, targets: 2.5)
        raw, fitted = report(*SYNTHETIC, "split=val", model=checkpoint)["calibration"]["rows"]
        assert fitted["log_loss"] < raw["log_loss"]
        assert load_backend(checkpoint).card.temperature == 1.0
        shutil.rmtree(checkpoint.parents[2] / "evaluation")
        stored = report(*SYNTHETIC, "split=val", "evaluate.calibrate=true", model=checkpoint)
        assert stored["calibration"]["temperature"] == load_backend(checkpoint).card.temperature == 2.5
        assert stored["scores"]["by_image"]["log_loss"]["value"] == pytest.approx(fitted["log_loss"], abs=1e-4)
        card = (checkpoint.parents[2] / "evaluation" / "report" / "model_card.md").read_text()
        assert "so the figures are slightly optimistic. The temperature was fitted on them too." in card
        export(checkpoint, checkpoint.parent / "model.onnx", "float32")
        assert load_backend(checkpoint.parent / "model.onnx").card.temperature == 2.5

    def test_nothing_is_fitted_on_images_that_did_not_choose_the_model(self, report, ckplus_tree, tmp_path):
        overrides = ("data=ckplus", f"data.root={ckplus_tree}", "protocol=random_80_20", "split=all")
        assert report(*overrides)["calibration"]["fitted_temperature"] is None
        page = (tmp_path / "evaluation" / "report" / "index.html").read_text()
        assert "No temperature is fitted: this protocol has no val split" in page

    def test_an_onnx_file_is_not_written_to(self, run, onnx_model):
        with pytest.raises(InputError, match="stores a temperature in a checkpoint"):
            run(*SYNTHETIC, "evaluate.calibrate=true", model=onnx_model)


def test_a_mistake_in_the_last_model_is_told_before_the_first_is_measured(run, finished_run, tmp_path, monkeypatch):
    monkeypatch.setattr(Measurement, "of", None)
    with pytest.raises(InputError, match=r"there is no model file at .*nowhere\.onnx"):
        run(*SYNTHETIC, model=f"[{finished_run},nowhere.onnx]")
    assert not (tmp_path / "evaluation").exists()


def test_a_measurement_that_was_killed_while_it_wrote_its_report_can_be_repeated(run, tmp_path):
    (tmp_path / "evaluation" / "report").mkdir(parents=True)
    (tmp_path / "evaluation" / "report" / "scores.csv").touch()
    assert "test/acc" in run(*SYNTHETIC)["metrics"]


def test_several_models_stand_side_by_side(report, finished_run, onnx_model, tmp_path):
    written = report(*SYNTHETIC, model=f"[{finished_run / 'checkpoints' / 'best.ckpt'},{onnx_model}]")
    assert written["models"] == ["run", "run model.onnx"]
    [behind] = written["differences"]["behind"].values()
    assert behind["value"] == pytest.approx(0, abs=0.03)
    for folder in ("1_run", "2_run_model.onnx"):
        assert (tmp_path / "evaluation" / folder / "report" / "index.html").is_file()
        assert result(tmp_path / "evaluation" / folder)["images"] == 35
    page = (tmp_path / "evaluation" / "report" / "index.html").read_text()
    assert page.count("The model was neither trained nor chosen on these images.") == 1
    with pytest.raises(InputError, match="already holds a run"):
        report(*SYNTHETIC, model=f"[{finished_run},{onnx_model}]")


def test_a_model_that_cannot_be_measured_takes_no_finished_measurement_of_another_with_it(run, finished_run, tmp_path):
    broken = load_checkpoint(finished_run / "checkpoints" / "best.ckpt")
    broken["state_dict"] = {name: weight * np.nan for name, weight in broken["state_dict"].items()}
    torch.save(broken, tmp_path / "broken.ckpt")
    with pytest.raises(InputError, match="the model gives no number"):
        run(*SYNTHETIC, model=f"[{finished_run},{tmp_path / 'broken.ckpt'}]")
    [finished] = (tmp_path / "evaluation").iterdir()
    assert result(finished)["images"] == 35


def test_models_of_other_classes_are_compared_on_what_both_were_asked():
    both, one = (
        SimpleNamespace(
            model=name,
            note=f"what {name} knew",
            indices=np.array(indices),
            predictions=np.zeros(len(indices), int),
            targets=np.zeros(len(indices), int),
            classes=SimpleNamespace(in_dataset=in_dataset),
            datamodule=SimpleNamespace(class_names=("happy", "sad", "contempt")),
            mean_of=lambda correct, rows: Score(float(np.mean(correct)), np.nan, np.nan),
        )
        for name, indices, in_dataset in (("both", [1, 2, 5], [0, 2]), ("one", [2, 5, 7], [0, 1]))
    )
    score = Score(0.5, 0.4, 0.6)
    scores = Scores(dict.fromkeys(OVERALL, score), [{"recall": score}] * 2)
    overall, differences, recalls = comparison_sections([both, one], [scores, scores])
    assert overall.text == ("both: what both knew", "one: what one knew")
    assert differences.facts["images"] == 2
    assert "The models were evaluated on different classes" in differences.text[1]
    table = recalls.tables["recalls"]
    assert list(table) == ["model", "happy", "contempt", "sad"]
    assert str(table.contempt[1]) == "none"


@pytest.mark.parametrize("order", [[0, 1], [1, 0]], ids=["same order", "another order"])
def test_models_are_measured_as_one_too(order):
    def measured(name: str, probabilities: list[list[float]], in_dataset: list[int]) -> SimpleNamespace:
        given = np.array(probabilities)
        return SimpleNamespace(
            model=name,
            note="",
            indices=np.arange(2),
            predictions=given.argmax(axis=1),
            probabilities=given,
            targets=np.full(2, in_dataset.index(0)),
            classes=SimpleNamespace(in_dataset=in_dataset),
            datamodule=SimpleNamespace(class_names=("happy", "sad")),
            mean_of=lambda correct, rows: Score(float(np.mean(correct)), np.nan, np.nan),
            scores=lambda of: scores_with_intervals(of, np.full(2, in_dataset.index(0)), resamples=0),
        )

    other = np.array([[0.4, 0.6], [0.9, 0.1]])[:, order]
    models = [measured("one", [[0.9, 0.1], [0.4, 0.6]], [0, 1]), measured("other", other, order)]
    [comparison, *_] = comparison_sections(models, [model.scores(model.probabilities) for model in models])
    assert [score.value for score in comparison.tables["comparison"].acc] == [0.5, 0.5, 1.0]
    assert comparison.facts["all, their probabilities averaged"]["acc"]["value"] == 1.0


def test_answers_that_are_no_numbers_are_counted_and_named(run, finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["net.head.1.weight"][:] = float("nan")
    torch.save(checkpoint, path)
    with pytest.raises(
        InputError, match=r"the model gives no number \(NaN or infinity\) for 35 of 35 images, the first "
    ):
        run(*SYNTHETIC, model=path)
    assert not (tmp_path / "evaluation").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["split=tests"], "split must be train, val, test, all, or null, got 'tests'"),
        (["evaluate.tta=flop"], "evaluate.tta must be none, flip, flip_shift, got 'flop'"),
        (["seed=-1"], "seed must be at least 0, got -1"),
        (["evaluate.resamples=-1"], "evaluate.resamples must be at least 0, got -1"),
        (["preprocess=gaussian"], "preprocess.gaussian_kernel=3 would change nothing here: omit it"),
        (["augmentation=light"], "augmentation.transforms=.* would change nothing here: omit it"),
        (["groups=nowhere.csv"], "groups=nowhere.csv cannot be read as csv"),
        (["split=all"], "the model was trained on a part of synthetic: evaluate it on split=test"),
        (["audit=nowhere"], "nowhere holds no finished audit .*: run python -m fer_lightning.audit"),
        (["ckpt_path=nowhere.ckpt"], "there is no model file at .*nowhere.ckpt"),
        (["+bogus=1"], "there is no bogus in the configuration"),
    ],
)
def test_a_mistake_is_told_and_leaves_no_folder(run, tmp_path, overrides, message):
    with pytest.raises(InputError, match=message):
        run(*SYNTHETIC, *overrides)
    assert not (tmp_path / "evaluation").exists()
