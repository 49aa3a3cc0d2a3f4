"""Callbacks of training: averaged and frozen weights, each epoch's seed, metrics.csv and plots."""

import logging
import math
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar, WeightAveraging
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from fer_lightning.atomic import replacing
from fer_lightning.data.batch import FaceBatch
from fer_lightning.errors import InputError
from fer_lightning.machine.hardware import finish_gpu_work
from fer_lightning.module import ExpressionClassifier
from fer_lightning.plots import confusion_matrix_figure, faces_figure, mistakes_figure
from fer_lightning.seeding import seed_from
from fer_lightning.weights.initial import classes_layer, is_part_of

log = logging.getLogger(__name__)

READ_EVERY_S = 0.5


class ProgressBar(RichProgressBar):
    """Lightning's progress bar, with the loss of a step, which it reads from the device a few times a second.

    Reading waits for the device, which would then have no next step at hand: `self.log` would do so at every step.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=10)  # a second; Lightning's 100 compete with a fast training
        self._read_at = -math.inf
        self._metrics: dict[str, Any] = {}
        self._loss: Tensor | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: FaceBatch, batch_idx: int
    ) -> None:
        self._loss = outputs["loss"]
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        if time.monotonic() - self._read_at > READ_EVERY_S:
            loss = {} if self._loss is None else {"loss": self._loss.item()}
            self._metrics = loss | super().get_metrics(trainer, pl_module)
            self._read_at = time.monotonic()
        return self._metrics

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._read_at = -math.inf
        super().on_train_epoch_end(trainer, pl_module)


class EpochSeed(Callback):
    """Makes an epoch's random draws (dropout) depend only on the seed and the epoch's number.

    A run that was killed and resumed then ends with the same weights as an uninterrupted one, on a CPU to the last bit.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        torch.manual_seed(seed_from(self.seed, trainer.current_epoch, trainer.global_rank))


class AveragedWeights(WeightAveraging):
    """An exponential moving average of the weights, which is validated, kept as best and tested.

    It differs from Lightning's EMAWeightAveraging in three ways. The decay rises with the steps n, (1 + n) / (10 + n)
    up to `decay`, since a fixed one leaves a short training with the weights that it began with. The average lies where
    the network is trained, not where it was made. And no step waits for a GPU: torch's own update copies its count of
    steps there each time.

    Args:
        decay: What a step leaves of the average; 0.999 averages over about the last 1,000 steps.
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"callbacks.ema.decay must be from 0 to below 1, got {decay}")
        super().__init__()
        self.decay = decay
        self._tensors: tuple[tuple[list[Tensor], list[Tensor]], ...] | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: FaceBatch, batch_idx: int
    ) -> None:
        if trainer.global_step > self._latest_update_step:  # not while gradients are accumulated
            self.average(pl_module)
            self._latest_update_step = trainer.global_step

    @torch.no_grad()
    def average(self, model: L.LightningModule) -> None:
        """Take the weights and buffers of one more step into the average; whole numbers are copied."""
        steps = int(self._average_model.n_averaged)  # which stays on the CPU
        decay = min(self.decay, (1 + steps) / (10 + steps)) if steps else 0.0
        if self._tensors is None:
            self._tensors = self._pairs(model)
        (mine, its), (my_counts, its_counts) = self._tensors
        torch._foreach_lerp_(mine, its, weight=1 - decay)
        if my_counts:
            torch._foreach_copy_(my_counts, its_counts)
        self._average_model.n_averaged += 1

    def _pairs(self, model: L.LightningModule) -> tuple[tuple[list[Tensor], list[Tensor]], ...]:
        """The average's tensors and the model's, first those of real numbers, then those of whole ones."""
        pairs = [
            pair
            for kind in ("parameters", "buffers")
            for pair in zip(*(getattr(of, kind)() for of in (self._average_model.module, model)), strict=True)
        ]
        return tuple(
            tuple([pair[side] for pair in pairs if pair[0].is_floating_point() is real] for side in (0, 1))
            for real in (True, False)
        )

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._average_model.module.to(pl_module.device)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._tensors = None  # those of before have been moved


class EarlyStopping(LightningEarlyStopping):
    """Lightning's, which also stops a run that had stopped before it was killed and resumed."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.wait_count >= max(1, self.patience)


class FreezeBackbone(Callback):
    """Trains only what has no initial weights for the first epochs, the classification head, then the whole network.

    Lightning's BackboneFinetuning adds the backbone to the optimizer later, which schedules of a fixed number of steps
    do not support; here the optimizer has every parameter from the start, and skips those without a gradient.
    """

    def __init__(self, epochs: int) -> None:
        if epochs < 0:
            raise InputError(f"callbacks.freeze.epochs must be at least 0, got {epochs}")
        self.epochs = epochs

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: ExpressionClassifier) -> None:
        net, whole = pl_module.net, trainer.current_epoch >= self.epochs
        new = (classes_layer(net), *pl_module.hparams.init_skip)
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(whole or is_part_of(name, new))
        for name, module in net.named_modules():
            if isinstance(module, nn.BatchNorm2d):  # its statistics are what it has learnt too
                module.train(whole or is_part_of(name, new))


