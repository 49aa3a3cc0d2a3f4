import logging
import pickle
from collections import Counter
from functools import partial
from itertools import chain
from types import SimpleNamespace

import albumentations as A
import lightning as L
import numpy as np
import pytest
import torch

from fer_lightning.data.ckplus import read_ckplus
from fer_lightning.data.datamodule import FaceDataModule
from fer_lightning.data.dataset import EpochSampler
from fer_lightning.data.faces import FaceIndex
from fer_lightning.data.fer2013 import read_fer2013
from fer_lightning.data.splits import STAGES, official, subject_kfold
from fer_lightning.errors import InputError
from fer_lightning.images import BadImageError
from fer_lightning.preprocess import Preprocess

SPLITS = np.repeat(["train", "val", "test"], (18, 9, 6))
TARGETS = np.arange(33) % 3
# Python >= 3.12 warns of any fork beside threads, which is how PyTorch starts loader workers on Linux.
forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def pictures(face):
    """The 33 images that `datamodule` reads; a test may change them before it does."""
    return np.stack([face(target, number) for number, target in enumerate(TARGETS)])


@pytest.fixture
def datamodule(tmp_path, pictures):
    """A maker of DataModules over 18 training, 9 val and 6 test images, read from memory."""

    def make(*, bad=(), targets=TARGETS, splits=SPLITS, preprocess=None, **settings):
        def read(i):
            if i in bad:
                raise BadImageError(f"{i}.png", "is cut short")
            return pictures[i]

        def reader():
            return FaceIndex(
                dataset="tiny",
                class_names=("angry", "happy", "sad"),
                names=[f"{i}.png" for i in range(33)],
                targets=targets,
                read=read,
                source_key=str((pictures.tobytes(), bad)),
                splits=splits,
            )

        settings = {"batch_size": 6, "num_workers": 0, "cache_dir": tmp_path / "cache"} | settings
        return FaceDataModule(reader, official, preprocess or Preprocess(), **settings)

    return make


@pytest.fixture
def augmentation():
    return A.Compose([A.HorizontalFlip(p=0.5), A.Affine(rotate=(-15, 15), p=1.0)])


@pytest.fixture
def augmented(datamodule, augmentation):
    return partial(datamodule, augmentation=augmentation)


def epoch(loader, number=0):
    """One epoch's batches, begun as Lightning begins it."""
    loader.sampler.set_epoch(number)
    return list(loader)


def two_epochs(datamodule):
    loader = datamodule.train_dataloader()
    return epoch(loader, 0) + epoch(loader, 1)


def by_index(batches):
    """Every image of some batches by its position in the FaceIndex."""
    return {int(i): image for batch in batches for i, image in zip(batch.indices, batch.images, strict=True)}


def same(these, those):
    return all(
        torch.equal(a, b) for one, other in zip(these, those, strict=True) for a, b in zip(one, other, strict=True)
    )


