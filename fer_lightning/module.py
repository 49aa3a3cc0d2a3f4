"""The LightningModule.   Shapes: N batch, C channels, S side in pixels, K classes."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import LRSchedulerTypeUnion
from torch import Tensor, nn
from torch.distributions import Beta
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from fer_lightning import losses
from fer_lightning.data.batch import FaceBatch
from fer_lightning.errors import InputError, settings_of
from fer_lightning.metrics import Findings, Meter
from fer_lightning.models import create_model
from fer_lightning.optim import decay_weights_only
from fer_lightning.preprocess import MAX_CROP_MARGIN
from fer_lightning.teachers import Teachers
from fer_lightning.weights.initial import load_initial_weights

log = logging.getLogger(__name__)

OptimizerFactory = Callable[..., Optimizer]
LossFunction = Callable[..., Tensor]
SchedulerFactory = Callable[[Optimizer, int], dict[str, Any]]


class ExpressionClassifier(L.LightningModule):
    """A network with its loss, metrics and optimizer.

    The hyper-parameters kept in a checkpoint are plain data, and rebuild the network and its preprocessing.

    Args:
        net: `name` and keyword arguments of `create_model`; classes, channels and image size come from the data.
        class_names: The K class names, in label order.
        preprocess: Settings of `Preprocess` with which the images were prepared.
        training: What the run was trained on and how, as plain data that is kept in the checkpoint.
        loss: Training loss, a function of `losses.py`; None for cross-entropy.
        class_counts: Number of training images that an epoch draws from each class, for losses with class weights.
        label_smoothing: Probability mass spread evenly over the classes, in training only.
        mixup: Alpha of the Beta distribution by which pairs of a batch are blended (Zhang et al., 2018); 0 for none.
        decay_weights_only: Exempt biases and batch norms from the optimizer's weight decay.
        crop_margin: How far the training faces extend beyond a detector's box on each side, as a fraction of its side.
        channels_last: Store filters, and with them all features, with the channels innermost, which is faster on CPUs
            and tensor cores.
        optimizer: Factory called with the parameters; needed for training.
        scheduler: Factory called with the optimizer and the number of steps, a function of `optim.py`; or None.
        init_from: Source of the initial weights: `imagenet`, `bundled`, a checkpoint or a file.
        init_skip: Layers whose weights are not copied from there.
        teachers: Trained networks from whose answers this one learns beside the labels, each teaching its share of a
            batch: `bundled` or checkpoints, of the same classes and preprocessing.
        teacher_share: Their share of the loss, to 1; 0 without teachers.
    """

    def __init__(
        self,
        net: Mapping[str, Any],
        class_names: Sequence[str],
        preprocess: Mapping[str, Any],
        *,
        training: Mapping[str, Any] | None = None,
        loss: LossFunction | None = None,
        class_counts: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        decay_weights_only: bool = False,
        crop_margin: float = 0.0,
        channels_last: bool = True,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
        init_from: str | None = None,
        init_skip: Sequence[str] = (),
        teachers: Sequence[str] | None = None,
        teacher_share: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise InputError(f"model.label_smoothing must be 0 to 1, got {label_smoothing}")
        if mixup < 0:
            raise InputError(f"model.mixup must be at least 0, got {mixup}")
        if not 0 <= crop_margin <= MAX_CROP_MARGIN:
            raise InputError(f"model.crop_margin must be 0 to {MAX_CROP_MARGIN}, got {crop_margin}")
        if not 0 <= teacher_share <= 1:
            raise InputError(f"model.teacher_share must be 0 to 1, got {teacher_share}")
        if bool(teachers) != bool(teacher_share):
            raise InputError(
                f"model.teachers says who teaches and model.teacher_share how much, for example 0.5: set both or none, "
                f"got {teachers} and {teacher_share}"
            )
        net, class_names, preprocess, training = dict(net), list(class_names), dict(preprocess), dict(training or {})
        init_skip, teachers = list(init_skip), list(teachers) if teachers else None
        self.save_hyperparameters(ignore=["loss", "class_counts", "optimizer", "scheduler"], logger=False)
        channels, size = preprocess["channels"], preprocess["size"]
        self.net: nn.Module = create_model(**net, num_classes=len(class_names), in_channels=channels, image_size=size)
        if channels_last:
            self.net.to(memory_format=torch.channels_last)
        self.example_input_array = torch.zeros(1, channels, size, size)
        num_classes = len(class_names)
        self.train_meter = Meter("train", num_classes, calibration=False)
        self.val_meter = Meter("val", num_classes, calibration=True)
        self.test_meter = Meter("test", num_classes, calibration=True)
        self._findings: dict[str, Findings] = {}
        self.teachers: Teachers | None = None
        if isinstance(loss, partial):  # Hydra's own checks its target at every call, which takes longer than the loss
            loss = partial(loss.func, *loss.args, **loss.keywords)
        self._loss = loss or losses.cross_entropy
        counts = torch.tensor(class_counts if class_counts is not None else [1] * num_classes)
        self.register_buffer("class_counts", counts, persistent=False)
        self._optimizer = optimizer
        self._scheduler = scheduler

    def findings(self, stage: str) -> Findings:
        """Every prediction of the last epoch on `val` or `test`."""
        return self._findings[stage]

    @property
    def class_names(self) -> list[str]:
        """Class names, in label order."""
        return self.hparams.class_names

    def load_initial_weights(self) -> None:
        """Copy the weights of `init_from`, if it is set, except for the classification head."""
        if self.hparams.init_from is not None:
            source, skip = self.hparams.init_from, self.hparams.init_skip
            new, training = load_initial_weights(
                self.net,
                self.hparams.net["name"],
                source,
                skip=skip,
                preprocess=self.hparams.preprocess,
                training=self.hparams.training,
            )
            self.hparams.training["initial_weights"] = training
            log.info("initialised from %s, except %s", source, ", ".join(new))

    def load_teachers(self) -> None:
        """Read the networks of `teachers`, if there are any."""
        if self.hparams.teachers:
            training = self.hparams.training
            self.teachers = Teachers(self.hparams.teachers, self.class_names, self.hparams.preprocess, training)
            training |= {"teachers": self.teachers.trainings, "teacher_share": self.hparams.teacher_share}

    def on_fit_start(self) -> None:
        if not self.teachers:
            self.load_teachers()
        if self.teachers:
            self.teachers.to(self.device)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, S, S) to logits (N, K)."""
        return self.net(images)

    def configure_optimizers(self) -> dict[str, Any]:
        with settings_of("the optimizer"):
            spare = self.hparams.decay_weights_only
            optimizer = self._optimizer(decay_weights_only(self.net) if spare else self.parameters())
        if self._scheduler is None:
            return {"optimizer": optimizer}
        steps = int(self.trainer.estimated_stepping_batches)  # sets up the training data
        with settings_of("the scheduler"):
            schedule = self._scheduler(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def _step_plateau(self) -> None:
        """Step a plateau schedule before the epoch's checkpoint is written, so that resumed runs include this step."""
        for config in self.trainer.lr_scheduler_configs:
            if config.reduce_on_plateau:
                config.scheduler.step(self.trainer.callback_metrics[config.monitor])

    def lr_scheduler_step(self, scheduler: LRSchedulerTypeUnion, metric: Any | None) -> None:
        # Lightning would step a plateau schedule here, after the checkpoint; _step_plateau has done it.
        if metric is None:
            scheduler.step()

    def training_step(self, batch: FaceBatch, batch_idx: int) -> Tensor:
        images, targets = batch.images, batch.targets
        if self.hparams.mixup:
            # The image itself has the larger share; training accuracy is measured against its target.
            drawn = Beta(self.hparams.mixup, self.hparams.mixup).sample().item()
            share, other = max(drawn, 1 - drawn), torch.randperm(len(targets), device=targets.device)
            images = torch.lerp(images[other], images, share)
            logits = self(images)
            loss = share * self._loss_of(logits, targets) + (1 - share) * self._loss_of(logits, targets[other])
        else:
            logits = self(images)
            loss = self._loss_of(logits, targets)
        if self.teachers:
            taught = cross_entropy(logits.float(), self.teachers.probabilities(images))
            loss = torch.lerp(loss, taught, self.hparams.teacher_share)
        self.train_meter.update(loss, logits, targets, batch.indices)
        return loss

    def _loss_of(self, logits: Tensor, targets: Tensor) -> Tensor:
        smoothing = self.hparams.label_smoothing
        return self._loss(logits.float(), targets, self.class_counts, label_smoothing=smoothing)

    def validation_step(self, batch: FaceBatch, batch_idx: int) -> None:
        self._measure(self.val_meter, batch)

    def test_step(self, batch: FaceBatch, batch_idx: int) -> None:
        self._measure(self.test_meter, batch)

    def _measure(self, meter: Meter, batch: FaceBatch) -> None:
        logits = self(batch.images)
        meter.update(cross_entropy(logits, batch.targets), logits, batch.targets, batch.indices)

    # Meters are reset at the start of an epoch, not at its end, so that callbacks find them filled whenever they run.
    def on_train_epoch_start(self) -> None:
        self.train_meter.reset()

    def on_validation_epoch_start(self) -> None:
        self.val_meter.reset()

    def on_test_epoch_start(self) -> None:
        self.test_meter.reset()

    def on_train_epoch_end(self) -> None:
        self._log_epoch(self.train_meter)
        self._step_plateau()

    def on_validation_epoch_end(self) -> None:
        self._log_epoch(self.val_meter, shown=("val/acc", "val/loss"))
        self._keep_findings(self.val_meter)

    def on_test_epoch_end(self) -> None:
        self._log_epoch(self.test_meter)
        self._keep_findings(self.test_meter)

    def _keep_findings(self, meter: Meter) -> None:
        # All processes take part here, on their own devices: after the loop the states are on the CPU, from where NCCL
        # cannot gather them.
        self._findings[meter.stage] = meter.findings()

    def _log_epoch(self, meter: Meter, *, shown: Sequence[str] = ()) -> None:
        scores = meter.compute()
        if not scores[f"{meter.stage}/loss"].isfinite():
            raise InputError(
                f"the {meter.stage} loss is {scores[f'{meter.stage}/loss']} in epoch {self.current_epoch + 1}: lower "
                "optimizer.lr, or clip gradients with trainer.gradient_clip_val=1"
            )
        for name, value in scores.items():
            # Already computed over all processes; sync_dist only averages equal numbers, which avoids a warning.
            self.log(name, value, prog_bar=name in shown, sync_dist=True)
