from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np
import pytest

from fer_lightning.data.ckplus import read_ckplus
from fer_lightning.data.faces import FaceIndex
from fer_lightning.data.fer2013 import read_fer2013
from fer_lightning.data.splits import STAGES, Split, official, random, subject_kfold, unsplit
from fer_lightning.errors import InputError
from fer_lightning.settings.config import compose_config, instantiate

CLASS_NAMES = ("angry", "happy", "sad")


def index_of(targets, *, subjects=None, splits=None):
    return FaceIndex(
        dataset="tiny",
        class_names=CLASS_NAMES,
        names=[f"{i}.png" for i in range(len(targets))],
        targets=np.asarray(targets),
        read=lambda i: np.zeros((48, 48), np.uint8),
        source_key="key",
        subjects=subjects,
        splits=splits,
    )


@pytest.fixture
def index():
    """100 angry, 300 happy and 200 sad images of 50 people (2, 6 and 4 of each), officially split 4 : 1 : 1."""
    number = np.arange(600)
    return index_of(
        np.repeat(range(3), (100, 300, 200)),
        subjects=np.array([f"S{i:03}" for i in number % 50]),
        splits=np.array(["train", "train", "val", "train", "train", "test"])[number % 6],
    )


@pytest.fixture
def ckplus(real_data):
    return read_ckplus(real_data("ckplus"))


PERCENT = {"random_80_10_10": (80, 10, 10), "random_70_20_10": (70, 20, 10), "random_80_20": (80, 0, 20)}
RANDOM = {name: partial(random, percent=percent, seed=0) for name, percent in PERCENT.items()}
KFOLD = {
    "kfold": partial(subject_kfold, fold=1, n_folds=5),
    "kfold with val": partial(subject_kfold, fold=4, n_folds=5, val_folds=1),
}
SEEDED = RANDOM | KFOLD
PROTOCOLS = SEEDED | {"official": official}


def parts(split):
    return {stage: split[stage].tolist() for stage in STAGES}


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
class TestEveryProtocol:
    def test_every_image_is_in_exactly_one_split(self, index, protocol):
        assert sorted(chain(*parts(protocol(index)).values())) == list(range(600))

    def test_each_split_has_the_class_shares_of_the_whole(self, index, protocol):
        for positions in filter(None, parts(protocol(index)).values()):
            shares = np.bincount(index.targets[positions]) / len(positions)
            np.testing.assert_allclose(shares, [1 / 6, 3 / 6, 2 / 6], atol=0.01)

    def test_positions_are_sorted(self, index, protocol):
        split = protocol(index)
        assert all((np.diff(split[stage]) > 0).all() for stage in STAGES)


@pytest.mark.parametrize("protocol", SEEDED.values(), ids=SEEDED)
class TestSeeds:
    def test_the_same_seed_gives_the_same_split(self, index, protocol):
        assert parts(protocol(index, seed=3)) == parts(protocol(index, seed=3))

    def test_another_seed_gives_another_split(self, index, protocol):
        assert parts(protocol(index, seed=3)) != parts(protocol(index, seed=4))

    @pytest.mark.parametrize("seed", [-1, 2**32])
    def test_one_out_of_range_is_told_as_such(self, index, protocol, seed):
        with pytest.raises(InputError, match=f"protocol.seed must be 0 to 4294967295, got {seed}"):
            protocol(index, seed=seed)


class TestRandom:
    @pytest.mark.parametrize("name", PERCENT)
    def test_each_split_has_its_percentage_to_one_image(self, index, name):
        split = RANDOM[name](index)
        sizes = [len(split[stage]) for stage in STAGES]
        np.testing.assert_allclose(sizes, 6 * np.array(PERCENT[name]), atol=1)

    def test_80_20_has_nothing_to_choose_the_epoch_by(self, index):
        assert len(RANDOM["random_80_20"](index).val) == 0

    @pytest.mark.parametrize("name", PERCENT)
    def test_the_options_of_conf_are_named_after_their_percentages(self, index, name):
        protocol = instantiate(compose_config(f"protocol={name}").protocol)
        assert protocol(index).protocol == name
        assert parts(protocol(index)) == parts(RANDOM[name](index))

    @pytest.mark.parametrize("protocol", RANDOM.values(), ids=RANDOM)
    def test_it_is_marked_as_leaking_people_into_the_test(self, index, protocol):
        assert protocol(index).leaks

    @pytest.mark.parametrize("percent", [(80, 10, 20), (90, 10, 0), (0, 50, 50), (110, -20, 10), (80, 20)], ids=str)
    def test_parts_that_make_no_split_are_refused(self, index, percent):
        with pytest.raises(InputError, match="must be three parts of 100 with train and test above 0, got"):
            random(index, percent=percent, seed=0)

    @pytest.mark.parametrize(
        ("targets", "rarest"),
        [
            ([0] * 50 + [1] + [2] * 50, "happy, has 1"),
            ([0, 0, 1, 1, 2, 2], "angry, has 2"),
            ([0, 1, 2] * 7, "angry, has 7"),
        ],
        ids=["one of a class", "few of all", "some of all"],
    )
    def test_too_few_images_to_stratify_are_refused(self, targets, rarest):
        with pytest.raises(
            InputError,
            match=f"random_80_10_10 cannot give each part .* rarest of {len(targets)} images, {rarest}.*unsplit",
        ):
            RANDOM["random_80_10_10"](index_of(targets))


