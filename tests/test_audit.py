"""Duplicates: found as they are, mirrored, across splits and under two labels."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fer_lightning.audit import audit
from fer_lightning.data.duplicates import alike, flat_images, groups, identical
from fer_lightning.errors import InputError
from fer_lightning.settings.config import compose_config


@pytest.fixture
def distinct() -> np.ndarray:
    """Six pictures that have nothing in common, uint8 (6, 48, 48)."""
    blocks = np.random.default_rng(0).integers(0, 256, (6, 12, 12), dtype=np.uint8)
    return blocks.repeat(4, axis=1).repeat(4, axis=2)


class TestAlike:
    def test_nothing_in_common_is_no_pair(self, distinct):
        assert len(alike(distinct, threshold=0.95).first) == 0

    def test_a_copy_with_noise_and_another_contrast_is_found(self, distinct):
        noise = np.random.default_rng(1).integers(-6, 7, (48, 48))
        copy = np.clip(distinct[2] * 0.7 + 30 + noise, 0, 255).astype(np.uint8)
        pairs = alike(np.concatenate([distinct, copy[None]]), threshold=0.95)
        assert (pairs.first.tolist(), pairs.second.tolist(), pairs.mirrored.tolist()) == ([2], [6], [False])
        assert 0.95 < pairs.correlation[0] < 1

    def test_a_mirror_image_is_found_and_said_to_be_one(self, distinct):
        pairs = alike(np.concatenate([distinct, distinct[4:5, :, ::-1]]), threshold=0.95)
        assert (pairs.first.tolist(), pairs.second.tolist(), pairs.mirrored.tolist()) == ([4], [6], [True])
        assert pairs.correlation[0] == pytest.approx(1)

    def test_a_perfect_match_is_found_at_a_threshold_of_one(self, distinct):
        assert len(alike(np.concatenate([distinct, distinct[:, :, ::-1]]), threshold=1).first) == 6

    def test_pairs_are_found_across_blocks(self, distinct, monkeypatch):
        monkeypatch.setattr("fer_lightning.data.duplicates.MOST_AT_A_TIME", 7)
        pairs = alike(distinct[[0, 1, 2, 3, 4, 0, 3]], threshold=0.95)
        assert sorted(zip(pairs.first, pairs.second, strict=True)) == [(0, 5), (3, 6)]

    def test_colour_is_compared_in_gray(self, distinct):
        colour = np.repeat(distinct[..., None], 3, axis=3)
        assert alike(colour[[0, 1, 0]], threshold=0.95).second.tolist() == [2]

    def test_flat_images_are_like_nothing(self):
        images = np.full((3, 48, 48), 90, np.uint8)
        images[1, 0, 0] = 91
        assert len(alike(images, threshold=0.5).first) == 0
        assert flat_images(images).tolist() == [0, 1, 2]
        assert flat_images(np.full((1, 48, 48, 3), (250, 20, 10), np.uint8)).tolist() == [0]

    def test_identical_digests_pair_with_the_first(self):
        digests = np.array([[1, 2], [3, 4], [1, 2], [1, 2]], np.uint8)
        pairs = identical(digests)
        assert sorted(zip(pairs.first, pairs.second, strict=True)) == [(0, 2), (0, 3)]

    def test_groups_follow_pairs_of_pairs(self, distinct):
        pairs = alike(distinct[[0, 1, 0, 0, 2]], threshold=0.95)
        group = groups(pairs, 5)
        assert group[0] == group[2] == group[3]
        assert len(set(group)) == 3


@pytest.fixture
def duplicated(tmp_path, write_image) -> Path:
    """FER2013's folders, two or three pictures a class and split, with what an audit should find among them.

    In val: a copy and a mirror image of training images, a copy of one under another label, and a blank.
    """
    random = np.random.default_rng(0)

    def picture() -> np.ndarray:
        return random.integers(0, 256, (12, 12), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)

    def write(split: str, usage: str, folder: str, name: str, image: np.ndarray) -> None:
        write_image(tmp_path / "fer2013" / split / folder / f"{usage}_{name}.png", image)

    folders = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    training = {folder: [picture(), picture()] for folder in folders}
    for folder in folders:
        for number, image in enumerate(training[folder]):
            write("train", "Training", folder, f"{folder}{number}", image)
        write("test", "PublicTest", folder, f"{folder}0", picture())
    write("test", "PublicTest", "happy", "copy", training["happy"][0])
    write("test", "PublicTest", "sad", "mirrored", training["sad"][1][:, ::-1])
    write("test", "PublicTest", "fear", "contradicted", training["surprise"][0])
    write("test", "PublicTest", "angry", "blank", np.zeros((48, 48), np.uint8))
    return tmp_path / "fer2013"


@pytest.fixture
def run(duplicated, tmp_path):
    """run(*overrides): audit `duplicated` and return the report and its folder."""

    def run_in(*overrides: str) -> tuple[dict, Path]:
        places = (f"data.root={duplicated}", f"data.cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path / 'audit'}")
        return audit(compose_config(*places, *overrides, command="audit")), tmp_path / "audit"

    return run_in


def test_an_audit_counts_what_stands_twice(run):
    report, folder = run()
    assert report["images"] == 25
    assert report["exact"] == {
        "pairs": 2,
        "groups": 2,
        "redundant_images": 2,
        "redundant_in_train": 0,
        "groups_under_several_labels": 1,
    }
    assert report["near"]["pairs"] == 3
    overlap = report["also_in_train"]["val"]
    assert (overlap["images"], overlap["exact"], overlap["near"]) == (11, 2, 3)
    assert overlap["near_same_label_share"] == pytest.approx(2 / 3)
    assert overlap["near_share_by_class"]["sad"] == 0.5
    assert report["flat"] == ["test/angry/PublicTest_blank.png"]
    assert json.loads((folder / "report.json").read_text()) == report
    assert (folder / "contact_sheet.png").stat().st_size > 10_000


def test_the_lists_name_the_images(run):
    _, folder = run()
    flagged = pd.read_csv(folder / "flagged.csv").set_index("image")
    said = {
        Path(name).stem: {flag for flag in flagged.columns[2:] if flagged.loc[name, flag]}
        for name in flagged.index[flagged.split == "val"]
    }
    assert said == {
        "PublicTest_copy": {"exact_in_train", "near_in_train", "same_label_in_train"},
        "PublicTest_mirrored": {"near_in_train", "same_label_in_train"},
        "PublicTest_contradicted": {"exact_in_train", "near_in_train", "conflicting"},
        "PublicTest_blank": {"flat"},
    }
    pairs = pd.read_csv(folder / "pairs.csv")
    assert pairs.mirrored.tolist() == [False, False, True]


def test_a_dataset_without_twins_has_an_empty_report(run, duplicated):
    for name in ("happy/PublicTest_copy", "sad/PublicTest_mirrored", "fear/PublicTest_contradicted"):
        (duplicated / "test" / f"{name}.png").unlink()
    report, folder = run()
    assert report["near"]["pairs"] == 0
    assert (folder / "contact_sheet.png").exists()


@pytest.mark.parametrize("threshold", [0, 1.1])
def test_a_threshold_that_is_no_correlation_is_refused(run, threshold):
    with pytest.raises(InputError, match="threshold must be above 0 and at most 1"):
        run(f"threshold={threshold}")


def test_a_setting_that_an_audit_does_not_look_at_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="preprocess.gaussian_kernel=3 would change nothing here: omit it"):
        run("preprocess=gaussian")
    with pytest.raises(InputError, match="seed=1 would change nothing here: omit it"):
        run("seed=1")
    assert not (tmp_path / "audit").exists()


def test_a_second_audit_does_not_overwrite_the_first(run):
    report, folder = run()
    with pytest.raises(InputError, match="already holds a run"):
        run("threshold=0.99")
    assert json.loads((folder / "report.json").read_text()) == report


@pytest.mark.slow
def test_fer2013_has_the_twins_that_are_known_of_it(real_data, tmp_path):
    places = (f"data.root={real_data('fer2013')}", f"data.cache_dir={tmp_path}", f"output_dir={tmp_path / 'audit'}")
    report = audit(compose_config(*places, command="audit"))
    assert report["exact"]["redundant_in_train"] == 1236
    assert report["also_in_train"]["val"]["exact"] == 280
    assert len(report["flat"]) == 12
