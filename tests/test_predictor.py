"""From a picture to faces: one preprocessing with training, in order, whatever the batch."""

import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from fer_lightning import Predictor
from fer_lightning.checkpoint import load_checkpoint
from fer_lightning.errors import InputError
from fer_lightning.export import export
from fer_lightning.inference import predictor as predictor_module
from fer_lightning.inference.backends import load_backend
from fer_lightning.inference.boxes import Box, square_crop
from fer_lightning.inference.detectors import WholePicture
from fer_lightning.inference.model_file import find_model
from fer_lightning.inference.sources import Frame, open_sources
from fer_lightning.labels import FER2013_CLASSES
from fer_lightning.preprocess import Preprocess
from fer_lightning.weights.bundled import NAME, SHA256, bundled


@pytest.fixture
def predictor(onnx_model):
    return Predictor(onnx_model)


def test_a_photo_gives_its_face_with_probabilities_in_label_order(predictor, photo):
    [face] = predictor.predict(photo)
    assert tuple(face.probabilities) == FER2013_CLASSES
    assert sum(face.probabilities.values()) == pytest.approx(1)
    assert face.confidence == max(face.probabilities.values()) == face.probabilities[face.emotion]
    assert 80 < face.box.width < 130


def test_a_file_its_content_and_its_pixels_give_the_same(predictor, photo, tmp_path):
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), photo)
    assert predictor.predict(path) == predictor.predict(path.read_bytes()) == predictor.predict(photo)


def test_content_that_is_no_picture_is_refused_without_printing_it(predictor):
    with pytest.raises(InputError, match=r"^the picture \(5 bytes\) does not decode as an image$"):
        predictor.predict(b"words")


def test_a_network_without_an_answer_is_refused(predictor, photo, monkeypatch):
    monkeypatch.setattr(predictor._backend, "logits", lambda images: np.full((len(images), 7), np.nan, np.float32))
    with pytest.raises(InputError, match=r"\.onnx gives logits that are not finite: use another model"):
        predictor.predict(photo)


def test_a_picture_without_a_face_is_not_classified(predictor):
    assert predictor.predict(np.zeros((200, 200, 3), np.uint8)) == []


@pytest.mark.parametrize("model", ["onnx", "ckpt"])
def test_a_face_crop_goes_through_the_evaluators_preprocessing(onnx_model, finished_run, face, model):
    from fer_lightning.module import ExpressionClassifier

    path = onnx_model if model == "onnx" else finished_run / "checkpoints" / "best.ckpt"
    crop = face(3, 1)
    evaluator = ExpressionClassifier.load_from_checkpoint(
        finished_run / "checkpoints" / "best.ckpt", weights_only=True, map_location="cpu"
    ).eval()
    import torch

    from fer_lightning.preprocess import Preprocess

    with torch.inference_mode():
        expected = evaluator(torch.from_numpy(Preprocess()(crop))).softmax(dim=1)[0].numpy()
    [found] = Predictor(path, detector="none", device="cpu").predict(crop)
    np.testing.assert_allclose(list(found.probabilities.values()), expected, atol=1e-4)


@pytest.fixture(scope="module")
def ckplus_run(real_data, tmp_path_factory):
    """A run on real CK+ faces, in float32, and the archive unpacked."""
    from fer_lightning.runs.training import train
    from fer_lightning.settings.config import compose_config

    folder = tmp_path_factory.mktemp("ckplus")
    with zipfile.ZipFile(real_data("ckplus") / "archive.zip") as archive:
        archive.extractall(folder / "images")
    few = ("data=ckplus", "protocol=random_80_10_10", "trainer.max_epochs=2", "trainer.limit_train_batches=3")
    places = (f"data.root={folder / 'images'}", f"data.cache_dir={folder / 'cache'}", f"output_dir={folder / 'run'}")
    train(compose_config(*few, *places, "trainer.accelerator=cpu", "trainer.precision=32-true", "logger=none"))
    return folder