class TestSubjectKfold:
    def test_people_who_show_one_class_each_are_shared_out_by_class(self, index):
        alike = replace(index, subjects=np.array([f"S{i // 10:03}" for i in range(600)]))
        for fold in range(5):
            test = subject_kfold(alike, fold=fold, n_folds=5).test
            assert np.bincount(alike.targets[test]).tolist() == [20, 60, 40]

    def test_no_person_is_on_two_sides(self, index):
        split = subject_kfold(index, fold=2, n_folds=5, val_folds=1)
        people = [set(index.subjects[split[stage]]) for stage in STAGES]
        assert sum(map(len, people)) == len(set.union(*people)) == 50

    @pytest.mark.parametrize("val_folds", [0, 1, 3])
    def test_every_image_is_tested_exactly_once_over_the_folds(self, index, val_folds):
        folds = [subject_kfold(index, fold=fold, n_folds=5, val_folds=val_folds) for fold in range(5)]
        assert sorted(np.concatenate([split.test for split in folds]).tolist()) == list(range(600))

    def test_the_following_folds_choose_the_epoch(self, index):
        folds = [subject_kfold(index, fold=fold, n_folds=5, val_folds=2) for fold in range(5)]
        following = np.concatenate([folds[4].test, folds[0].test])
        assert folds[3].val.tolist() == sorted(following.tolist())

    def test_without_val_folds_nothing_chooses_the_epoch(self, index):
        assert len(subject_kfold(index, fold=0, n_folds=5).val) == 0

    def test_its_name_says_the_number_of_folds(self, index):
        assert subject_kfold(index, fold=0, n_folds=5).protocol == "subject_kfold_5"

    def test_it_is_not_marked_as_leaking(self, index):
        assert not subject_kfold(index, fold=0, n_folds=5).leaks

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"fold": 5, "n_folds": 5}, "protocol.fold must be 0 to 4, got 5"),
            ({"fold": -1, "n_folds": 5}, "protocol.fold must be 0 to 4, got -1"),
            ({"fold": 0, "n_folds": 1}, r"protocol.n_folds must be 2 to 50 \(the number of subjects\), got 1"),
            ({"fold": 0, "n_folds": 51}, r"protocol.n_folds must be 2 to 50 \(the number of subjects\), got 51"),
            ({"fold": 0, "n_folds": 5, "val_folds": 4}, "protocol.val_folds must be 0 to 3, got 4"),
            ({"fold": 0, "n_folds": 5, "val_folds": -1}, "protocol.val_folds must be 0 to 3, got -1"),
        ],
        ids=lambda value: ", ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
    )
    def test_settings_out_of_range_are_refused(self, index, settings, message):
        with pytest.raises(InputError, match=message):
            subject_kfold(index, **settings)

    def test_an_index_without_subjects_is_refused_with_the_remedy(self):
        with pytest.raises(InputError, match="tiny does not say who is seen.*: use protocol=random_80_10_10$"):
            subject_kfold(index_of([0, 1, 2] * 10), fold=0, n_folds=5)

    def test_fewer_images_a_class_than_folds_are_refused(self):
        few = index_of([0, 1, 2] * 4, subjects=np.array([f"S{i}" for i in range(12)]))
        with pytest.raises(InputError, match=r"subject_kfold_10 .*protocol\.n_folds"):
            subject_kfold(few, fold=0, n_folds=10)

    def test_on_the_real_ckplus_ten_folds_keep_people_and_classes_apart(self, ckplus):
        folds = [subject_kfold(ckplus, fold=fold, n_folds=10) for fold in range(10)]
        assert sorted(np.concatenate([split.test for split in folds]).tolist()) == list(range(981))
        for split in folds:
            assert not set(ckplus.subjects[split.train]) & set(ckplus.subjects[split.test])
            assert set(ckplus.targets[split.train]) == set(ckplus.targets[split.test]) == set(range(7))

    def test_on_the_real_ckplus_a_random_split_leaks_people_and_frames(self, ckplus):
        split = RANDOM["random_80_10_10"](ckplus)
        assert set(ckplus.subjects[split.train]) & set(ckplus.subjects[split.test])
        assert set(ckplus.sequences[split.train]) & set(ckplus.sequences[split.test])


