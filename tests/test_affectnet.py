"""AffectNet in each of its layouts, small: two images of each of the eight classes in a split."""

import logging
from pathlib import Path

import numpy as np
import pytest

from fer_lightning.data.affectnet import read_affectnet
from fer_lightning.data.cache import cached_faces
from fer_lightning.data.splits import official
from fer_lightning.errors import InputError
from fer_lightning.labels import AFFECTNET_CLASSES, AFFECTNET_NUMBERS
from fer_lightning.preprocess import Preprocess

FOLDERS = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral", "contempt")  # of AFFECTNET_CLASSES


@pytest.fixture
def annotate(tmp_path):
    """annotate(split, id, value): an annotation file, its value text as the original has it."""

    def write(split: str, identity: str, value) -> Path:
        place = tmp_path / "affectnet" / split / "annotations" / f"{identity}_exp.npy"
        place.parent.mkdir(parents=True, exist_ok=True)
        np.save(place, np.array(str(value)))
        return place

    return write


@pytest.fixture
def official_tree(tmp_path, annotate, face, write_image) -> Path:
    for split in ("train_set", "val_set"):
        for number in range(16):
            label = AFFECTNET_CLASSES.index(AFFECTNET_NUMBERS[number % 8])
            image = np.dstack([face(label, number)] * 3)
            write_image(tmp_path / "affectnet" / split / "images" / f"{number}.jpg", image)
            annotate(split, str(number), number % 8)
    return tmp_path / "affectnet"