class LearningCheck(Callback):
    """Warns once if a network still gives one answer for every face: deep nets without batch norm start like that.

    Args:
        epochs: Number of epochs after which to check.
    """

    MARGIN = 0.02  # how far macro recall must exceed that of a single answer for all faces

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: ExpressionClassifier) -> None:
        if trainer.current_epoch + 1 != self.epochs:
            return
        recall = pl_module.train_meter.compute()["train/recall_macro"].item()  # every process takes part
        chance = 1 / len(pl_module.class_names)
        if recall < chance + self.MARGIN:
            log.warning(
                "nothing is learnt yet after %d epochs: macro recall on train is %.1f %%, and the same answer for all "
                "faces would give %.1f %%; try optimizer=adam, another optimizer.lr, or batch norm",
                self.epochs,
                100 * recall,
                100 * chance,
            )


class EpochTable(Callback):
    """Writes `metrics.csv`, one row per epoch; checkpoints keep the rows, so that a resumed run's table is complete.

    Attributes:
        rows: One dict per epoch: epoch (from 1), step, lr, images_per_s (reading, augmentation, metrics and logging
            included, validation excluded), seconds (validation included), and every metric of `train` and `val`.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start = time.perf_counter()
        self._validation = 0.0
        self._images = 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: FaceBatch, batch_idx: int
    ) -> None:
        self._images += len(batch.targets) * trainer.world_size

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        finish_gpu_work(pl_module.device)
        self._validation_start = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit":
            finish_gpu_work(pl_module.device)
            self._validation += time.perf_counter() - self._validation_start

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: ExpressionClassifier) -> None:
        meters = [pl_module.train_meter]
        if trainer.num_val_batches and sum(trainer.num_val_batches):
            meters.append(pl_module.val_meter)
        # Computing a meter communicates with the other processes, so every process does it and one writes.
        scores = {name: value.item() for meter in meters for name, value in meter.compute().items()}
        seconds = time.perf_counter() - self._start
        pace = {
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "images_per_s": self._images / (seconds - self._validation),
            "seconds": seconds,
        }
        pl_module.log_dict(pace, sync_dist=True)
        self.rows.append({"epoch": trainer.current_epoch + 1, "step": trainer.global_step, **pace, **scores})
        if trainer.is_global_zero:
            with replacing(self.path) as temporary:
                pd.DataFrame(self.rows).to_csv(temporary, index=False)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])


class TensorBoardPictures(Callback):
    """The network's graph and augmented training faces at the start, then confusion and worst mistakes on `val`.

    Args:
        every_n_epochs: Number of epochs between the pictures of `val`.
        faces: Number of faces in a grid.
    """

    def __init__(self, every_n_epochs: int = 5, faces: int = 32) -> None:
        if every_n_epochs < 1:
            raise InputError(f"callbacks.pictures.every_n_epochs must be at least 1, got {every_n_epochs}")
        if faces < 1:
            raise InputError(f"callbacks.pictures.faces must be at least 1, got {faces}")
        self.every_n_epochs = every_n_epochs
        self.faces = faces

    def on_train_start(self, trainer: L.Trainer, pl_module: ExpressionClassifier) -> None:
        if writer := _writer(trainer):
            dataset = trainer.datamodule.dataset("train", augmented=True)
            # Datasets are sorted by class: faces spread over the whole dataset show every class.
            chosen = np.linspace(0, len(dataset) - 1, min(self.faces, len(dataset))).astype(int)
            faces = trainer.datamodule.augmented_faces(chosen.tolist(), epoch=trainer.current_epoch)
            captions = [pl_module.class_names[target] for target in dataset.targets[dataset.indices[chosen]]]
            figure = faces_figure(faces, captions, "Training faces as augmented")
            writer.add_figure("faces/train_augmented", figure, trainer.global_step)
            _add_graph(writer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: ExpressionClassifier) -> None:
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0 or trainer.current_epoch + 1 == trainer.max_epochs
        if not due or trainer.state.fn != "fit":
            return
        if writer := _writer(trainer):
            findings = pl_module.findings("val")
            title = f"val, epoch {trainer.current_epoch + 1}"
            figure = confusion_matrix_figure(findings.confusion, pl_module.class_names, title)
            writer.add_figure("confusion_matrix/val", figure, trainer.global_step)
            images = trainer.datamodule.faces(findings.indices)
            title = f"Worst mistakes on {title}"
            figure = mistakes_figure(images, findings, pl_module.class_names, title, count=self.faces)
            writer.add_figure("faces/val_worst_mistakes", figure, trainer.global_step)


def _writer(trainer: L.Trainer) -> SummaryWriter | None:
    """TensorBoard's writer, on the process that has one, if TensorBoard logging is on."""
    if not trainer.is_global_zero:
        return None
    return next((logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)


def _add_graph(writer: SummaryWriter, model: ExpressionClassifier) -> None:
    with warnings.catch_warnings():
        # TensorBoard's graphs are TorchScript traces, which torch deprecates without an alternative for this.
        warnings.filterwarnings("ignore", "`torch.jit.trace", FutureWarning)
        warnings.filterwarnings("ignore", "`torch.jit.trace", DeprecationWarning)
        writer.add_graph(model.net, model.example_input_array.to(model.device))