class TestOfficial:
    def test_fer2013_trains_on_training_chooses_by_public_and_reports_private_test(self, fer2013_tree):
        index = read_fer2013(fer2013_tree)
        split = official(index)
        usages = np.array([name.split("/")[-1].split("_")[0] for name in index.names])
        assert {stage: set(usages[split[stage]]) for stage in STAGES} == {
            "train": {"Training"},
            "val": {"PublicTest"},
            "test": {"PrivateTest"},
        }

    def test_it_is_not_marked_as_leaking(self, index):
        assert not official(index).leaks

    def test_a_dataset_without_one_is_refused_with_the_remedy(self):
        with pytest.raises(
            InputError,
            match=r"tiny has no official split: use protocol=random_80_10_10, or protocol=unsplit to measure a",
        ):
            official(index_of([0, 1, 2]))

    def test_a_dataset_with_subjects_is_told_of_their_protocol(self):
        index = index_of([0, 1, 2], subjects=np.array(["S1", "S2", "S3"]))
        with pytest.raises(InputError, match=r"random_80_10_10, protocol=subject_kfold, or protocol=unsplit"):
            official(index)

    def test_a_val_split_is_not_drawn_where_there_is_one(self):
        index = index_of([0, 1, 2] * 3, splits=np.repeat(["train", "val", "test"], 3))
        with pytest.raises(InputError, match="tiny has a val split of its own: omit protocol.val_percent=10"):
            official(index, val_percent=10)

    def test_a_part_of_the_training_images_keeps_every_class_and_leaves_val_and_test_alone(self, index):
        whole, part = official(index), official(index, train_percent=25)
        assert np.bincount(index.targets[whole.train]).tolist() == [67, 200, 133]
        assert np.bincount(index.targets[part.train]).tolist() == [17, 50, 33]
        assert set(part.train) < set(whole.train)
        assert (np.diff(part.train) > 0).all()
        assert [list(part[stage]) for stage in ("val", "test")] == [list(whole[stage]) for stage in ("val", "test")]
        assert part.protocol == "official_train_25"

    def test_a_part_of_the_training_images_is_drawn_by_the_protocols_seed(self, index):
        first, again, other = (list(official(index, train_percent=30, seed=seed).train) for seed in (0, 0, 1))
        assert first == again != other

    def test_images_set_aside_for_val_are_none_of_those_kept_for_training(self):
        split = official(index_of([0, 1, 2] * 50, splits=np.array(["train"] * 150)), val_percent=20, train_percent=50)
        assert (len(split.train), len(split.val)) == (60, 30)

    @pytest.mark.parametrize("percent", [0, 100])
    def test_a_part_that_is_none_or_more_than_all_is_refused(self, index, percent):
        with pytest.raises(
            InputError, match=f"protocol.train_percent must be 1 to 99, or null to keep all, got {percent}"
        ):
            official(index, train_percent=percent)

    @pytest.mark.parametrize(("sad", "percent"), [(1, 50), (20, 1), (20, 99)])
    def test_a_part_or_rest_without_room_for_every_class_is_refused(self, sad, percent):
        index = index_of([0, 1] * 50 + [2] * sad, splits=np.array(["train"] * (100 + sad)))
        with pytest.raises(
            InputError, match=f"protocol.train_percent={percent} cannot give .*; choose another, or null to keep"
        ):
            official(index, train_percent=percent)

    def test_the_real_fer2013_is_split_as_published(self, real_data):
        index = read_fer2013(real_data("fer2013"))
        split = official(index)
        has_private_test = any("PrivateTest" in name for name in index.names)
        assert Counter({stage: len(split[stage]) for stage in STAGES}) == {
            "train": 28709,
            "val": 3589,
            "test": 3589 * has_private_test,
        }


def test_unsplit_is_all_test():
    assert parts(unsplit(index_of([0, 2, 1]))) == {"train": [], "val": [], "test": [0, 1, 2]}


class TestSplit:
    def test_an_image_in_two_splits_is_an_error_of_ours(self):
        with pytest.raises(AssertionError, match="protocol mine put an image into two splits"):
            Split(protocol="mine", train=np.array([0, 1]), test=np.array([1, 2]))

    def test_a_split_of_a_selection_is_told_in_positions_of_the_whole(self):
        split = Split(protocol="mine", train=np.array([0, 2]), test=np.array([1]), leaks=True)
        whole = split.into(np.array([3, 5, 8]))
        assert parts(whole) == {"train": [3, 8], "val": [], "test": [5]}
        assert (whole.protocol, whole.leaks) == ("mine", True)