@pytest.fixture
def kaggle_tree(tmp_path, face, write_image) -> Path:
    lines = [",pth,label,relFCs"]
    for label, folder in enumerate(FOLDERS):
        for number in range(2):
            path = f"{folder}/image{number:07}.jpg"
            write_image(tmp_path / "kaggle" / path, face(label, number))
            lines.append(f"{len(lines) - 1},{path},{FOLDERS[label]},0.9")
    (tmp_path / "kaggle" / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "kaggle"


def labels(index) -> list[str]:
    return [index.class_names[target] for target in index.targets]


class TestOfficial:
    def test_numbers_become_classes_and_the_validation_split_is_test(self, official_tree):
        index = read_affectnet(official_tree)
        assert index.class_names == AFFECTNET_CLASSES
        assert len(index.names) == 32
        of_name = dict(zip(index.names, labels(index), strict=True))
        assert [of_name[f"val_set/images/{number}.jpg"] for number in range(8)] == list(AFFECTNET_NUMBERS)
        assert set(zip([name.split("/")[0] for name in index.names], index.splits, strict=True)) == {
            ("train_set", "train"),
            ("val_set", "test"),
        }

    def test_an_image_belongs_to_its_annotation(self, official_tree, face):
        index = read_affectnet(official_tree)
        for i in (0, 11, 31):
            number = int(Path(index.names[i]).stem)
            np.testing.assert_allclose(index.read(i)[..., 0], face(index.targets[i], number), atol=40)

    def test_a_zip_gives_the_same(self, official_tree, zipped):
        index, archived = read_affectnet(official_tree), read_affectnet(zipped(official_tree))
        assert dict(zip(index.names, labels(index), strict=True)) == dict(
            zip(archived.names, labels(archived), strict=True)
        )

    def test_images_without_an_expression_are_left_out_and_counted(self, official_tree, annotate, caplog):
        for identity, number in (("0", 8), ("1", 9), ("2", 10), ("3", 10)):
            annotate("train_set", identity, number)
        caplog.set_level(logging.WARNING)
        assert len(read_affectnet(official_tree).names) == 28
        assert "left out: 1 none, 1 uncertain, 2 no face" in caplog.text

    def test_a_part_of_train_can_choose_the_epoch(self, official_tree):
        index = read_affectnet(official_tree)
        split = official(index, val_percent=50, seed=1)
        assert (len(split.train), len(split.val), len(split.test)) == (8, 8, 16)
        assert sorted(index.targets[split.val]) == list(range(8))
        assert len(official(index).val) == 0

    def test_an_annotation_without_its_image_is_named(self, official_tree, tmp_path):
        (official_tree / "train_set" / "images" / "5.jpg").unlink()
        index = read_affectnet(official_tree)
        with pytest.raises(InputError, match=r"train_set/images/5\.jpg cannot be read .*on_bad_image=skip"):
            cached_faces(index, Preprocess(), tmp_path / "cache")
        cache = cached_faces(index, Preprocess(), tmp_path / "cache", on_bad_image="skip")
        assert [index.names[i] for i in cache.skipped] == ["train_set/images/5.jpg"]

    @pytest.mark.parametrize(("value", "message"), [(11, "holds expression 11"), (-1, "holds expression -1")])
    def test_an_expression_out_of_range_is_refused(self, official_tree, annotate, value, message):
        annotate("train_set", "5", value)
        with pytest.raises(InputError, match=f"5_exp.npy {message}, but AffectNet has 0 to 10"):
            read_affectnet(official_tree)

    @pytest.mark.parametrize("content", [b"", b"happy", b"\x93NUMPY", b"PK\x03\x04"])
    def test_an_annotation_that_is_no_number_is_refused(self, official_tree, content):
        (official_tree / "train_set" / "annotations" / "5_exp.npy").write_bytes(content)
        with pytest.raises(InputError, match=r"5_exp\.npy holds no number"):
            read_affectnet(official_tree)

    def test_images_without_an_annotation_are_told(self, official_tree, caplog):
        (official_tree / "train_set" / "annotations" / "5_exp.npy").unlink()
        caplog.set_level(logging.WARNING)
        assert len(read_affectnet(official_tree).names) == 31
        assert "1 images without an annotation are left out, the first train_set/images/5.jpg" in caplog.text

    def test_a_pickle_is_not_loaded(self, official_tree):
        np.save(official_tree / "train_set" / "annotations" / "5_exp.npy", np.array([{}], dtype=object))
        with pytest.raises(InputError, match="holds no number"):
            read_affectnet(official_tree)


class TestKaggle:
    def test_the_csv_says_the_label_and_not_the_folder(self, kaggle_tree):
        csv = kaggle_tree / "labels.csv"
        csv.write_text(csv.read_text().replace("anger/image0000001.jpg,anger", "anger/image0000001.jpg,contempt"))
        index = read_affectnet(kaggle_tree)
        assert dict(zip(index.names, labels(index), strict=True))["anger/image0000001.jpg"] == "contempt"
        assert index.splits is None

    def test_a_line_that_is_repeated_counts_once(self, kaggle_tree, caplog):
        csv = kaggle_tree / "labels.csv"
        csv.write_text(f"{csv.read_text()}99,fear/image0000000.jpg,fear,0.9\n")
        caplog.set_level(logging.WARNING)
        assert len(read_affectnet(kaggle_tree).names) == 16
        assert "1 lines repeat another and count once" in caplog.text

    def test_an_image_under_two_labels_is_refused(self, kaggle_tree):
        csv = kaggle_tree / "labels.csv"
        csv.write_text(f"{csv.read_text()}99,fear/image0000000.jpg,happy,0.9\n")
        with pytest.raises(InputError, match=r"gives fear/image0000000\.jpg two labels"):
            read_affectnet(kaggle_tree)

    def test_images_that_no_line_names_are_told(self, kaggle_tree, face, write_image, caplog):
        write_image(kaggle_tree / "fear" / "unlisted.jpg", face(2, 9))
        caplog.set_level(logging.WARNING)
        read_affectnet(kaggle_tree)
        assert "1 images without a line in labels.csv are left out, the first fear/unlisted.jpg" in caplog.text

    def test_two_lists_are_refused(self, kaggle_tree):
        (kaggle_tree / "more").mkdir()
        (kaggle_tree / "more" / "labels.csv").write_text("pth,label\n")
        with pytest.raises(InputError, match=r"holds labels\.csv and more/labels\.csv: keep one"):
            read_affectnet(kaggle_tree)

    def test_a_missing_file_is_named(self, kaggle_tree, zipped, tmp_path):
        (kaggle_tree / "fear" / "image0000000.jpg").unlink()
        for place in (kaggle_tree, zipped(kaggle_tree)):
            with pytest.raises(InputError, match=r"fear/image0000000\.jpg cannot be read .*on_bad_image=skip"):
                cached_faces(read_affectnet(place), Preprocess(), tmp_path / "cache")

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("label", "emotion", "has no column label"),
            ("anger/image0000001.jpg,anger", "anger/image0000001.jpg,cross", "line 3 has the label 'cross'"),
            ("anger/image0000001.jpg,anger", "anger/image0000001.jpg,", "line 3 lacks its pth or label"),
        ],
    )
    def test_an_unusable_csv_is_told(self, kaggle_tree, old, new, message):
        csv = kaggle_tree / "labels.csv"
        csv.write_text(csv.read_text().replace(old, new))
        with pytest.raises(InputError, match=message):
            read_affectnet(kaggle_tree)


