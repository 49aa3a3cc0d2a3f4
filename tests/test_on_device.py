"""Bytes that stay on the training device, and augmentation of whole batches there."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fer_lightning import losses
from fer_lightning.data import on_device
from fer_lightning.data.batch import FaceBatch
from fer_lightning.data.datamodule import FaceDataModule, LateLoader
from fer_lightning.data.dataset import EpochSampler
from fer_lightning.data.on_device import BatchAugmentation, DeviceLoader, has_room
from fer_lightning.errors import InputError
from fer_lightning.settings.config import compose_config, instantiate

TINY = ("data.reader.train=140", "data.reader.val=35", "data.reader.test=35", "data.batch_size=16")


@pytest.fixture
def make(tmp_path):
    """make(*overrides): the DataModule of the drawn faces."""

    def datamodule(*overrides: str) -> FaceDataModule:
        return instantiate(compose_config(*TINY, f"data.cache_dir={tmp_path / 'cache'}", *overrides).data)

    return datamodule


@pytest.fixture(scope="module")
def augmentation():
    return instantiate(compose_config("augmentation=batch").augmentation, _convert_="all")


def faces(count: int) -> torch.Tensor:
    """A bright disc above the middle of gray pictures, float (N, 1, 48, 48)."""
    rows, columns = np.indices((48, 48))
    disc = (np.hypot(rows - 16, columns - 20) < 8).astype(np.float32)
    return torch.from_numpy(0.2 + 0.6 * disc).expand(count, 1, 48, 48).clone()


class TestBatchAugmentation:
    def test_each_image_of_a_batch_draws_its_own(self, augmentation):
        torch.manual_seed(0)
        out = augmentation(faces(64))
        assert (out.shape, out.dtype) == ((64, 1, 48, 48), torch.float32)
        assert 0 <= out.min() <= out.max() <= 1
        assert len({image.numpy().tobytes() for image in out}) > 60

    def test_torchs_seed_repeats_its_draws_and_another_does_not(self, augmentation):
        runs = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            runs.append(augmentation(faces(8)))
        assert torch.equal(runs[0], runs[1])
        assert not torch.equal(runs[0], runs[2])

    def test_transforms_without_names_are_refused(self):
        with pytest.raises(InputError, match="augmentation=batch needs a name for each of its transforms"):
            BatchAugmentation([torch.nn.Identity()])

    def test_no_gradient_is_kept(self, augmentation):
        assert not augmentation(faces(2).requires_grad_()).requires_grad

    def test_it_moves_a_spot_as_far_as_the_augmentation_of_single_images(self, augmentation):
        single = instantiate(compose_config("augmentation=light").augmentation.transforms[1])
        single.set_random_seed(0)
        torch.manual_seed(0)
        image = np.zeros((48, 48), np.uint8)
        image[22:26, 34:38] = 255
        batch = augmentation.affine(torch.from_numpy(image)[None, None].repeat(600, 1, 1, 1).float())[:, 0].numpy()
        singles = np.stack([single(image=image)["image"] for _ in range(600)])
        rows, columns = np.indices((48, 48))
        centers = [
            [(images * place).sum(axis=(1, 2)) / images.sum(axis=(1, 2)) for place in (rows, columns)]
            for images in (batch, singles)
        ]
        for ours, theirs in zip(*centers, strict=True):
            assert ours.mean() == pytest.approx(theirs.mean(), abs=0.4)
            assert ours.std() == pytest.approx(theirs.std(), abs=0.4)
            assert ours.std() > 1.5

    def test_it_mirrors_half_of_the_pictures_as_the_augmentation_of_single_images_does(self, augmentation):
        single = instantiate(compose_config("augmentation=light").augmentation.transforms[0])
        single.set_random_seed(0)
        torch.manual_seed(0)
        image = np.tile(np.arange(48, dtype=np.uint8), (48, 1))
        batch = augmentation.flip(torch.from_numpy(image)[None, None].repeat(600, 1, 1, 1).float())[:, 0]
        mirrored = [
            np.mean([picture[0, 0] > picture[0, 47] for picture in pictures])
            for pictures in (batch, [single(image=image)["image"] for _ in range(600)])
        ]
        assert mirrored == pytest.approx([0.5, 0.5], abs=0.07)

    def test_on_a_gpu_nothing_is_drawn_on_the_host_copied_or_waited_for(self, augmentation):
        # Tensors of a GPU without their data: reading a value of one is an error.
        with FakeTensorMode(), torch.no_grad(), DevicesUsed() as used:
            augmentation(torch.empty(8, 1, 48, 48, device="cuda"))
        assert used.devices == {"cuda"}


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "weighted", "logit_adjusted"])
def test_a_training_step_on_a_gpu_neither_copies_from_the_host_nor_waits(make, loss):
    cfg = compose_config("model=cnn3", f"loss={loss}", "model.label_smoothing=0", "preprocess.scaling=standard")
    datamodule = make("augmentation=batch", "preprocess.scaling=standard")
    settings = {"class_names": list(datamodule.class_names), "preprocess": datamodule.preprocess.to_dict()}
    model = instantiate(cfg.model, **settings)
    with FakeTensorMode():
        move_to_fake_gpu(model)
        images = torch.empty(16, 1, 48, 48, dtype=torch.uint8, device="cuda")
        batch = FaceBatch(images, *torch.zeros(2, 16, dtype=torch.int64, device="cuda"))
        with DevicesUsed() as used:
            model.training_step(datamodule.on_after_batch_transfer(batch, 0), 0)
    assert used.devices == {"cuda"}


def test_a_loss_is_called_as_it_is_and_not_through_hydras_checks(make):
    cfg, datamodule = compose_config("loss=focal", "model.label_smoothing=0"), make()
    settings = {"class_names": list(datamodule.class_names), "preprocess": datamodule.preprocess.to_dict()}
    loss = instantiate(cfg.model, **settings)._loss
    assert type(loss) is partial
    assert loss.func is losses.focal


def test_a_batch_goes_to_the_device_and_stays_if_it_is_there(make):
    datamodule = make("augmentation=batch")
    batch = next(iter(datamodule.train_dataloader()))
    moved = datamodule.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert isinstance(moved, FaceBatch)
    assert {tensor.device.type for tensor in moved} == {"meta"}
    stayed = datamodule.transfer_batch_to_device(batch, batch.images.device, 0)
    assert all(after is before for after, before in zip(stayed, batch, strict=True))


def move_to_fake_gpu(model: torch.nn.Module) -> None:
    """Give a model tensors of a GPU in place of its own, without their data."""

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        moved = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")
        return torch.nn.Parameter(moved) if tensor.requires_grad else moved

    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            tensors |= {name: fake(tensor) for name, tensor in tensors.items()}
        for name, state in getattr(module, "_defaults", {}).items():  # of a metric
            if torch.is_tensor(state):
                setattr(module, name, fake(state))


class DevicesUsed(TorchDispatchMode):
    """Collects the kind of device of every tensor that an operation takes or makes."""

    def __init__(self):
        super().__init__()
        self.devices = set()

    def __torch_dispatch__(self, operation, types, arguments=(), settings=None):
        made = operation(*arguments, **(settings or {}))
        tensors = [leaf for leaf in tree_leaves((arguments, settings, made)) if isinstance(leaf, torch.Tensor)]
        self.devices |= {tensor.device.type for tensor in tensors}
        return made


class TestTraining:
    def test_a_batch_reaches_the_device_as_bytes_and_the_network_as_floats(self, make):
        datamodule = make("augmentation=batch", "preprocess.scaling=standard")
        batch = next(iter(datamodule.train_dataloader()))
        assert (batch.images.dtype, batch.images.shape) == (torch.uint8, (16, 1, 48, 48))
        ready = datamodule.on_after_batch_transfer(batch, 0)
        assert ready.images.dtype == torch.float32
        assert -3 < ready.images.mean() < 3
        assert torch.equal(ready.targets, batch.targets)

    def test_without_augmentation_it_is_what_single_images_become(self, make):
        names = ("flip", "affine", "brightness_contrast", "gamma", "noise", "erasing")
        none = [f"augmentation.transforms.{name}=null" for name in names]
        datamodule = make("augmentation=batch", *none, "preprocess.scaling=symmetric")
        dataset = datamodule.dataset("train", augmented=True)
        as_bytes = dataset.__getitems__([(0, i) for i in range(8)])
        ready = datamodule.on_after_batch_transfer(as_bytes, 0)
        plain = datamodule.dataset("train").__getitems__([(0, i) for i in range(8)])
        torch.testing.assert_close(ready.images, plain.images, atol=1e-6, rtol=0)

    def test_a_filter_which_would_come_before_it_is_refused(self, make):
        with pytest.raises(InstantiationException, match="augmentation=batch changes pictures that are filtered"):
            make("augmentation=batch", "preprocess=gaussian")

    @pytest.mark.parametrize("channels", [1, 3])
    def test_pictures_of_training_show_what_is_trained_on(self, make, channels):
        datamodule = make("augmentation=batch", f"preprocess.channels={channels}")
        plain = datamodule.dataset("train").pictures([(0, i) for i in range(20)])
        seen = datamodule.augmented_faces(range(20), epoch=0)
        assert (seen.shape, seen.dtype) == (plain.shape, np.uint8)
        assert (seen != plain).any(axis=tuple(range(1, seen.ndim))).sum() > 15

    def test_validation_is_not_augmented(self, make):
        datamodule = make("augmentation=batch")
        batch = next(iter(datamodule.val_dataloader()))
        assert batch.images.dtype == torch.float32
        assert datamodule.on_after_batch_transfer(batch, 0) is batch

    @pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
    @pytest.mark.parametrize("augmentation", ["batch", "none"])
    def test_a_run_whose_images_stay_on_the_device_is_as_one_whose_do_not(self, tmp_path, monkeypatch, augmentation):
        from fer_lightning.runs.training import train

        weights, places = [], (f"data.cache_dir={tmp_path / 'cache'}", "logger=none", "trainer.accelerator=cpu")
        for number, device in enumerate((None, torch.device("cpu"))):
            monkeypatch.setattr(FaceDataModule, "_gpu", device)  # as if the CPU were a GPU
            monkeypatch.setattr(on_device, "free_bytes", lambda device: 1_000_000_000)
            settings = (f"augmentation={augmentation}", "model=cnn3", "trainer.max_epochs=2", "data.num_workers=0")
            train(compose_config(*TINY, *places, *settings, f"output_dir={tmp_path / str(number)}"))
            last = torch.load(tmp_path / str(number) / "checkpoints" / "last.ckpt", weights_only=True)
            weights.append(last["state_dict"])
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    def test_a_run_with_all_of_it_trains_and_repeats(self, tmp_path):
        from fer_lightning.runs.training import train

        losses = []
        for number in range(2):
            folder = tmp_path / f"run{number}"
            places = (f"output_dir={folder}", f"data.cache_dir={tmp_path / 'cache'}", "logger=none")
            recipe = ("augmentation=batch", "model=seresnet_s", "model.net.drop_path=0.2", "model.mixup=0.2")
            more = ("model.decay_weights_only=true", "trainer.max_epochs=1", "trainer.accelerator=cpu")
            train(compose_config(*TINY, *places, *recipe, *more))
            losses.append(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
        assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])


class TestDeviceLoader:
    def test_its_batches_are_the_usual_loaders(self, make):
        datamodule = make("augmentation=batch")
        dataset = datamodule.dataset("train", augmented=True)
        samplers = [EpochSampler(len(dataset), shuffle=True, seed=3) for _ in range(2)]
        loader = DeviceLoader(
            torch.from_numpy(dataset.all_images()), dataset.targets, dataset.indices, samplers[0], batch_size=16
        )
        samplers[0].set_epoch(2)
        samplers[1].set_epoch(2)
        draws = list(samplers[1])
        assert len(loader) == -(-len(dataset) // 16)
        for number, batch in enumerate(loader):
            expected = dataset.__getitems__(draws[16 * number : 16 * number + 16])
            assert isinstance(batch, FaceBatch)
            assert all(torch.equal(one, other) for one, other in zip(batch, expected, strict=True))
        assert number + 1 == len(loader)

    @pytest.fixture
    def on_gpu(self, make, monkeypatch):
        """on_gpu(free, *overrides): the DataModule as on a GPU with that many free bytes, which need not be here."""

        def datamodule(free: int, *overrides: str) -> FaceDataModule:
            made = make(*overrides)
            monkeypatch.setattr(on_device, "free_bytes", lambda device: free)
            monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: tensor)
            strategy = SimpleNamespace(root_device=torch.device("cuda"))
            made.trainer = SimpleNamespace(strategy=strategy, global_rank=0, world_size=1, num_devices=1)
            return made

        return datamodule

    @pytest.mark.parametrize(
        ("free", "train", "val"),
        [
            (1_000_000_000, DeviceLoader, DeviceLoader),
            (1_000_000, LateLoader, DeviceLoader),
            (1, LateLoader, LateLoader),
        ],
    )
    def test_it_is_used_on_a_gpu_with_room_and_the_usual_loader_elsewhere(self, on_gpu, free, train, val):
        datamodule = on_gpu(free, "augmentation=batch", "data.reader.train=280")
        assert type(datamodule.train_dataloader()) is train
        assert type(datamodule.val_dataloader()) is type(datamodule.test_dataloader()) is val

    def test_images_that_are_augmented_one_by_one_are_loaded_as_usual(self, on_gpu):
        datamodule = on_gpu(1_000_000_000, "augmentation=light")
        assert type(datamodule.train_dataloader()) is LateLoader
        assert type(datamodule.val_dataloader()) is DeviceLoader

    @pytest.mark.parametrize(
        "choices",
        [("augmentation=batch", "preprocess.scaling=symmetric"), ("augmentation=light", "preprocess=gaussian")],
    )
    def test_what_is_validated_there_is_what_is_validated_elsewhere(self, make, on_gpu, choices):
        here, there = list(make(*choices).val_dataloader()), list(on_gpu(1_000_000_000, *choices).val_dataloader())
        assert len(here) == len(there) == 3
        for one, other in zip(here, there, strict=True):
            assert all(torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))

    def test_a_device_without_room_is_told_of(self, monkeypatch, caplog):
        monkeypatch.setattr(on_device, "free_bytes", lambda device: 1_000_000)
        device = torch.device("cuda")
        assert has_room(device, "train", 400_000)
        assert not has_room(device, "val", 600_000)
        assert "the val images (0.0 GB) do not fit on cuda, which has 0.0 GB free: they are copied" in caplog.text