@pytest.mark.parametrize("model", ["onnx", "ckpt"])
def test_the_evaluators_probabilities_of_real_faces_are_those_of_prediction(ckplus_run, model):
    path = ckplus_run / "run" / "checkpoints" / "best.ckpt"
    if model == "onnx":
        path = path.with_name("model.onnx")
        export(ckplus_run / "run" / "checkpoints" / "best.ckpt", path, "float32")
    evaluated = pd.read_csv(ckplus_run / "run" / "predictions.csv")
    predictor = Predictor(path, detector="none", device="cpu")
    frames = [
        frame
        for name in evaluated["image"]
        for source in open_sources([str(ckplus_run / "images" / name)])
        for frame in source.frames()
    ]
    predicted = [prediction.faces[0].probabilities for prediction in predictor.predict_all(frames)]
    assert len(predicted) == len(evaluated) > 90
    expected = evaluated[[f"p_{name}" for name in predictor.card.class_names]].to_numpy()
    np.testing.assert_allclose([list(each.values()) for each in predicted], expected, atol=1e-4)


@pytest.mark.parametrize("settings", [{"workers": 1}, {"workers": 3, "batch_size": 2}, {"batch_size": 1}], ids=str)
def test_a_stream_comes_back_in_its_order_whatever_the_batches(onnx_model, predictor, photo, settings):
    pictures = [cv2.resize(photo, (256 + 16 * i, 256 + 16 * i)) if i % 3 else np.zeros_like(photo) for i in range(12)]
    frames = [lambda i=i: Frame(source=f"{i}.png", image=pictures[i]) for i in range(12)]
    predictions = list(Predictor(onnx_model, **settings).predict_all(frames))
    assert [prediction.frame.source for prediction in predictions] == [f"{i}.png" for i in range(12)]
    for picture, prediction in zip(pictures, predictions, strict=True):
        alone = predictor.predict(picture)
        assert [face.box for face in prediction.faces] == [face.box for face in alone]
        for one, other in zip(prediction.faces, alone, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_only_a_few_frames_are_in_memory_at_a_time(onnx_model):
    given, taken = [], []

    def frames():
        for i in range(100):
            given.append(i)
            yield lambda: Frame(source="f", image=np.zeros((64, 64, 3), np.uint8))

    for _ in Predictor(onnx_model, workers=2, batch_size=4).predict_all(frames()):
        taken.append(1)
        assert len(given) - len(taken) <= 16


def test_large_pictures_that_are_kept_do_not_wait_for_a_batch(onnx_model, monkeypatch):
    monkeypatch.setattr(predictor_module, "MOST_BYTES", 100_000)
    given, taken = [], []

    def frames():
        for i in range(40):
            given.append(i)
            yield lambda: Frame(source="f", image=np.zeros((200, 200, 3), np.uint8))  # 120,000 bytes

    for _ in Predictor(onnx_model, workers=1, batch_size=64).predict_all(frames(), keep_images=True):
        taken.append(1)
        assert len(given) - len(taken) <= 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_face": -3}, "min_face must be above 0, got -3"),
        ({"detector": "mtcnn", "min_face": float("nan")}, "min_face must be above 0, got nan"),
        ({"detector": "none", "profile": True}, "profile works only with detector haar, got none"),
        ({"detector": "none", "align": True}, "align needs a detector"),
        ({"detector": "none", "min_face": 80}, "min_face and max_side are for the search for faces"),
        ({"detector": WholePicture(), "max_side": 80}, "are for this package's detectors: set them in your own"),
    ],
)
def test_a_setting_that_a_detector_does_not_have_is_refused(onnx_model, settings, message):
    with pytest.raises(InputError, match=message):
        Predictor(onnx_model, **settings)


def test_a_camera_is_answered_frame_by_frame(onnx_model, photo):
    given = []

    def frames():
        for i in range(5):
            given.append(i)
            yield lambda: Frame(source="camera 0", image=photo)

    for number, _ in enumerate(Predictor(onnx_model).predict_all(frames(), wait_for_batch=False)):
        assert len(given) == number + 1


def test_a_detector_of_ones_own_is_used(onnx_model, photo):
    class Corner:
        def detect(self, image):
            return [Box(0, 0, 48, 48)]

    [face] = Predictor(onnx_model, detector=Corner()).predict(photo)
    assert face.box == Box(0, 0, 48, 48)


@pytest.mark.parametrize(
    "image",
    [np.zeros((5, 5, 4), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8)],
    ids=["alpha", "float", "empty"],
)
def test_an_array_that_is_no_picture_is_refused(predictor, image):
    with pytest.raises(InputError, match="a picture must be uint8 of shape"):
        predictor.predict(image)


