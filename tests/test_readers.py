import errno
import logging
import os
import re
import shutil
import sys
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from fer_lightning.data.cache import cached_faces
from fer_lightning.data.ckplus import read_ckplus
from fer_lightning.data.faces import FaceIndex
from fer_lightning.data.fer2013 import read_fer2013
from fer_lightning.data.folder import read_folder
from fer_lightning.data.tree import FileTree
from fer_lightning.errors import InputError
from fer_lightning.labels import CKPLUS_CLASSES, FER2013_CLASSES
from fer_lightning.preprocess import Preprocess

READERS = {"ckplus": read_ckplus, "fer2013": read_fer2013, "folder": read_folder}
FER2013_COUNTS = {
    "train": {
        "angry": 3995,
        "disgust": 436,
        "fear": 4097,
        "happy": 7215,
        "sad": 4830,
        "surprise": 3171,
        "neutral": 4965,
    },
    "val": {"angry": 467, "disgust": 56, "fear": 496, "happy": 895, "sad": 653, "surprise": 415, "neutral": 607},
}
CKPLUS_COUNTS = {"angry": 135, "disgust": 177, "fear": 75, "happy": 207, "sad": 84, "surprise": 249, "contempt": 54}


def pixels(index: FaceIndex) -> np.ndarray:
    return np.stack([index.read(i) for i in range(len(index.names))])


def labels(index: FaceIndex) -> list[str]:
    return [index.class_names[target] for target in index.targets]


@pytest.fixture
def tree(request):
    """The tiny tree of the dataset that the test is parametrised by; the CK+ one serves as plain class folders."""
    return lambda dataset: request.getfixturevalue("fer2013_tree" if dataset == "fer2013" else "ckplus_tree")


@pytest.fixture
def cats_and_dogs(tmp_path, face, write_image):
    """Two images a class, below `level` of the folder that is returned."""

    def write(*levels: str) -> Path:
        for level in levels:
            for label, name in enumerate(("dogs", "cats")):
                for number in range(2):
                    write_image(tmp_path / "pets" / level / name / f"{number}.png", face(label, number))
        return tmp_path / "pets"

    return write


@pytest.fixture(scope="module")
def real_fer2013(real_data):
    return read_fer2013(real_data("fer2013"))


class TestCkplus:
    def test_labels_are_the_directories_in_their_own_order(self, ckplus_tree):
        index = read_ckplus(ckplus_tree)
        assert index.class_names == CKPLUS_CLASSES
        assert Counter(labels(index)) == dict.fromkeys(CKPLUS_CLASSES, 12)
        spelling = {"anger": "angry", "sadness": "sad"}
        folders = [name.split("/")[1] for name in index.names]
        assert labels(index) == [spelling.get(folder, folder) for folder in folders]

    def test_subject_and_sequence_come_from_the_file_name(self, ckplus_tree):
        index = read_ckplus(ckplus_tree)
        i = index.names.index("CK+48/fear/S011_004_00000013.png")
        assert (index.subjects[i], index.sequences[i]) == ("S011", "S011_004")

    def test_a_sequence_is_three_frames_of_one_person(self, ckplus_tree):
        index = read_ckplus(ckplus_tree)
        assert set(Counter(index.sequences).values()) == {3}
        assert len(set(index.sequences)) == 28

    def test_it_has_no_split_of_its_own(self, ckplus_tree):
        assert read_ckplus(ckplus_tree).splits is None

    def test_pixels_are_those_of_the_file(self, ckplus_tree, face):
        index = read_ckplus(ckplus_tree)
        image = index.read(index.names.index("CK+48/disgust/S010_003_00000014.png"))
        np.testing.assert_array_equal(Preprocess().prepare(image), face(2, 12))

    def test_an_unknown_class_directory_is_named_with_the_known_ones(self, ckplus_tree):
        (ckplus_tree / "CK+48" / "fear").rename(ckplus_tree / "CK+48" / "terror")
        with pytest.raises(InputError, match=r"'terror' is none of angry, .*contempt; rename it"):
            read_ckplus(ckplus_tree)

    def test_a_file_name_without_subject_is_refused(self, ckplus_tree):
        folder = ckplus_tree / "CK+48" / "fear"
        (folder / "S011_004_00000013.png").rename(folder / "face13.png")
        with pytest.raises(InputError, match=r"fear/face13\.png is not named <class>/S<subject>.*remove or rename it"):
            read_ckplus(ckplus_tree)

    def test_an_empty_class_is_named(self, ckplus_tree):
        shutil.rmtree(ckplus_tree / "CK+48" / "fear")
        with pytest.raises(InputError, match="no image of class fear: 72 images were found; complete the download"):
            read_ckplus(ckplus_tree)

    def test_an_image_outside_the_class_folders_is_refused(self, ckplus_tree):
        (ckplus_tree / "CK+48" / "fear" / "S011_004_00000013.png").rename(
            ckplus_tree / "CK+48" / "S011_004_00000013.png"
        )
        with pytest.raises(InputError, match=r"directory 'CK\+48' is none of"):
            read_ckplus(ckplus_tree)

    def test_the_real_archive_is_complete(self, real_data):
        index = read_ckplus(real_data("ckplus"))
        assert len(index.names) == 981
        assert Counter(labels(index)) == CKPLUS_COUNTS
        assert len(set(index.subjects)) == 118
        assert len(set(index.sequences)) == 327
        assert {len(set(index.targets[index.sequences == sequence])) for sequence in index.sequences} == {1}


