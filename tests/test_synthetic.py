"""The embedded data set: what `render_face` and `read_synthetic` promise, and how hard it is to learn."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from fer_lightning.data import synthetic
from fer_lightning.data.drawing import PROTOTYPES, render_face
from fer_lightning.data.faces import FaceIndex
from fer_lightning.data.synthetic import read_synthetic
from fer_lightning.errors import InputError
from fer_lightning.labels import FER2013_CLASSES

HAPPY = FER2013_CLASSES.index("happy")
NEUTRAL = FER2013_CLASSES.index("neutral")


def small_index(*, seed: int = 0) -> FaceIndex:
    return read_synthetic(train=70, val=14, test=21, subjects=20, seed=seed)


def pixels(index: FaceIndex, split: str) -> tuple[np.ndarray, np.ndarray]:
    rows = np.flatnonzero(index.splits == split)
    return np.stack([index.read(i).ravel() for i in rows]) / 255.0, index.targets[rows]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


def test_every_expression_has_a_prototype():
    assert tuple(PROTOTYPES) == FER2013_CLASSES


def test_a_face_is_a_gray_square_of_bytes():
    face = render_face(HAPPY, subject=1, seed=2)
    assert face.shape == (48, 48)
    assert face.dtype == np.uint8
    assert face.std() > 10


@pytest.mark.parametrize("expression", range(len(FER2013_CLASSES)))
def test_a_larger_face_is_the_same_picture(expression):
    small = render_face(expression, subject=5, seed=expression)
    large = render_face(expression, subject=5, seed=expression, size=96)
    assert distance(small, large.reshape(48, 2, 48, 2).mean(axis=(1, 3))) < 10


def test_the_same_arguments_give_the_same_pixels():
    face = render_face(HAPPY, subject=1, seed=2)
    np.testing.assert_array_equal(face, render_face(HAPPY, subject=1, seed=2))
    script = (
        "import sys; from fer_lightning.data.drawing import render_face; "
        f"sys.stdout.buffer.write(render_face({HAPPY}, subject=1, seed=2).tobytes())"
    )
    elsewhere = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=120).stdout
    assert elsewhere == face.tobytes()  # in a process that remembers nothing of the first


def test_expression_subject_and_seed_each_change_the_pixels():
    face = render_face(HAPPY, subject=1, seed=2)
    assert distance(face, render_face(NEUTRAL, subject=1, seed=2)) > 0
    assert distance(face, render_face(HAPPY, subject=2, seed=2)) > 0
    assert distance(face, render_face(HAPPY, subject=1, seed=3)) > 0


def test_another_expression_changes_a_snapshot_less_than_another_person():
    def mean_change(*, expression: int, stranger: int) -> float:
        return np.mean(
            [
                distance(render_face(HAPPY, subject=i, seed=i), render_face(expression, subject=i + stranger, seed=i))
                for i in range(20)
            ]
        )

    assert mean_change(expression=NEUTRAL, stranger=0) < 0.6 * mean_change(expression=HAPPY, stranger=20)


def test_one_subject_looks_alike_across_images():
    def portrait(subject: int, seeds: range) -> np.ndarray:
        return np.mean([render_face(NEUTRAL, subject=subject, seed=seed)[8:40, 8:40] for seed in seeds], axis=0)

    before = [portrait(subject, range(30)) for subject in range(8)]
    after = [portrait(subject, range(30, 60)) for subject in range(8)]
    nearest = [int(np.argmin([distance(face, other) for other in before])) for face in after]
    assert nearest == list(range(8))


def test_classes_are_balanced_within_each_split():
    index = small_index()
    for split, count in {"train": 10, "val": 2, "test": 3}.items():
        np.testing.assert_array_equal(np.bincount(index.targets[index.splits == split]), [count] * 7)


def test_a_count_that_is_no_multiple_of_seven_is_met_and_balanced_to_within_one():
    index = read_synthetic(train=100, val=8, test=7, subjects=10)
    assert [int(np.sum(index.splits == split)) for split in ("train", "val", "test")] == [100, 8, 7]
    counts = np.bincount(index.targets[index.splits == "train"])
    assert counts.max() - counts.min() == 1


def test_targets_come_in_no_order():
    targets = read_synthetic().targets
    neighbours_agree = np.mean(targets[1:] == targets[:-1])
    assert 0.1 < neighbours_agree < 0.2


def test_no_subject_is_in_two_splits_and_all_are_seen():
    index = read_synthetic()
    people = {split: set(index.subjects[index.splits == split]) for split in ("train", "val", "test")}
    assert {split: len(some) for split, some in people.items()} == {"train": 112, "val": 14, "test": 14}
    assert len(set.union(*people.values())) == 140


def test_names_are_unique_and_tell_split_class_and_subject():
    index = small_index()
    assert len(set(index.names)) == len(index.names) == len(index.targets) == 105
    i = 80
    expected = f"{index.splits[i]}/{FER2013_CLASSES[index.targets[i]]}/{index.subjects[i]}_000080.png"
    assert index.names[i] == expected


def test_a_split_of_zero_images_is_left_out():
    assert set(read_synthetic(train=14, val=0, test=7).splits) == {"train", "test"}


def test_nothing_is_drawn_before_an_image_is_read(monkeypatch):
    drawn = []
    monkeypatch.setattr(synthetic, "render_face", lambda *args, **kwargs: drawn.append((args, kwargs)))
    index = small_index()
    assert drawn == []
    index.read(3)
    assert len(drawn) == 1


def test_the_index_survives_pickling():
    index = small_index()
    copy = pickle.loads(pickle.dumps(index))
    np.testing.assert_array_equal(copy.read(17), index.read(17))


def test_every_image_has_a_seed_of_its_own():
    index = small_index()
    assert len({index.read(i).tobytes() for i in range(105)}) == 105


def test_the_source_key_changes_with_the_arguments_and_the_drawing(monkeypatch):
    key = small_index().source_key
    assert key == small_index().source_key
    assert key != small_index(seed=1).source_key
    monkeypatch.setattr(synthetic, "DRAWING_VERSION", synthetic.DRAWING_VERSION + 1)
    assert key != small_index().source_key


def test_another_seed_gives_other_images():
    first, second = small_index(seed=0), small_index(seed=1)
    assert not np.array_equal(first.targets, second.targets)
    assert distance(first.read(0), second.read(0)) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": 6}, "train=6 images .* at least 7"),
        ({"val": 1}, "val=1 images .* at least 7"),
        ({"test": -7}, "test=-7 images .* at least 7"),
        ({"subjects": 9}, "subjects=9 people .* at least 10"),
    ],
)
def test_a_bad_count_is_named_with_its_remedy(arguments, message):
    with pytest.raises(InputError, match=message):
        read_synthetic(**arguments)


def test_a_linear_model_learns_from_few_faces_but_far_from_everything():
    index = read_synthetic(train=1050, val=0, test=420)
    (seen, seen_targets), (unseen, unseen_targets) = pixels(index, "train"), pixels(index, "test")
    ridge = np.linalg.solve(seen @ seen.T + 100 * np.eye(len(seen)), np.eye(7)[seen_targets] - 1 / 7)
    accuracy = np.mean((unseen @ (seen.T @ ridge)).argmax(axis=1) == unseen_targets)
    assert 0.35 < accuracy < 0.75  # chance is 0.14