class TestBatches:
    @pytest.mark.parametrize(("channels", "size"), [(1, 48), (3, 48), (1, 40)])
    def test_a_batch_has_float_images_and_a_whole_number_each_for_target_and_index(self, augmented, channels, size):
        batch = epoch(augmented(preprocess=Preprocess(channels=channels, size=size)).train_dataloader())[0]
        assert (batch.images.shape, batch.images.dtype) == ((6, channels, size, size), torch.float32)
        assert (batch.targets.shape, batch.targets.dtype) == ((6,), torch.int64)
        assert (batch.indices.shape, batch.indices.dtype) == ((6,), torch.int64)

    @pytest.mark.parametrize("stage", ["val", "test"])
    def test_validation_and_test_images_are_the_preprocessing_and_nothing_else(self, augmented, pictures, stage):
        module = augmented(preprocess=Preprocess(gaussian_kernel=3, laplacian=True, scaling="symmetric"))
        loader = {"val": module.val_dataloader, "test": module.test_dataloader}[stage]()
        images = by_index(loader)
        assert sorted(images) == np.flatnonzero(stage == SPLITS).tolist()
        for i, image in images.items():
            np.testing.assert_array_equal(image[None], module.preprocess(pictures[i]))

    def test_without_augmentation_training_images_are_the_same_preprocessing(self, datamodule, pictures):
        module = datamodule(preprocess=Preprocess(gaussian_kernel=3, scaling="symmetric"))
        for i, image in by_index(epoch(module.train_dataloader())).items():
            np.testing.assert_array_equal(image[None], module.preprocess(pictures[i]))

    def test_training_images_are_augmented(self, augmented, pictures):
        module = augmented()
        images = by_index(epoch(module.train_dataloader()))
        assert all((image[None].numpy() != module.preprocess(pictures[i])).any() for i, image in images.items())

    def test_the_images_of_a_batch_are_augmented_each_its_own_way(self, augmented, pictures):
        pictures[:] = pictures[0]
        images = by_index(epoch(augmented(targets=TARGETS).train_dataloader()))
        assert len({image.numpy().tobytes() for image in images.values()}) == 18

    def test_transforms_draw_independently_also_for_the_first_image_of_a_batch(self, datamodule, pictures):
        flips = A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])
        module = datamodule(augmentation=flips, batch_size=1)
        loader = module.train_dataloader()
        kinds = set()
        for batch in chain.from_iterable(epoch(loader, number) for number in range(3)):
            image, original = (
                batch.images[0, 0].numpy(),
                module.preprocess.finish(pictures[batch.indices.numpy()])[0, 0],
            )
            turned = {
                "none": original,
                "across": original[:, ::-1],
                "down": original[::-1],
                "both": original[::-1, ::-1],
            }
            kinds |= {kind for kind, expected in turned.items() if np.array_equal(image, expected)}
        assert kinds == {"none", "across", "down", "both"}

    def test_a_misspelt_argument_of_a_transform_is_refused(self, datamodule):
        with pytest.warns(UserWarning, match="rotation"):
            augmentation = A.Compose([A.Affine(rotation=(-30, 30))])
        with pytest.raises(
            InputError, match=r"augmentation: Argument\(s\) 'rotation' are not valid for transform Affine"
        ):
            datamodule(augmentation=augmentation)

    def test_targets_belong_to_their_images(self, augmented):
        for batch in epoch(augmented().train_dataloader()):
            assert batch.targets.tolist() == TARGETS[batch.indices].tolist()

    def test_validation_is_in_order(self, datamodule):
        indices = torch.cat([batch.indices for batch in datamodule().val_dataloader()])
        assert indices.tolist() == list(range(18, 27))

    def test_no_image_is_in_two_splits(self, datamodule):
        module = datamodule()
        loaders = [module.train_dataloader(), module.val_dataloader(), module.test_dataloader()]
        seen = Counter(i for loader in loaders for batch in loader for i in batch.indices.tolist())
        assert seen == Counter(range(33))

    @forks
    @pytest.mark.parametrize("num_workers", [0, 1])
    def test_a_loader_asks_for_the_epoch_at_its_first_batch(self, datamodule, num_workers):
        # Lightning starts a loader before it says which epoch a resumed run goes on with.
        loaders = [datamodule(num_workers=num_workers).train_dataloader() for _ in range(2)]
        started = iter(loaders[0])
        for loader in loaders:
            loader.sampler.set_epoch(3)
        assert torch.equal(next(started).indices, next(iter(loaders[1])).indices)

    @pytest.mark.parametrize("stage", ["val", "test"])
    def test_a_split_that_the_protocol_does_not_give_has_no_loader(self, datamodule, stage):
        module = datamodule(splits=np.where(stage == SPLITS, "train", SPLITS))
        assert not module.has(stage)
        assert {"val": module.val_dataloader, "test": module.test_dataloader}[stage]() == []