class TestFer2013Folders:
    def test_labels_are_the_directories_in_the_order_of_the_csv(self, fer2013_tree):
        index = read_fer2013(fer2013_tree)
        assert index.class_names == FER2013_CLASSES
        assert labels(index) == [name.split("/")[1] for name in index.names]
        assert Counter(labels(index)) == dict.fromkeys(FER2013_CLASSES, 8)

    def test_the_file_name_says_the_split_wherever_the_file_lies(self, fer2013_tree):
        index = read_fer2013(fer2013_tree)
        splits = {
            name.split("/")[-1].split("_")[0]: split for name, split in zip(index.names, index.splits, strict=True)
        }
        assert splits == {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
        assert Counter(index.splits.tolist()) == {"train": 28, "val": 14, "test": 14}

    def test_it_works_without_the_private_test(self, fer2013_tree):
        for path in fer2013_tree.glob("test/*/PrivateTest_*.jpg"):
            path.unlink()
        assert Counter(read_fer2013(fer2013_tree).splits.tolist()) == {"train": 28, "val": 14}

    def test_it_does_not_know_who_is_seen(self, fer2013_tree):
        assert read_fer2013(fer2013_tree).subjects is None

    def test_an_unknown_class_directory_is_named_with_the_known_ones(self, fer2013_tree):
        (fer2013_tree / "train" / "fear").rename(fer2013_tree / "train" / "contempt")
        with pytest.raises(InputError, match=r"'contempt' is none of angry, .*neutral; rename it"):
            read_fer2013(fer2013_tree)

    def test_a_file_name_without_its_split_is_refused(self, fer2013_tree):
        (fer2013_tree / "train" / "fear" / "Training_2000.jpg").rename(fer2013_tree / "train" / "fear" / "me.jpg")
        with pytest.raises(InputError, match=r"train/fear/me\.jpg is not named <class>/Training_.*data=folder"):
            read_fer2013(fer2013_tree)

    def test_the_real_archive_has_the_published_counts(self, real_fer2013):
        names = np.array(labels(real_fer2013))
        assert {
            split: Counter(names[real_fer2013.splits == split].tolist()) for split in FER2013_COUNTS
        } == FER2013_COUNTS

    def test_the_real_archive_has_a_test_split_where_it_holds_private_test(self, real_fer2013):
        private = sum("PrivateTest" in name for name in real_fer2013.names)
        assert Counter(real_fer2013.splits.tolist()) == {"train": 28709, "val": 3589} | (
            {"test": 3589} if private else {}
        )


class TestFer2013Csv:
    @pytest.fixture(params=["fer2013", "icml_face_data", "zip"])
    def csv_root(self, request, fer2013_rows, write_fer2013_csv, zipped):
        if request.param == "icml_face_data":
            rows = [row | {"Usage": f" {row['Usage']}", "pixels": f" {row['pixels']}"} for row in fer2013_rows]
            return write_fer2013_csv(rows, name="icml_face_data.csv", header=("emotion", " Usage", " pixels"))
        folder = write_fer2013_csv(fer2013_rows)
        return zipped(folder) if request.param == "zip" else folder

    def test_a_csv_beside_image_folders_is_refused(self, fer2013_tree, fer2013_rows, write_fer2013_csv):
        shutil.copy(write_fer2013_csv(fer2013_rows) / "fer2013.csv", fer2013_tree)
        with pytest.raises(
            InputError, match=r"more than once, as fer2013\.csv and test/angry/.*: move all but one away"
        ):
            read_fer2013(fer2013_tree)

    def test_labels_are_the_emotion_codes(self, csv_root):
        index = read_fer2013(csv_root)
        assert index.class_names == FER2013_CLASSES
        assert index.targets.tolist() == np.repeat(range(7), 8).tolist()

    def test_usage_says_the_split(self, csv_root):
        assert read_fer2013(csv_root).splits.tolist() == 7 * (4 * ["train"] + 2 * ["val"] + 2 * ["test"])

    def test_pixels_are_those_of_the_row(self, csv_root, face):
        index = read_fer2013(csv_root)
        np.testing.assert_array_equal(index.read(8 * 3 + 2), face(3, 2))

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            ({"pixels": "1 2 3"}, "has 3 pixels; it must have 2304"),
            ({"pixels": " ".join(["7"] * 2305)}, "has 2305 pixels; it must have 2304"),
            ({"pixels": ""}, r"has \d pixels; it must have 2304"),
            ({"pixels": " ".join(["7"] * 2303 + ["256"])}, "has a pixel that is not 0 to 255 .*256"),
            ({"pixels": " ".join(["7"] * 2303 + ["-1"])}, "has a pixel that is not 0 to 255 .*-1"),
            ({"pixels": " ".join(["7"] * 2303 + ["x"])}, "has a pixel that is not 0 to 255 .*'x'"),
        ],
        ids=["too few", "too many", "none", "too bright", "negative", "word"],
    )
    def test_bad_pixels_are_named_with_their_line(self, fer2013_rows, write_fer2013_csv, tmp_path, change, found):
        fer2013_rows[3] |= change
        index = read_fer2013(write_fer2013_csv(fer2013_rows))
        with pytest.raises(InputError, match=rf"line 5 of fer2013\.csv {found}.*data\.on_bad_image=skip"):
            cached_faces(index, Preprocess(), tmp_path / "cache")

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            ({"emotion": "7"}, r"line 5 has label 7, but fer2013 has classes 0 to 6 \(angry, .*neutral\)"),
            ({"emotion": "-1"}, "line 5 has label -1, but fer2013 has classes 0 to 6"),
            ({"emotion": "happy"}, "line 5 has emotion 'happy'; it must be a number from 0 to 6"),
            ({"emotion": ""}, "line 5 has emotion nan; it must be a number from 0 to 6"),
            ({"emotion": "3.5"}, "line 5 has emotion '3.5'; it must be a number from 0 to 6"),
            ({"Usage": "Holdout"}, "line 5 has Usage 'Holdout'; it must be one of Training, PublicTest, PrivateTest"),
            ({"Usage": ""}, "line 5 has Usage nan; it must be one of Training"),
        ],
        ids=["too large", "negative", "word", "blank", "fraction", "unknown usage", "blank usage"],
    )
    def test_a_bad_label_or_usage_is_named_with_its_line(self, fer2013_rows, write_fer2013_csv, change, found):
        fer2013_rows[3] |= change
        with pytest.raises(InputError, match=found):
            read_fer2013(write_fer2013_csv(fer2013_rows))

    @pytest.mark.parametrize("missing", ["emotion", "pixels", "Usage"])
    def test_a_missing_column_is_named(self, fer2013_rows, write_fer2013_csv, tmp_path, missing):
        header = tuple(column for column in ("emotion", "pixels", "Usage") if column != missing)
        root = write_fer2013_csv(fer2013_rows, header=header)
        with pytest.raises(
            InputError, match=rf"fer2013\.csv has no column {missing}: it must have emotion, pixels and"
        ):
            cached_faces(read_fer2013(root), Preprocess(), tmp_path / "cache")

    def test_an_empty_class_is_named(self, fer2013_rows, write_fer2013_csv):
        rows = [row for row in fer2013_rows if row["emotion"] not in ("1", "4")]
        with pytest.raises(InputError, match="no image of class disgust, sad: 40 images were found"):
            read_fer2013(write_fer2013_csv(rows))

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            (b"", r"fer2013\.csv is not a readable csv file"),
            (b"\xff\xfe\x00", r"fer2013\.csv is not a readable csv file"),
            (b"emotion,pixels,Usage\n", "no image of class angry, .*: 0 images were found"),
            (b"emotion,pixels,Usage\n0,1 2,Training\n1,2 3 ", "line 3 has Usage nan"),
        ],
        ids=["empty", "binary", "header only", "cut short"],
    )
    def test_an_unusable_csv_is_refused(self, write_fer2013_csv, text, found):
        root = write_fer2013_csv([])
        (root / "fer2013.csv").write_bytes(text)
        with pytest.raises(InputError, match=found):
            read_fer2013(root)

    def test_a_comma_at_the_end_of_each_line_moves_no_column(self, fer2013_rows, write_fer2013_csv, face):
        root = write_fer2013_csv([row | {"Usage": f"{row['Usage']},"} for row in fer2013_rows])
        index = read_fer2013(root)
        assert index.targets.tolist() == np.repeat(range(7), 8).tolist()
        np.testing.assert_array_equal(index.read(0), face(0))

    def test_a_csv_damaged_within_its_archive_is_refused(self, fer2013_rows, write_fer2013_csv, zipped):
        archive = zipped(write_fer2013_csv(fer2013_rows))
        data = bytearray(archive.read_bytes())
        data[300:360] = bytes(60)
        archive.write_bytes(data)
        with pytest.raises(InputError, match=r"fer2013\.csv is not a readable csv file"):
            read_fer2013(archive)