def test_a_models_temperature_and_margin_are_used(finished_run, face, photo, tmp_path):
    best, other = finished_run / "checkpoints" / "best.ckpt", tmp_path / "other.ckpt"
    checkpoint = load_checkpoint(best)
    checkpoint["hyper_parameters"] |= {"temperature": 2.0, "crop_margin": 0.25}
    torch.save(checkpoint, other)
    [[plain], [warm]] = (Predictor(path, detector="none", device="cpu").predict(face(3)) for path in (best, other))
    roots = np.sqrt(list(plain.probabilities.values()))
    assert list(warm.probabilities.values()) == pytest.approx(roots / roots.sum(), abs=1e-5)
    box = Box(175, 65, 100, 100)
    [crop] = Predictor(other, device="cpu").crops(photo, [box])
    np.testing.assert_array_equal(crop, Preprocess().prepare(square_crop(photo, box, margin=0.25)))


def test_of_several_finished_runs_the_newest_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, finished in (("a", 1), ("b", 3), ("c", 2), ("d", None)):
        run = Path("outputs/runs") / name
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints" / "best.ckpt").touch()
        if finished:
            (run / "result.json").touch()
            os.utime(run / "result.json", (finished, finished))
    assert find_model("newest") == Path("outputs/runs/b/checkpoints/best.ckpt")


def test_the_newest_finished_run_is_found_by_that_word(finished_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="holds no finished run: train one .*make demo"):
        Predictor("newest")
    (tmp_path / "outputs/runs").mkdir(parents=True)
    (tmp_path / "outputs/runs/mine").symlink_to(finished_run)
    assert Predictor("newest").model_path.parent.resolve() in (finished_run, finished_run / "checkpoints")


def test_without_a_model_the_packages_own_reads_a_real_face(photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    predictor = Predictor()
    [face] = predictor.predict(photo)
    assert face.emotion == "happy"
    assert face.confidence > 0.6
    assert predictor.card.training["dataset"] == "fer2013"
    assert predictor.card.temperature != 1.0


class TestBundled:
    def test_both_of_its_files_are_small_and_one_network(self, photo):
        assert sum(bundled(suffix).stat().st_size for suffix in SHA256) < 12_000_000
        assert bundled().stat().st_size < 10_000_000
        faces = [Predictor(bundled(suffix), device="cpu").predict(photo)[0] for suffix in SHA256]
        assert faces[0].probabilities == pytest.approx(faces[1].probabilities, abs=0.02)

    def test_a_changed_file_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr("fer_lightning.weights.bundled.WEIGHTS", tmp_path)
        with pytest.raises(InputError, match=r"onnx is missing: install the package again"):
            Predictor()
        (tmp_path / f"{NAME}.onnx").write_bytes(b"something else")
        with pytest.raises(
            InputError, match=r"onnx is damaged or was changed \(its sha256 begins with [0-9a-f]{12}, not"
        ):
            Predictor()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(
        InputError, match="is not a run's folder: it holds neither model.onnx nor checkpoints/best.ckpt"
    ):
        Predictor(tmp_path)


def test_of_a_run_what_was_written_last_speaks_and_its_checkpoint_where_that_is_asked_for(tmp_path):
    exported, best = tmp_path / "model.onnx", tmp_path / "checkpoints" / "best.ckpt"
    best.parent.mkdir()
    for path, written in ((best, 1), (exported, 2)):
        path.touch()
        os.utime(path, (written, written))
    assert find_model(tmp_path) == exported
    assert find_model(tmp_path, exported=False) == best
    os.utime(best, (3, 3))  # trained on, or calibrated
    assert find_model(tmp_path) == best


def test_a_folder_is_no_picture(predictor, tmp_path, write_image, face):
    with pytest.raises(InputError, match="holds no image or video"):
        predictor.predict(tmp_path)
    for number in range(2):
        write_image(tmp_path / f"{number}.png", face(number))
    with pytest.raises(InputError, match="is not one picture"):
        predictor.predict(tmp_path)


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system does not say which cores a process may use"
)
def test_a_model_takes_no_more_threads_than_the_process_has_cores(onnx_model):
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert load_backend(onnx_model).threads == 1
    finally:
        os.sched_setaffinity(0, allowed)