@forks
class TestRepeatability:
    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_one_seed_repeats_both_epochs(self, augmented, num_workers):
        assert same(two_epochs(augmented(num_workers=num_workers)), two_epochs(augmented(num_workers=num_workers)))

    def test_the_number_of_workers_changes_nothing(self, augmented):
        assert same(two_epochs(augmented(num_workers=0)), two_epochs(augmented(num_workers=2)))

    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_a_later_epoch_does_not_depend_on_those_before_it(self, augmented, num_workers):
        resumed = epoch(augmented(num_workers=num_workers).train_dataloader(), 1)
        assert same(resumed, two_epochs(augmented(num_workers=num_workers))[3:])

    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_epochs_differ_in_order_and_augmentation(self, augmented, num_workers):
        batches = two_epochs(augmented(num_workers=num_workers))
        first, second = batches[:3], batches[3:]
        assert torch.cat([batch.indices for batch in first]).tolist() != torch.cat([b.indices for b in second]).tolist()
        assert not any(torch.equal(image, by_index(second)[i]) for i, image in by_index(first).items())

    def test_seeds_differ_in_order_and_augmentation(self, augmented):
        first, second = (epoch(augmented(seed=seed).train_dataloader()) for seed in (0, 1))
        assert torch.cat([batch.indices for batch in first]).tolist() != torch.cat([b.indices for b in second]).tolist()
        assert not any(torch.equal(image, by_index(second)[i]) for i, image in by_index(first).items())

    def test_seeds_differ_in_augmentation_of_the_same_draw(self, augmented):
        one, two = (augmented(seed=seed).dataset("train", augmented=True).pictures([(0, 0)]) for seed in (0, 1))
        assert (one != two).any()

    def test_drawing_elsewhere_changes_nothing(self, augmented):
        before = two_epochs(augmented())
        L.seed_everything(99, verbose=False)  # Python's, NumPy's and PyTorch's global generators
        assert same(before, two_epochs(augmented()))

    def test_lightning_begins_every_epoch_as_these_tests_do(self, augmented, tmp_path):
        class Recorder(L.LightningModule):
            def __init__(self):
                super().__init__()
                self.automatic_optimization = False
                self.weight = torch.nn.Parameter(torch.zeros(1))
                self.batches = []

            def training_step(self, batch):
                self.batches.append(batch)

            def validation_step(self, batch):
                pass

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters())

        recorder = Recorder()
        off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        L.Trainer(max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, **off).fit(recorder, augmented())
        assert same(recorder.batches, two_epochs(augmented()))


class TestDataset:
    def test_a_worker_is_not_sent_the_pixels(self, augmented):
        dataset = augmented().dataset("train", augmented=True)
        dataset.pictures([(0, 0)])
        assert len(pickle.dumps(dataset)) < 48 * 48 * 10

    def test_a_dataset_that_was_sent_gives_the_same_batch(self, augmented):
        dataset = augmented().dataset("train", augmented=True)
        draws = [(3, 5), (3, 0)]
        assert same([dataset.__getitems__(draws)], [pickle.loads(pickle.dumps(dataset)).__getitems__(draws)])

    def test_pictures_are_the_batch_before_scaling(self, augmented):
        dataset = augmented().dataset("train", augmented=True)
        draws = [(3, 5), (3, 0)]
        pictures = dataset.pictures(draws)
        assert pictures.dtype == np.uint8
        np.testing.assert_array_equal(dataset.preprocess.finish(pictures), dataset.__getitems__(draws).images)