class TestFolder:
    def test_the_classes_are_the_folders_sorted(self, cats_and_dogs):
        index = read_folder(cats_and_dogs(""))
        assert index.class_names == ("cats", "dogs")
        assert labels(index) == [name.split("/")[0] for name in index.names]

    def test_the_classes_are_sorted_across_splits_too(self, cats_and_dogs):
        root = cats_and_dogs("test", "train")
        shutil.rmtree(root / "test" / "cats")
        assert read_folder(root).class_names == ("cats", "dogs")

    def test_the_dataset_is_called_by_the_roots_name(self, cats_and_dogs, zipped):
        pets = cats_and_dogs("")
        root = pets.rename(pets.parent / "my.pets")
        assert read_folder(root).dataset == read_folder(zipped(root)).dataset == "folder my.pets"
        assert read_folder(root.rename(root.parent / "folder")).dataset == "folder"

    def test_an_archive_in_the_root_does_not_name_it(self, cats_and_dogs, zipped):
        root = cats_and_dogs("")
        archive = zipped(root)
        for name in ("mine", "others"):
            folder = root.parent / name
            folder.mkdir()
            shutil.copy(archive, folder / "archive.zip")
            assert read_folder(folder).dataset == f"folder {name}"

    def test_a_class_of_files_that_are_no_images_is_told(self, cats_and_dogs, caplog):
        root = cats_and_dogs("")
        (root / "birds").mkdir()
        (root / "birds" / "1.heic").write_bytes(b"0")
        assert read_folder(root).class_names == ("cats", "dogs")
        assert "no image is in birds, which is not counted as a class" in caplog.text

    def test_without_a_split_level_there_is_no_official_split(self, cats_and_dogs):
        assert read_folder(cats_and_dogs("")).splits is None

    @pytest.mark.parametrize("levels", ["train val test", "training validation testing", "Train Valid Test"])
    def test_a_split_level_above_the_classes_is_the_official_split(self, cats_and_dogs, levels):
        index = read_folder(cats_and_dogs(*levels.split()))
        assert index.class_names == ("cats", "dogs")
        own_names = dict(zip(levels.split(), ("train", "val", "test"), strict=True))
        assert index.splits.tolist() == [own_names[name.split("/")[0]] for name in index.names]

    @pytest.mark.parametrize(("level", "split"), [("train", "train"), ("download/Test", "test")])
    def test_a_lone_split_is_one(self, cats_and_dogs, level, split):
        index = read_folder(cats_and_dogs(level))
        assert index.class_names == ("cats", "dogs")
        assert set(index.splits) == {split}

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are text")
    def test_a_name_that_no_table_could_hold_is_told_before_anything_is_read(self, cats_and_dogs):
        root = cats_and_dogs("")
        (root / "cats" / "0.png").rename(root / os.fsdecode(b"cats/caf\xe9.png"))
        with pytest.raises(InputError, match=r"holds cats/caf\\udce9\.png, whose name is not UTF-8, .*: rename it"):
            read_folder(root)

    def test_a_link_to_a_folder_that_holds_it_is_refused(self, cats_and_dogs):
        root = cats_and_dogs("")
        (root / "cats" / "up").symlink_to(root)
        with pytest.raises(InputError, match="up is a link to a folder that holds it: remove the link"):
            read_folder(root)

    def test_a_class_has_one_name_however_its_accent_is_written(self, cats_and_dogs):
        root = cats_and_dogs("train", "test")
        (root / "train" / "cats").rename(root / "train" / "d\u00e9")
        (root / "test" / "cats").rename(root / "test" / "de\u0301")
        assert read_folder(root).class_names == ("dogs", "d\u00e9")

    @pytest.mark.parametrize("top", ["download", "download/data v2"])
    @pytest.mark.parametrize("splits", [[""], ["train", "test"]], ids=["unsplit", "split"])
    def test_an_archives_own_top_folder_is_no_class(self, cats_and_dogs, top, splits):
        index = read_folder(cats_and_dogs(*(f"{top}/{split}" for split in splits)))
        assert index.class_names == ("cats", "dogs")
        assert (index.splits is None) == (splits == [""])

    @pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".jpe", ".JPG", ".png", ".bmp", ".webp"])
    @pytest.mark.parametrize("colour", [False, True], ids=["gray", "colour"])
    def test_any_format_and_size_becomes_a_face(self, cats_and_dogs, face, write_image, suffix, colour):
        root = cats_and_dogs("")
        image = cv2.resize(face(0), (70, 50))
        write_image(root / "dogs" / f"new{suffix}", cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if colour else image)
        index = read_folder(root)
        read = index.read(index.names.index(f"dogs/new{suffix}"))
        assert read.shape == (50, 70, 3)
        np.testing.assert_allclose(read.mean(axis=2), image, atol=12)

    def test_colours_are_read_in_opencvs_order(self, cats_and_dogs, write_image):
        root = cats_and_dogs("")
        write_image(root / "cats" / "blue.png", np.full((48, 48, 3), (250, 20, 10), np.uint8))
        index = read_folder(root)
        assert index.read(index.names.index("cats/blue.png"))[0, 0].tolist() == [250, 20, 10]

    def test_other_files_are_left_out_and_named_in_the_log(self, cats_and_dogs, caplog):
        root = cats_and_dogs("")
        (root / "cats" / "notes.txt").write_text("soft")
        with caplog.at_level(logging.WARNING):
            index = read_folder(root)
        assert len(index.names) == 4
        assert "1 files are not images and are left out, first cats/notes.txt" in caplog.text

    @pytest.mark.parametrize("name", ["cats/.hidden.png", "__MACOSX/cats/._0.png", ".thumbs/0.png"])
    def test_hidden_files_are_ignored(self, cats_and_dogs, face, write_image, name):
        root = cats_and_dogs("")
        write_image(root / name, face(0))
        assert len(read_folder(root).names) == 4

    def test_an_image_outside_a_class_folder_is_refused(self, cats_and_dogs, face, write_image):
        root = cats_and_dogs("")
        write_image(root / "me.png", face(0))
        with pytest.raises(InputError, match=r"me\.png lies in no class folder; put it in one named after its class"):
            read_folder(root)

    def test_an_image_outside_a_class_folder_is_refused_below_a_top_folder_too(self, cats_and_dogs, face, write_image):
        root = cats_and_dogs("download")
        write_image(root / "download" / "me.png", face(0))
        with pytest.raises(InputError, match=r"download/me\.png lies in no class folder"):
            read_folder(root)

    @pytest.mark.parametrize("levels", [[""], ["train"]])
    def test_one_class_only_is_refused(self, cats_and_dogs, levels):
        root = cats_and_dogs(*levels)
        shutil.rmtree(root / levels[0] / "dogs")
        with pytest.raises(InputError, match=r"images of one class only, '.*': at least two are needed"):
            read_folder(root)

    def test_a_mixture_of_split_and_unsplit_folders_is_refused(self, cats_and_dogs):
        root = cats_and_dogs("", "train", "test")
        with pytest.raises(
            InputError, match=r"test/cats/0\.png lies in a split.*cats/0\.png does not; put every image"
        ):
            read_folder(root)

    def test_folders_without_images_are_refused(self, tmp_path):
        (tmp_path / "cats").mkdir()
        (tmp_path / "cats" / "notes.txt").write_text("soft")
        with pytest.raises(InputError, match="no class folders with images .* found in"):
            read_folder(tmp_path)

    def test_splits_without_classes_are_not_taken_for_classes(self, tmp_path, face, write_image):
        for split in ("Train", "test"):
            write_image(tmp_path / split / "0.png", face(0))
        with pytest.raises(InputError, match="has the splits Train, test, but no class folders in them: put each"):
            read_folder(tmp_path)

    def test_splits_within_classes_are_not_dropped(self, tmp_path, face, write_image):
        for name in ("cats/train/0", "cats/test/0", "dogs/train/0", "dogs/test/0"):
            write_image(tmp_path / f"{name}.png", face(0))
        with pytest.raises(
            InputError, match=r"cats/test/0\.png lies in a split's folder inside its class's; put it the"
        ):
            read_folder(tmp_path)

    def test_an_archive_is_found_beside_a_folder_of_notes(self, cats_and_dogs, tmp_path):
        place = tmp_path / "downloads"
        (place / "notes").mkdir(parents=True)
        (place / "notes" / "readme.txt").write_text("soft")
        shutil.make_archive(str(place / "pets"), "zip", cats_and_dogs(""))
        assert read_folder(place).class_names == ("cats", "dogs")


