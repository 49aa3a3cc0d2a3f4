"""What a training may start from, and what stays new."""

from urllib.error import URLError

import pytest
import torch
from torch.nn import Module

from fer_lightning.checkpoint import load_checkpoint, read_weights
from fer_lightning.data.fingerprint import NO_IMAGES
from fer_lightning.errors import InputError
from fer_lightning.models import NAMES, create_model
from fer_lightning.preprocess import Preprocess
from fer_lightning.weights.bundled import NAME, bundled
from fer_lightning.weights.initial import classes_layer, load_initial_weights


@pytest.fixture
def write_weights(tmp_path):
    """write_weights(net): as torchvision's files hold them."""

    def write(net: Module, **settings):
        torch.save(net.state_dict(), tmp_path / "weights.pth", **settings)
        return tmp_path / "weights.pth"

    return write


def equal_names(one: Module, other: Module) -> set[str]:
    weights = other.state_dict()
    return {
        name
        for name, value in one.state_dict().items()
        if weights[name].shape == value.shape and torch.equal(weights[name], value)
    }


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("vgg16", "emosense4", "emosense10")])
def test_all_is_copied_but_the_layer_of_the_classes(name, write_weights):
    theirs, ours = create_model(name, num_classes=7), create_model(name, num_classes=7)
    new, training = load_initial_weights(ours, name, write_weights(theirs))
    head = classes_layer(ours)
    assert new == [f"{head}.bias", f"{head}.weight"]
    assert training == {}  # such a file does not tell
    assert f"{head}.weight" not in equal_names(ours, theirs)
    assert equal_names(ours, theirs) >= theirs.state_dict().keys() - set(new)


def test_other_classes_are_no_obstacle(write_weights):
    ours = create_model("cnn4", num_classes=3)
    load_initial_weights(ours, "cnn4", write_weights(create_model("cnn4", num_classes=8)))
    assert ours(torch.zeros(1, 1, 48, 48)).shape == (1, 3)


def test_a_layer_to_skip_that_is_none_is_refused(write_weights):
    net = create_model("cnn3", num_classes=7)
    with pytest.raises(InputError, match=r"model.init_skip has featuers.0, but cnn3 has features.0, features"):
        load_initial_weights(net, "cnn3", write_weights(net), skip=["featuers.0"])


@pytest.mark.parametrize(("scaling", "told"), [("unit", True), ("standard", False)])
def test_pixels_that_the_weights_are_not_used_to_are_told(scaling, told, caplog):
    preprocess = Preprocess(scaling=scaling).to_dict()
    load_initial_weights(create_model("seresnet_s", num_classes=3), "seresnet_s", "bundled", preprocess=preprocess)
    assert ("bundled were trained with preprocess.scaling=standard, and this run has unit" in caplog.text) is told


def test_the_older_format_of_torchvisions_files_serves(write_weights):
    theirs, ours = create_model("cnn3", num_classes=7), create_model("cnn3", num_classes=7)
    load_initial_weights(ours, "cnn3", write_weights(theirs, _use_new_zipfile_serialization=False))
    assert "features.0.weight" in equal_names(ours, theirs)


def test_a_runs_checkpoint_serves(finished_run):
    ours = create_model("cnn4", num_classes=7)
    load_initial_weights(ours, "cnn4", finished_run / "checkpoints" / "best.ckpt")
    found = read_weights(finished_run / "checkpoints" / "best.ckpt")
    assert found.preprocess == Preprocess().to_dict()
    torch.testing.assert_close(ours.state_dict()["features.0.weight"], found.by_name["features.0.weight"])


@pytest.mark.parametrize(("scaling", "told"), [("unit", True), ("standard", False)])
def test_torchvisions_weights_ask_for_standardised_pixels(write_weights, caplog, scaling, told):
    net = create_model("resnet18", num_classes=7)
    path = write_weights(create_model("resnet18", num_classes=1000, in_channels=3))
    load_initial_weights(net, "resnet18", path, preprocess=Preprocess(scaling=scaling).to_dict())
    assert ("were trained with preprocess.scaling=standard, and this run has unit" in caplog.text) is told


def test_weights_that_may_have_seen_what_is_measured_are_told(finished_run, caplog):
    path = finished_run / "checkpoints" / "best.ckpt"
    seen = read_weights(path).training
    fewer = seen | {"splits": seen["splits"] | {"train": "a part of it"}}
    other_split = seen | {"splits": fewer["splits"] | {"test": "another fold"}}
    elsewhere = other_split | {"dataset": "ckplus"}
    # The same train, but the epoch was chosen on images that may be in this training's test.
    other_val = seen | {"splits": seen["splits"] | {"val": NO_IMAGES, "test": "val and test together"}}
    for training, told in (
        *((seen, False), (fewer, False), (elsewhere, False)),
        *((other_split, True), (other_val, True)),
    ):
        caplog.clear()
        load_initial_weights(create_model("cnn4", num_classes=7), "cnn4", path, training=training)
        assert ("were trained on another split of synthetic" in caplog.text) is told