class TestClassFolders:
    def test_folders_of_any_spelling_give_the_classes_in_order(self, kaggle_tree):
        (kaggle_tree / "labels.csv").unlink()
        (kaggle_tree / "happy").rename(kaggle_tree / "Happiness")
        index = read_affectnet(kaggle_tree)
        assert index.class_names == AFFECTNET_CLASSES
        assert sorted(labels(index)) == sorted([*AFFECTNET_CLASSES] * 2)

    @pytest.mark.parametrize(
        ("levels", "splits"),
        [
            (("train", "test"), {"train", "test"}),
            (("train", "val", "test"), {"train", "val", "test"}),
            (("train", "val"), {"train", "test"}),  # AffectNet's own val is what papers report on
        ],
    )
    def test_a_split_level_is_kept(self, kaggle_tree, tmp_path, levels, splits):
        (kaggle_tree / "labels.csv").unlink()
        (tmp_path / "levels").mkdir()
        for level in levels:
            (tmp_path / "levels" / level).symlink_to(kaggle_tree)
        assert set(read_affectnet(tmp_path / "levels").splits) == splits

    def test_an_unknown_class_folder_is_named(self, kaggle_tree):
        (kaggle_tree / "labels.csv").unlink()
        (kaggle_tree / "happy").rename(kaggle_tree / "cheerful")
        with pytest.raises(InputError, match="the class directory 'cheerful', which AffectNet does not have"):
            read_affectnet(kaggle_tree)


class TestClasses:
    @pytest.mark.parametrize("excluded", ["contempt", "neutral"])
    def test_a_class_can_be_left_out(self, official_tree, excluded):
        index = read_affectnet(official_tree, exclude=[excluded])
        assert index.class_names == tuple(name for name in AFFECTNET_CLASSES if name != excluded)
        assert excluded not in labels(index)
        assert len(index.names) == 28

    def test_a_missing_class_is_told_with_the_setting_that_leaves_it_out(self, kaggle_tree):
        (kaggle_tree / "labels.csv").unlink()
        (kaggle_tree / "neutral").rename(kaggle_tree / ".neutral")
        with pytest.raises(InputError, match=r"no image of class neutral: .*'data\.reader\.exclude=\[neutral\]'"):
            read_affectnet(kaggle_tree)

    def test_an_unknown_class_to_exclude_is_refused(self, official_tree):
        with pytest.raises(InputError, match="exclude has bored, but the classes are angry"):
            read_affectnet(official_tree, exclude=["bored"])


def test_nothing_there_says_what_is_looked_for(tmp_path):
    with pytest.raises(InputError, match="no AffectNet .*train_set.* found in"):
        read_affectnet(tmp_path)
