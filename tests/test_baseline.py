"""kNN and SVM: their features, and the command from end to end on a handful of drawn faces."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra.errors import InstantiationException

from fer_lightning import baseline as baseline_module
from fer_lightning.baseline import baseline
from fer_lightning.classical import FEATURES, hog_features, knn, lbp_features, pixel_features, svm
from fer_lightning.errors import InputError
from fer_lightning.runs.training import train
from fer_lightning.settings.config import compose_config
from fer_lightning.settings.plain_errors import explain


@pytest.fixture
def faces(face) -> tuple[np.ndarray, np.ndarray]:
    """Six faces of each of three classes, uint8 (18, 48, 48), and their targets."""
    targets = np.arange(18) % 3
    return np.stack([face(int(target), number) for number, target in enumerate(targets)]), targets


@pytest.fixture
def run(tmp_path: Path):
    """run(*overrides): fit on 140 synthetic faces and return the run's folder."""

    def run_in(*overrides: str, folder: str = "run") -> Path:
        few = ("data.reader.train=140", "data.reader.val=35", "data.reader.test=35", "model.pca=20")
        places = (f"output_dir={tmp_path / folder}", f"data.cache_dir={tmp_path / 'cache'}")
        baseline(compose_config(*few, *places, *overrides, command="baseline"))
        return tmp_path / folder

    return run_in


class TestFeatures:
    def test_pixels_are_on_the_unit_scale(self, faces):
        features = pixel_features(faces[0])
        assert features.shape == (18, 48 * 48)
        np.testing.assert_allclose(features[3] * 255, faces[0][3].ravel(), rtol=1e-6)

    def test_hog_sees_directions_and_not_brightness(self):
        rows = np.repeat(np.arange(48, dtype=np.uint8)[:, None] // 4 % 2 * 100, 48, axis=1)
        features = hog_features(np.stack([rows, rows + 50, rows.T]))
        np.testing.assert_allclose(features[0], features[1], atol=1e-3)
        assert np.abs(features[0] - features[2]).max() > 0.1

    def test_lbp_sees_patterns_and_not_brightness(self, faces):
        image = faces[0][0] // 2
        features = lbp_features(np.stack([image, image + 60, image.T]))
        assert features.shape == (3, 36 * 59)
        np.testing.assert_allclose(features.reshape(3, 36, 59).sum(axis=2), 1, rtol=1e-5)
        np.testing.assert_allclose(features[0], features[1])
        assert (features[0] != features[2]).any()

    def test_lbp_of_colour_is_refused(self):
        with pytest.raises(InputError, match="preprocess.channels=1"):
            lbp_features(np.zeros((1, 48, 48, 3), np.uint8))


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize(
    "make",
    [partial(knn, neighbors=1, weights="uniform"), partial(svm, C=10, kernel="rbf")],
    ids=["knn", "svm"],
)
@pytest.mark.parametrize("pca", [None, 5])
def test_every_classifier_learns_from_every_feature(faces, features, make, pca):
    images, targets = faces
    pipeline = make(features=features, pca=pca).fit(images[:12], targets[:12])
    assert (pipeline.predict(images[12:]) == targets[12:]).all()


@pytest.mark.parametrize("model", ["knn", "svm"])
def test_a_run_writes_what_a_networks_does(run, model):
    folder = run(f"model={model}", "model.features=hog")
    written = json.loads((folder / "result.json").read_text())
    assert written["metrics"]["test/acc"] > 1.4 / 7  # chance is 1 / 7
    assert written["data"]["protocol"] == "official"
    assert written["train_seconds"] < written["seconds"]
    assert {"test/f1_macro", "val/recall_macro", "test/specificity_macro"} <= written["metrics"].keys()
    assert not {"test/loss", "test/ece"} & written["metrics"].keys()
    table = pd.read_csv(folder / "predictions.csv")
    assert list(table) == ["split", "image", "person", "target", "prediction"]  # votes are no probabilities
    assert (table.target == table.prediction).mean() == pytest.approx(written["metrics"]["test/acc"])
    assert {path.name for path in folder.iterdir() if path.suffix == ".png"} == {
        "confusion_matrix.png",
        "sample_predictions.png",
        "worst_mistakes.png",
    }
    assert not (folder / "checkpoints").exists()


def test_a_second_run_does_not_overwrite_the_first(run):
    run("model=knn")
    with pytest.raises(InputError, match="already holds a run: start another"):
        run("model=knn")


def test_part_of_the_images_is_stratified(run):
    written = json.loads((run("model=knn", "max_images=70") / "result.json").read_text())
    assert written["images"] == 70
    with pytest.raises(InputError, match="max_images must be at least 7, one per class, got 3"):
        run("max_images=3", folder="other")


def test_an_svm_of_too_many_images_says_what_it_would_cost(run, monkeypatch, tmp_path):
    monkeypatch.setattr(baseline_module, "PROBE", 30)
    monkeypatch.setattr(baseline_module, "MOST_FOR_SVM", 130)
    with pytest.raises(InputError, match=r"an SVM of 140 images would take about \d+ .*max_images=20000, or model=knn"):
        run("model=svm")
    assert not (tmp_path / "run").exists()
    run("model=svm", "max_images=125")


def test_an_svms_cost_is_told_before_its_images_are_read(run, monkeypatch):
    monkeypatch.setattr(baseline_module, "PROBE", 30)
    monkeypatch.setattr(baseline_module, "MOST_FOR_SVM", 130)
    read, bytes_of = [], baseline_module._bytes
    monkeypatch.setattr(baseline_module, "_bytes", lambda data, which: read.append(len(which)) or bytes_of(data, which))
    with pytest.raises(InputError, match="an SVM of 140 images"):
        run("model=svm")
    assert read == [30]


def test_networks_and_baselines_send_to_each_others_commands(run, tmp_path):
    with pytest.raises(InputError, match="is a network: train it with python -m fer_lightning.train"):
        baseline(compose_config("model=cnn4", f"output_dir={tmp_path / 'a'}", command="baseline"))
    with pytest.raises(InputError, match="is not a network: fit it with python -m fer_lightning.baseline"):
        train(compose_config("model=knn", f"output_dir={tmp_path / 'b'}"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.features=sift"], "model.features must be pixels, hog, lbp, got 'sift'"),
        (["model.pca=0"], "model.pca must be at least 1 component, or null, got 0"),
        (["model.C=0"], "model.C must be above 0, got 0"),
        (["model=knn", "model.neighbors=0"], "model.neighbors must be at least 1, got 0"),
        (["model=knn", "model.neighbors=500"], "the model does not accept these settings: .*n_neighbors"),
        (["model.pca=150"], "the model does not accept these settings: n_components=150"),
        (["max_images=138"], "max_images=138 of 140 images cannot be stratified by class"),
        (["seed=-1"], "seed must be at least 0, got -1"),
        (["data.reader.val=0", "data.reader.test=0"], "has neither val nor test images here"),
        (["data.oversample=1"], "data.oversample=1 would change nothing here: omit it"),
        (["data.num_workers=2"], "data.num_workers=2 would change nothing here: omit it"),
        (["preprocess.scaling=symmetric"], "preprocess.scaling=symmetric would change nothing here: omit it"),
        (["augmentation=light"], "augmentation.transforms=.* would change nothing here: omit it"),
    ],
)
def test_a_setting_that_is_wrong_or_does_nothing_is_named(run, overrides, message):
    with pytest.raises((InputError, InstantiationException)) as caught:
        run(*overrides)
    assert re.search(message, explain(caught.value)), explain(caught.value)