def test_weights_that_began_with_others_that_may_have_seen_it_are_told(finished_run, tmp_path, caplog):
    checkpoint = load_checkpoint(finished_run / "checkpoints" / "best.ckpt")
    facts = checkpoint["hyper_parameters"]
    measured_on = facts["training"] | {"splits": {"train": "another fold"}}
    facts["training"] = {"dataset": "ckplus", "initial_weights": facts["training"]}
    torch.save(checkpoint, tmp_path / "later.ckpt")
    net = create_model("cnn4", num_classes=7)
    load_initial_weights(net, "cnn4", tmp_path / "later.ckpt", training=measured_on)
    assert "were trained on another split of synthetic" in caplog.text


def test_the_packages_own_model_serves():
    net = create_model("seresnet_s", num_classes=3)
    new, training = load_initial_weights(net, "seresnet_s", "bundled")
    assert training["dataset"] == "fer2013"
    trained = torch.load(bundled(".ckpt"), weights_only=True)["state_dict"]
    torch.testing.assert_close(net.stem[0].weight, trained["net.stem.0.weight"].float())
    assert all(name.startswith("head.") for name in new)


def test_the_packages_own_model_is_refused_where_its_file_was_changed(tmp_path, monkeypatch):
    monkeypatch.setattr("fer_lightning.weights.bundled.WEIGHTS", tmp_path)
    (tmp_path / f"{NAME}.ckpt").write_bytes(b"something else")
    with pytest.raises(InputError, match=r"ckpt is damaged or was changed .*install the package again"):
        load_initial_weights(create_model("seresnet_s", num_classes=3), "seresnet_s", "bundled")


def test_weights_that_do_not_fit_are_named_with_the_way_to_leave_them(write_weights):
    ours, path = create_model("cnn4", num_classes=7, kernel_size=5), write_weights(create_model("cnn4", num_classes=7))
    with pytest.raises(InputError) as caught:
        load_initial_weights(ours, "cnn4", path)
    assert "weights.pth does not fit cnn4: features.0.weight is (32, 1, 3, 3) there and (32, 1, 5, 5) here" in str(
        caught.value
    )
    assert "'model.init_skip=[features.0,features.2,features.5,features.8,head.1]'" in str(caught.value)
    new, _ = load_initial_weights(ours, "cnn4", path, skip=["features", "head.1"])
    assert set(new) == ours.state_dict().keys()


def test_another_network_is_told_by_what_it_lacks_and_what_it_has_more(write_weights):
    ours, path = create_model("cnn4", num_classes=7), write_weights(create_model("resnet18", num_classes=7))
    with pytest.raises(InputError, match=r"features.0.weight is missing there.*and \d+ more"):
        load_initial_weights(ours, "cnn4", path)
    with pytest.raises(InputError, match="These are weights of another network: choose it with model="):
        load_initial_weights(ours, "cnn4", "bundled")


def test_colour_weights_are_summed_for_a_gray_network(write_weights):
    theirs, ours = create_model("resnet18", num_classes=7, in_channels=3), create_model("resnet18", num_classes=7)
    load_initial_weights(ours, "resnet18", write_weights(theirs))
    gray = torch.rand(2, 1, 64, 64)
    assert torch.allclose(ours.conv1(gray), theirs.conv1(gray.expand(-1, 3, -1, -1)), atol=1e-5)


def test_weights_that_read_red_first_are_turned_round_for_pictures_that_are_blue_first(write_weights):
    theirs = create_model("resnet18", num_classes=7, in_channels=3)
    ours = create_model("resnet18", num_classes=7, in_channels=3)
    load_initial_weights(ours, "resnet18", write_weights(theirs))
    rgb = torch.rand(2, 3, 64, 64)
    assert torch.allclose(ours.conv1(rgb.flip(1)), theirs.conv1(rgb), atol=1e-5)


def test_imagenet_weights_are_what_torchvision_downloads(monkeypatch):
    theirs = create_model("resnet18", num_classes=1000, in_channels=3)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: theirs.state_dict())
    ours = create_model("resnet18", num_classes=7)
    load_initial_weights(ours, "resnet18", "imagenet")
    torch.testing.assert_close(ours.layer4[1].conv2.weight, theirs.layer4[1].conv2.weight)


@pytest.mark.parametrize("problem", [URLError("no route to host"), RuntimeError("invalid hash value")], ids=str)
def test_a_download_that_fails_or_is_another_file_is_told_in_a_sentence(monkeypatch, problem):
    def refuse(*_, **__):
        raise problem

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(
        InputError, match=r"cannot be downloaded .*(no route to host|invalid hash).*: download them .*model.init_from="
    ):
        load_initial_weights(create_model("resnet18", num_classes=7), "resnet18", "imagenet")


def test_only_torchvisions_networks_have_imagenet_weights():
    with pytest.raises(InputError, match="no ImageNet weights for cnn4, only for resnet18, vgg16, efficientnet_b0"):
        load_initial_weights(create_model("cnn4", num_classes=7), "cnn4", "imagenet")


@pytest.mark.parametrize(
    ("content", "message"), [({}, "contains no named weights"), ({"epoch": 3}, "contains no named weights")]
)
def test_a_file_without_weights_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(InputError, match=message):
        read_weights(tmp_path / "other.pth")


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.pth").write_text("these are no weights")
    with pytest.raises(InputError, match="is not a weights file"):
        read_weights(tmp_path / "notes.pth")