class TestPlaces:
    @pytest.fixture(autouse=True)
    def empty_working_directory(self, tmp_path, monkeypatch):
        monkeypatch.delenv("FER_DATA", raising=False)
        (tmp_path / "project").mkdir()
        monkeypatch.chdir(tmp_path / "project")

    @pytest.mark.parametrize("dataset", READERS)
    def test_data_is_found_in_the_working_directory(self, tree, dataset):
        shutil.copytree(tree(dataset), f"data/{dataset}")
        assert len(READERS[dataset]().names) > 50

    @pytest.mark.parametrize("dataset", READERS)
    def test_data_is_found_in_fer_data(self, tree, dataset, tmp_path, monkeypatch):
        shutil.copytree(tree(dataset), tmp_path / "everything" / dataset)
        monkeypatch.setenv("FER_DATA", str(tmp_path / "everything"))
        assert len(READERS[dataset]().names) > 50

    def test_the_working_directory_comes_before_fer_data(self, ckplus_tree, tmp_path, monkeypatch):
        monkeypatch.setenv("FER_DATA", str(tmp_path))
        shutil.copytree(ckplus_tree, "data/ckplus")
        Path("data/ckplus/CK+48/fear/S011_004_00000013.png").unlink()
        assert len(read_ckplus().names) == 83

    def test_fer_data_is_asked_where_the_working_directory_has_an_empty_folder(
        self, ckplus_tree, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("FER_DATA", str(tmp_path))
        Path("data/ckplus").mkdir(parents=True)
        assert len(read_ckplus().names) == 84

    @pytest.mark.parametrize("dataset", READERS)
    def test_an_archive_is_found_in_its_folder_under_any_name(self, tree, zipped, dataset):
        Path("data", dataset).mkdir(parents=True)
        shutil.move(zipped(tree(dataset)), f"data/{dataset}/archive (1).zip")
        assert len(READERS[dataset]().names) > 50

    @pytest.mark.parametrize("dataset", READERS)
    def test_another_archive_in_the_folder_is_passed_over(self, tree, zipped, dataset, tmp_path):
        shutil.move(zipped(tree(dataset)), tmp_path / "project" / "b.zip")
        Path("other").mkdir()
        Path("other/notes.txt").touch()
        shutil.move(zipped(Path("other")), "a.zip")
        shutil.rmtree("other")
        assert len(READERS[dataset](".").names) > 50

    def test_two_archives_of_a_dataset_are_refused(self, tree, zipped, tmp_path):
        archive = zipped(tree("ckplus"))
        for name in ("a.zip", "b.zip"):
            shutil.copy(archive, tmp_path / "project" / name)
        with pytest.raises(InputError, match=r"several archives of ckplus, a\.zip and b\.zip: unpack them there"):
            READERS["ckplus"](".")

    @pytest.mark.parametrize("folder", ["", "CK+48"])
    def test_root_may_be_the_folder_or_the_one_above_it(self, ckplus_tree, folder):
        assert len(read_ckplus(ckplus_tree / folder).names) == 84

    @pytest.mark.parametrize("dataset", READERS)
    def test_a_given_root_is_the_only_place(self, tree, dataset):
        shutil.copytree(tree(dataset), f"data/{dataset}")
        with pytest.raises(InputError, match=r"found in .*/elsewhere: download"):
            READERS[dataset]("elsewhere")

    @pytest.mark.parametrize(
        ("dataset", "download"),
        [("ckplus", "shuvoalok/ck-dataset"), ("fer2013", "msambare/fer2013"), ("folder", "one folder per class")],
    )
    def test_missing_data_names_the_places_the_download_and_data_root(self, dataset, download, tmp_path, monkeypatch):
        monkeypatch.setenv("FER_DATA", str(tmp_path / "everything"))
        message = rf"/project/data/{dataset} and {tmp_path}/everything/{dataset}: download .*{download}.*data\.root=DIR"
        with pytest.raises(InputError, match=message):
            READERS[dataset]()

    def test_a_csv_given_as_root_is_told_to_give_its_folder(self, fer2013_rows, write_fer2013_csv):
        path = write_fer2013_csv(fer2013_rows) / "fer2013.csv"
        with pytest.raises(InputError, match=r"fer2013\.csv .*is .*not a zip archive.*give the folder that holds it"):
            read_fer2013(path)

    @pytest.mark.skipif(sys.platform == "win32", reason="links need privileges")
    def test_a_link_that_leads_nowhere_is_a_bad_image(self, ckplus_tree, tmp_path):
        path = ckplus_tree / "CK+48" / "fear" / "S011_004_00000013.png"
        path.unlink()
        path.symlink_to("moved.png")
        index = read_ckplus(ckplus_tree)
        with pytest.raises(InputError, match=r"S011_004_00000013\.png cannot be read from .*on_bad_image=skip"):
            cached_faces(index, Preprocess(), tmp_path / "cache")

    def test_a_disk_that_does_not_answer_makes_no_bad_image(self, ckplus_tree, tmp_path, monkeypatch):
        index = read_ckplus(ckplus_tree)

        def no_answer(self, name):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(FileTree, "open", no_answer)
        with pytest.raises(InputError, match=r"png cannot be read from .*Input/output error.*try again"):
            cached_faces(index, Preprocess(), tmp_path / "cache", on_bad_image="skip")
        monkeypatch.undo()
        assert not cached_faces(index, Preprocess(), tmp_path / "cache").skipped


def test_a_selection_of_faces_keeps_all_that_belongs_to_each(ckplus_tree):
    index = read_ckplus(ckplus_tree)
    positions = np.arange(1, 84, 3)[::-1]
    chosen = index.select(positions)
    assert chosen.names == [index.names[i] for i in positions]
    for field in ("targets", "subjects", "sequences"):
        np.testing.assert_array_equal(getattr(chosen, field), getattr(index, field)[positions])
    np.testing.assert_array_equal(pixels(chosen), pixels(index)[positions])


@pytest.mark.parametrize("dataset", READERS)
class TestArchives:
    def test_a_zip_and_its_folder_give_the_same_faces(self, tree, zipped, dataset):
        folder = tree(dataset)
        unpacked, archived = READERS[dataset](folder), READERS[dataset](zipped(folder))
        assert archived.names == unpacked.names
        for field in ("targets", "splits", "subjects", "sequences"):
            np.testing.assert_array_equal(getattr(archived, field), getattr(unpacked, field))
        np.testing.assert_array_equal(pixels(archived), pixels(unpacked))

    def test_an_archive_cut_short_is_refused(self, tree, zipped, dataset):
        archive = zipped(tree(dataset))
        archive.write_bytes(archive.read_bytes()[:-1000])
        with pytest.raises(InputError, match=r"\.zip \([\d,]+ bytes\) is cut short or not a zip.*download it again"):
            READERS[dataset](archive)

    @pytest.mark.parametrize("content", [b"", b"<html>Please log in</html>"], ids=["empty", "web page"])
    def test_a_file_that_is_no_zip_is_refused(self, tmp_path, dataset, content):
        (tmp_path / "archive.zip").write_bytes(content)
        with pytest.raises(InputError, match=rf"\({len(content)} bytes\) is cut short or not a zip.*download it again"):
            READERS[dataset](tmp_path)

    def test_a_file_damaged_within_the_archive_is_named(self, tree, zipped, dataset, tmp_path):
        archive = zipped(tree(dataset))
        index = READERS[dataset](archive)
        data = bytearray(archive.read_bytes())
        middle = zipfile.ZipFile(archive).getinfo(index.names[0]).header_offset + 300
        data[middle : middle + 60] = bytes(60)
        archive.write_bytes(data)
        with pytest.raises(InputError, match=rf"{re.escape(index.names[0])} cannot be read from .*on_bad_image=skip"):
            cached_faces(index, Preprocess(), tmp_path / "cache")

    def test_an_encrypted_archive_is_told(self, tree, zipped, dataset, tmp_path):
        archive = zipped(tree(dataset))
        data = bytearray(archive.read_bytes())
        for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            for header in re.finditer(signature, bytes(data)):
                data[header.start() + flags] |= 1
        archive.write_bytes(data)
        index = READERS[dataset](archive)
        with pytest.raises(InputError, match=r"cannot be read from .*encrypted, password required"):
            cached_faces(index, Preprocess(), tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "spoil", "found"),
    [
        ("new.png", lambda data: b"", r"\(0 bytes\) does not decode"),
        ("new.jpg", lambda data: b"not a picture", r"\(13 bytes\) does not decode"),
        ("new.png", lambda data: data[: len(data) // 2], r"\(\d+ bytes\) (is cut short|does not decode)"),
        ("new.jpg", lambda data: data[: len(data) // 2], r"\(\d+ bytes\) (is cut short|does not decode)"),
        ("new.png", lambda data: data[:-12], r"\(\d+ bytes\) (is cut short|does not decode)"),
        ("new.jpg", lambda data: data[:-2], r"\(\d+ bytes\) (is cut short|does not decode)"),
        ("new.bmp", lambda data: data[:-1000], r"\(\d+ bytes\) does not decode"),
    ],
    ids=["0 bytes", "text", "half a png", "half a jpeg", "png without end", "jpeg without end", "short bmp"],
)
def test_an_image_that_does_not_decode_is_named(cats_and_dogs, face, write_image, tmp_path, name, spoil, found):
    root = cats_and_dogs("")
    write_image(root / "dogs" / name, face(0))
    (root / "dogs" / name).write_bytes(spoil((root / "dogs" / name).read_bytes()))
    with pytest.raises(InputError, match=rf"dogs/{name} {found}.*; replace it, or .*data\.on_bad_image=skip"):
        cached_faces(read_folder(root), Preprocess(), tmp_path / "cache")


@pytest.mark.parametrize("name", ["new.jpg", "new.png"])
def test_an_image_with_something_behind_it_is_whole(cats_and_dogs, face, write_image, name):
    root = cats_and_dogs("")
    write_image(root / "dogs" / name, face(0))
    with (root / "dogs" / name).open("ab") as file:
        file.write(bytes(5000))  # telephones put a video there
    index = read_folder(root)
    assert index.read(index.names.index(f"dogs/{name}")).shape == (48, 48, 3)


def test_an_image_that_claims_a_monstrous_size_is_named(cats_and_dogs, tmp_path):
    root = cats_and_dogs("")
    (root / "dogs" / "new.pgm").write_bytes(b"P5 200000 200000 255\n")
    with pytest.raises(InputError, match=r"dogs/new\.pgm \(21 bytes\) does not decode.*data\.on_bad_image=skip"):
        cached_faces(read_folder(root), Preprocess(), tmp_path / "cache")