class TestEpochSampler:
    @pytest.mark.parametrize("world_size", [1, 2, 3])
    def test_in_order_the_processes_cover_each_position_once(self, world_size):
        samplers = [EpochSampler(10, shuffle=False, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert sorted(draw for sampler in samplers for draw in sampler) == [(0, position) for position in range(10)]

    @pytest.mark.parametrize("world_size", [1, 2, 3])
    def test_shuffled_each_process_gets_equally_many_and_none_twice(self, world_size):
        samplers = [EpochSampler(10, shuffle=True, rank=rank, world_size=world_size) for rank in range(world_size)]
        draws = [list(sampler) for sampler in samplers]
        assert {len(part) for part in draws} == {10 // world_size}
        assert len(set(chain(*draws))) == world_size * (10 // world_size)

    @pytest.mark.parametrize("shuffle", [False, True])
    @pytest.mark.parametrize("rank", [0, 1, 2])
    def test_its_length_is_the_number_of_draws(self, shuffle, rank):
        sampler = EpochSampler(10, shuffle=shuffle, rank=rank, world_size=3)
        assert len(sampler) == len(list(sampler))

    def test_draws_carry_the_epoch(self):
        sampler = EpochSampler(3, shuffle=False)
        sampler.set_epoch(7)
        assert list(sampler) == [(7, 0), (7, 1), (7, 2)]

    def test_processes_share_the_order_of_an_epoch(self):
        whole = list(EpochSampler(10, shuffle=True, seed=5))
        assert list(EpochSampler(10, shuffle=True, seed=5, rank=1, world_size=2)) == whole[1::2]


class TestDecodingOnDemand:
    """Where the decoded images would take more than `cache_gb`."""

    def test_batches_are_those_of_the_array_on_disk(self, datamodule):
        stored, on_demand = datamodule(), datamodule(cache_gb=0)
        assert not isinstance(on_demand.cache.open(), np.ndarray)
        for one, other in zip(stored.train_dataloader(), on_demand.train_dataloader(), strict=True):
            torch.testing.assert_close(one, other)

    def test_no_image_is_written_and_the_fingerprint_is_the_same(self, datamodule, tmp_path):
        module = datamodule(cache_gb=0)
        assert module.fingerprint["splits"] == datamodule(cache_dir=tmp_path / "other").fingerprint["splits"]
        assert [path.name for path in (tmp_path / "cache").rglob("*.npy")] == ["digests.npy"]

    def test_images_that_do_not_decode_are_left_out_too(self, datamodule):
        module = datamodule(bad=(2, 20), cache_gb=0, on_bad_image="skip")
        assert {2, 20} == set(module.cache.skipped)
        assert len(list(module.train_dataloader())) == 3

    def test_faces_are_read_by_their_positions(self, datamodule, pictures):
        faces = datamodule(cache_gb=0).faces(np.array([4, 8, 30]))
        np.testing.assert_array_equal(faces[np.array([2, 0])], pictures[[30, 4]])
        assert faces[np.array([], int)].shape == (0, 48, 48)

    @forks
    def test_workers_decode_from_one_archive(self, ckplus_tree, zipped, tmp_path):
        reader = partial(read_ckplus, zipped(ckplus_tree))
        protocol = partial(subject_kfold, fold=0, n_folds=2)
        modules = [
            FaceDataModule(
                reader, protocol, Preprocess(), batch_size=4, cache_dir=tmp_path, cache_gb=gb, num_workers=workers
            )
            for gb, workers in ((1, 0), (0, 2))
        ]
        for one, other in zip(*(module.train_dataloader() for module in modules), strict=True):
            torch.testing.assert_close(one, other)

    def test_a_dataset_goes_to_a_worker_that_shares_no_memory(self, ckplus_tree, zipped, tmp_path):
        reader = partial(read_ckplus, zipped(ckplus_tree))
        module = FaceDataModule(
            reader, partial(subject_kfold, fold=0, n_folds=2), Preprocess(), cache_dir=tmp_path, cache_gb=0
        )
        dataset = module.dataset("train")
        sent = pickle.loads(pickle.dumps(dataset))
        torch.testing.assert_close(sent.__getitems__([(0, 1)]), dataset.__getitems__([(0, 1)]))


class TestOversampling:
    """12 angry training images, 4 happy, 2 sad."""

    TARGETS = np.array([*[0] * 12, *[1] * 4, *[2] * 2, *TARGETS[18:]])

    def drawn(self, module, epochs=200):
        sampler = module.train_dataloader().sampler
        counts = np.zeros(3)
        for epoch in range(epochs):
            sampler.set_epoch(epoch)
            counts += np.bincount(self.TARGETS[[position for _, position in sampler]], minlength=3)
        return counts / epochs

    @pytest.mark.parametrize(("oversample", "expected"), [(0.0, [12, 4, 2]), (1.0, [6, 6, 6])])
    def test_losses_are_told_what_is_drawn(self, datamodule, oversample, expected):
        module = datamodule(targets=self.TARGETS, oversample=oversample)
        assert module.class_counts_drawn().tolist() == pytest.approx(expected)

    @pytest.mark.parametrize(("oversample", "expected"), [(0.0, [12, 4, 2]), (1.0, [6, 6, 6])])
    def test_an_epoch_has_as_many_images_and_the_classes_as_asked(self, datamodule, oversample, expected):
        module = datamodule(targets=self.TARGETS, oversample=oversample)
        np.testing.assert_allclose(self.drawn(module), expected, atol=0.5)

    def test_half_way_a_class_is_drawn_by_the_root_of_its_images(self, datamodule):
        shares = np.sqrt([12, 4, 2])
        module = datamodule(targets=self.TARGETS, oversample=0.5)
        np.testing.assert_allclose(self.drawn(module), 18 * shares / shares.sum(), atol=0.5)

    def test_an_epochs_draws_depend_on_seed_and_epoch_alone(self, datamodule):
        one, same, other = (
            list(datamodule(targets=self.TARGETS, oversample=1.0, seed=seed).train_dataloader().sampler)
            for seed in (1, 1, 2)
        )
        assert one == same != other

    def test_it_changes_nothing_but_training(self, datamodule):
        module = datamodule(targets=self.TARGETS, oversample=1.0)
        assert [position for _, position in module.val_dataloader().sampler] == list(range(9))

    def test_out_of_range_it_is_refused(self, datamodule):
        with pytest.raises(InputError, match="data.oversample must be 0 to 1, got 2"):
            datamodule(oversample=2)


class TestBadImages:
    def test_skip_leaves_them_out_of_every_split(self, datamodule):
        module = datamodule(bad=(2, 20, 30), on_bad_image="skip")
        assert sorted(np.concatenate([module.split[stage] for stage in STAGES]).tolist()) == [
            i for i in range(33) if i not in (2, 20, 30)
        ]

    def test_skip_keeps_images_and_targets_together(self, datamodule, pictures):
        module = datamodule(bad=(2, 20, 30), on_bad_image="skip")
        for stage in STAGES:
            split = module.split[stage]
            batch = module.dataset(stage).__getitems__([(0, position) for position in range(len(split))])
            assert batch.targets.tolist() == TARGETS[split].tolist()
            np.testing.assert_array_equal(batch.images, module.preprocess.finish(pictures[split]))

    def test_skip_logs_each(self, datamodule, caplog):
        with caplog.at_level(logging.WARNING):
            datamodule(bad=(2, 20), on_bad_image="skip").prepare_data()
        assert [record.message for record in caplog.records] == [
            "left out: 2.png is cut short",
            "left out: 20.png is cut short",
        ]

    def test_fail_stops_before_the_first_batch(self, datamodule):
        with pytest.raises(InputError, match=r"tiny: 20\.png is cut short; .*data\.on_bad_image=skip"):
            datamodule(bad=(20,)).prepare_data()


class TestScaling:
    def test_standard_measures_the_training_pixels_only(self, datamodule, pictures):
        pictures[SPLITS != "train"] = 255
        preprocess = datamodule(preprocess=Preprocess(scaling="standard")).preprocess
        pixels = pictures[SPLITS == "train"] / 255
        assert (preprocess.mean, preprocess.std) == (pytest.approx(pixels.mean()), pytest.approx(pixels.std()))

    def test_standard_gives_training_batches_mean_0_and_deviation_1(self, datamodule):
        module = datamodule(preprocess=Preprocess(scaling="standard"), batch_size=18)
        images = epoch(module.train_dataloader())[0].images
        assert images.mean().item() == pytest.approx(0, abs=1e-4)
        assert images.std(correction=0).item() == pytest.approx(1, abs=1e-4)

    def test_a_given_mean_and_deviation_are_kept(self, datamodule):
        preprocess = Preprocess(scaling="standard", mean=0.5, std=0.25)
        assert datamodule(preprocess=preprocess).preprocess == preprocess


class TestFingerprint:
    def test_a_zip_its_folder_and_the_csv_of_its_pixels_agree(self, fer2013_tree, zipped, write_fer2013_csv, tmp_path):
        index = read_fer2013(fer2013_tree)
        usages = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}
        rows = [
            {
                "emotion": str(target),
                "pixels": " ".join(map(str, Preprocess().prepare(index.read(i)).ravel())),
                "Usage": usages[split],
            }
            for i, (target, split) in enumerate(zip(index.targets, index.splits, strict=True))
        ]
        places = [fer2013_tree, zipped(fer2013_tree), write_fer2013_csv(rows[::-1])]
        one, two, three = (
            FaceDataModule(read_fer2013, official, Preprocess(), root=place, cache_dir=tmp_path / "cache").fingerprint
            for place in places
        )
        assert one == two == three

    @pytest.mark.parametrize("stage", STAGES)
    def test_a_changed_pixel_changes_its_split_only(self, datamodule, pictures, stage):
        before = datamodule().fingerprint
        pictures[np.flatnonzero(stage == SPLITS)[2], 7, 7] ^= 1
        after = datamodule().fingerprint
        assert {name for name in STAGES if before["splits"][name] != after["splits"][name]} == {stage}

    @pytest.mark.parametrize(
        "settings", [{"size": 20}, {"channels": 3}, {"gaussian_kernel": 3}, {"scaling": "symmetric"}]
    )
    def test_the_preprocessing_does_not_change_it(self, datamodule, settings):
        assert datamodule(preprocess=Preprocess(**settings)).fingerprint == datamodule().fingerprint

    def test_two_swapped_labels_change_the_hash(self, datamodule):
        swapped = TARGETS.copy()
        swapped[[0, 1]] = swapped[[1, 0]]
        one, two = (datamodule(targets=targets).fingerprint["splits"]["train"] for targets in (TARGETS, swapped))
        assert one["classes"] == two["classes"]
        assert one["sha256"] != two["sha256"]

    def test_it_counts_images_and_classes(self, datamodule):
        splits = datamodule().fingerprint["splits"]
        assert {stage: splits[stage]["count"] for stage in STAGES} == {"train": 18, "val": 9, "test": 6}
        assert splits["val"]["classes"] == {"angry": 3, "happy": 3, "sad": 3}

    def test_it_counts_the_training_pixels_found_in_other_splits(self, datamodule, pictures):
        pictures[[18, 19, 30]] = pictures[[0, 0, 5]]
        assert datamodule().fingerprint["duplicates"] == {"val": 2, "test": 1}

    def test_it_names_protocol_leaks_and_skipped_images(self, datamodule):
        fingerprint = datamodule(bad=(2,), on_bad_image="skip").fingerprint
        assert [fingerprint[name] for name in ("dataset", "protocol", "leaks", "skipped")] == [
            "tiny",
            "official",
            False,
            ["2.png"],
        ]


class TestSettings:
    def test_root_goes_to_the_reader(self, ckplus_tree, tmp_path):
        protocol = partial(subject_kfold, fold=0, n_folds=4)
        module = FaceDataModule(
            read_ckplus, protocol, Preprocess(), root=str(ckplus_tree), cache_dir=tmp_path / "cache"
        )
        assert len(module.index.names) == 84
        assert not set(module.index.subjects[module.split.train]) & set(module.index.subjects[module.split.test])

    def test_an_empty_batch_is_refused(self, datamodule):
        with pytest.raises(InputError, match=r"data\.batch_size must be at least 1, got 0"):
            datamodule(batch_size=0)

    @pytest.mark.parametrize(("device", "workers"), [("cpu", False), ("cuda", True)])
    def test_workers_help_a_gpu_and_do_not_compete_with_a_network_on_the_processor(
        self, datamodule, monkeypatch, device, workers
    ):
        monkeypatch.setattr("fer_lightning.data.datamodule.usable_cores", lambda: 2)
        module = datamodule(num_workers=None)
        strategy = SimpleNamespace(root_device=torch.device(device))
        module.trainer = SimpleNamespace(strategy=strategy, global_rank=0, world_size=1, num_devices=1)
        assert (module.train_dataloader().num_workers > 0) == workers

    def test_the_processes_of_a_machine_share_its_cores_for_their_workers(self, datamodule, monkeypatch):
        monkeypatch.setattr("fer_lightning.data.datamodule.usable_cores", lambda: 16)
        module = datamodule(num_workers=None)
        strategy = SimpleNamespace(root_device=torch.device("cuda"))
        for devices, workers in ((1, 8), (4, 3), (16, 0)):
            module.trainer = SimpleNamespace(strategy=strategy, global_rank=0, world_size=devices, num_devices=devices)
            assert module.train_dataloader().num_workers == workers

    def test_class_names_are_in_label_order(self, datamodule):
        assert datamodule().class_names == ("angry", "happy", "sad")
