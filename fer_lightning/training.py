"""Train, choose the best epoch on `val`, measure it on `test` once, write a folder."""

from fer_lightning import config  # isort: skip - sets what must be set before albumentations is imported

import logging
import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
from hydra.utils import instantiate
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console

from fer_lightning.artifacts import print_results, write_artifacts
from fer_lightning.callbacks import EpochTable
from fer_lightning.checkpoint import check_fits, load_checkpoint
from fer_lightning.checkpoint_io import AtomicCheckpointIO
from fer_lightning.code_version import describe_code
from fer_lightning.data.announce import announce, check_trainable
from fer_lightning.data.datamodule import FaceDataModule
from fer_lightning.errors import InputError
from fer_lightning.hardware import choose_precision, describe_hardware, keep_freed_memory
from fer_lightning.metrics import per_class_scores
from fer_lightning.models.cost import count_multiply_adds, count_parameters
from fer_lightning.module import ExpressionClassifier
from fer_lightning.result import write_result
from fer_lightning.run_folder import claimed
from fer_lightning.run_settings import PASSIVE_CALLBACKS, asks_for_several

log = logging.getLogger(__name__)

NEEDED_CALLBACKS = ("epoch_seed", "epoch_table", "best_checkpoint", "last_checkpoint")
MONITOR_KEYS = ("callbacks.early_stopping.monitor", "scheduler.monitor")  # in addition to monitor.metric
# Lightning's switches that take away what a run needs: its checkpoints, or its order of images.
UNFIT_SWITCHES = ("fast_dev_run", "overfit_batches", "use_distributed_sampler")
# Its switches that measure a part of val or test, or val at other times than after each epoch, which it chooses by.
PART_OF_VAL = ("limit_val_batches", "limit_test_batches", "check_val_every_n_epoch", "val_check_interval")
# Trainer settings that change what is learnt.
TRAINER_FACTS = (
    *("max_epochs", "max_steps", "limit_train_batches", "accumulate_grad_batches"),
    *("gradient_clip_val", "gradient_clip_algorithm", "devices", "strategy"),
)

# These warnings are correct, but users of these commands cannot act on them.
SETTLED_WARNINGS = (
    ".isinstance.treespec, LeafSpec.. is deprecated",  # lightning 2.6 on torch 2.15
    "Checkpoint directory .* exists and is not empty",  # when a run is resumed
    "The '.*_dataloader' does not have many workers",  # on a CPU they would compete with the network for cores
    "Using padding='same' with even kernel lengths",  # even kernels are asked for by name
)


def prepare_process() -> None:
    """Set up the process of a command: silence settled warnings, and keep freed memory."""
    for text in SETTLED_WARNINGS:
        warnings.filterwarnings("ignore", text)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # they advertise
    keep_freed_memory()


def train(cfg: DictConfig, *, overrides: Sequence[str] = ()) -> float:
    """Train, write `cfg.output_dir`, and return the monitored validation metric, NaN if nothing is validated.

    Args:
        cfg: Configuration composed from conf/train.yaml.
        overrides: Overrides from the command line, recorded in `result.json`.
    """
    started = time.perf_counter()
    run_dir = Path(cfg.output_dir)
    settings = OmegaConf.to_container(cfg, resolve=True)
    with claimed(run_dir, cfg.ckpt_path):
        code = describe_code()
        _check_settings(cfg)
        L.seed_everything(cfg.seed, workers=True, verbose=False)
        datamodule: FaceDataModule = instantiate(cfg.data)
        check_trainable(datamodule)
        announce(datamodule)
        model: ExpressionClassifier = instantiate(
            cfg.model,
            class_names=list(datamodule.class_names),
            preprocess=datamodule.preprocess.to_dict(),
            class_counts=datamodule.class_counts_drawn().tolist(),
            training=_training_facts(cfg, datamodule, code),
        )
        _check_metrics(cfg, model)
        if cfg.ckpt_path is not None:
            checkpoint = load_checkpoint(cfg.ckpt_path)
            check_fits(checkpoint, model.hparams, cfg.ckpt_path, run_dir / "checkpoints")
            training = checkpoint["hyper_parameters"]["training"]
            if "initial_weights" in training:
                model.hparams.training["initial_weights"] = training["initial_weights"]
            if training.get("code_sha256") != code["code_sha256"]:
                log.warning("%s was written by another code version: this run mixes two code versions", cfg.ckpt_path)
            rank_zero_only(_reopen)(run_dir)
        else:
            model.load_initial_weights()
        if not (validates := datamodule.has("val")):
            rank_zero_only(log.info)("no validation split: the last epoch is kept, as none can be chosen")
            _require_no_monitor(cfg)
            cfg.monitor.metric = None
        trainer = _make_trainer(cfg, run_dir, validates=validates)
        try:
            trainer.fit(model, datamodule=datamodule, ckpt_path=cfg.ckpt_path, weights_only=True)
        except MisconfigurationException as error:
            raise InputError(f"the trainer does not accept these settings: {' '.join(str(error).split())}") from error
        [epoch_table] = [callback for callback in trainer.callbacks if isinstance(callback, EpochTable)]
        scores = _measure_best(trainer, model, datamodule)
        if trainer.is_global_zero:
            command = ["python", "-m", "fer_lightning.train", *overrides]
            facts = {"command": command, **code, "config": settings}
            _write_run(cfg, facts, trainer, model, datamodule, pd.DataFrame(epoch_table.rows), scores, started)
        return scores.get(cfg.monitor.metric, math.nan)


def _reopen(run_dir: Path) -> None:
    (run_dir / "result.json").unlink(missing_ok=True)  # the run is unfinished again
    for half_written in (run_dir / "checkpoints").glob(".*.ckpt"):
        half_written.unlink()


def _check_settings(cfg: DictConfig) -> None:
    config.check(cfg, config.TrainConfig)
    if "net" not in cfg.model:
        raise InputError("that model is not a network: fit it with python -m fer_lightning.baseline")
    if not 0 <= cfg.seed < 2**32:
        raise InputError(f"seed must be 0 to {2**32 - 1}, got {cfg.seed}")
    if not isinstance(cfg.trainer.max_epochs, int) or cfg.trainer.max_epochs < 1:
        raise InputError(f"trainer.max_epochs must be at least 1, got {cfg.trainer.max_epochs}")
    if cfg.trainer.limit_train_batches == 0:
        raise InputError("trainer.limit_train_batches must be above 0, or null for all, got 0")
    if used := [name for name in PART_OF_VAL if cfg.trainer.get(name) is not None]:
        raise InputError(
            f"all of val is measured after each epoch, since it chooses the best one, and all of test once: omit "
            f"trainer.{used[0]}; trainer.limit_train_batches=2 makes a quick trial"
        )
    if used := [name for name in UNFIT_SWITCHES if cfg.trainer.get(name)]:
        raise InputError(
            f"trainer.{used[0]} takes away what a run needs: for a quick trial set trainer.max_epochs=1 and "
            "trainer.limit_train_batches=2"
        )
    if "freeze" in cfg.callbacks and asks_for_several(cfg.trainer.strategy, cfg.trainer.devices):
        raise InputError(
            f"callbacks=finetune freezes layers, whose gradients trainer.strategy={cfg.trainer.strategy} on "
            f"trainer.devices={cfg.trainer.devices} would wait for: train on one device, with trainer=auto"
        )
    if "freeze" in cfg.callbacks and cfg.model.init_from is None:
        raise InputError("callbacks=finetune would freeze random weights: say where to begin with model.init_from=")
    if missing := [name for name in NEEDED_CALLBACKS if cfg.callbacks.get(name) is None]:
        raise InputError(f"a run needs callbacks.{', callbacks.'.join(missing)}: do not remove them")


def _training_facts(cfg: DictConfig, datamodule: FaceDataModule, code: dict[str, Any]) -> dict[str, Any]:
    """Facts about the training for the checkpoint; a run that resumes from it must have the same."""
    fingerprint = datamodule.fingerprint
    return {
        "code_sha256": code["code_sha256"],
        "network": cfg.model.net.name,
        "dataset": fingerprint["dataset"],
        "protocol": fingerprint["protocol"],
        "protocol_settings": _without_hydra(cfg.protocol),
        "pixels": fingerprint["splits"]["train"]["pixels"],
        "splits": {stage: summary["sha256"] for stage, summary in fingerprint["splits"].items()},
        "seed": cfg.seed,
        "data_seed": cfg.data.seed,
        "batch_size": cfg.data.batch_size,
        "oversample": cfg.data.oversample,
        "loss": _without_hydra(cfg.loss),
        "label_smoothing": cfg.model.label_smoothing,
        "mixup": cfg.model.mixup,
        "decay_weights_only": cfg.model.decay_weights_only,
        "monitor": cfg.monitor.metric,
        "optimizer": _without_hydra(cfg.optimizer),
        "scheduler": _without_hydra(cfg.scheduler),
        "augmentation": _without_hydra(cfg.augmentation),
        "callbacks": {
            name: _without_hydra(node) for name, node in cfg.callbacks.items() if name not in PASSIVE_CALLBACKS
        },
        "precision": choose_precision(cfg.trainer.precision, cfg.trainer.accelerator)[0],
        **{name: cfg.trainer.get(name) for name in TRAINER_FACTS},
    }


def _without_hydra(node: Any) -> Any:
    """A config node as plain data that names its class, but that Hydra will not instantiate."""
    if isinstance(node, ListConfig):
        return [_without_hydra(item) for item in node]
    if isinstance(node, DictConfig):
        name = {"name": node._target_} if "_target_" in node else {}
        return name | {str(key): _without_hydra(node[key]) for key in node if not str(key).startswith("_")}
    return node


def _check_metrics(cfg: DictConfig, model: ExpressionClassifier) -> None:
    for place in ("monitor.metric", *MONITOR_KEYS):
        metric = OmegaConf.select(cfg, place)
        if metric is not None and metric not in model.val_meter.names:
            raise InputError(f"{place} {metric} is not measured: choose from {', '.join(model.val_meter.names)}")


def _make_trainer(cfg: DictConfig, run_dir: Path, *, validates: bool) -> L.Trainer:
    precision, reason = choose_precision(cfg.trainer.precision, cfg.trainer.accelerator)
    rank_zero_only(log.info)("precision %s: %s", precision, reason)
    return instantiate(
        cfg.trainer,
        precision=precision,
        limit_val_batches=None if validates else 0,
        callbacks=[callback for callback in instantiate(cfg.callbacks).values() if callback is not None],
        logger=list(instantiate(cfg.logger).values()),
        plugins=[AtomicCheckpointIO()],
        default_root_dir=run_dir,
    )


def _require_no_monitor(cfg: DictConfig) -> None:
    for place in MONITOR_KEYS:
        if metric := OmegaConf.select(cfg, place):
            raise InputError(
                f"{place} watches {metric}, but this protocol has no validation split: use another scheduler "
                "and no early stopping, or another protocol (for subject_kfold: protocol.val_folds=1)"
            )


def _measure_best(trainer: L.Trainer, model: ExpressionClassifier, datamodule: FaceDataModule) -> dict[str, float]:
    """Validate and test the best checkpoint, on the splits that exist."""
    # With averaged weights, the checkpoint holds the average, and the callback would swap in other weights again.
    trainer.callbacks[:] = [callback for callback in trainer.callbacks if not isinstance(callback, WeightAveraging)]
    model.load_state_dict(load_checkpoint(trainer.checkpoint_callback.best_model_path)["state_dict"])
    scores: dict[str, float] = {}
    for stage, run in (("val", trainer.validate), ("test", trainer.test)):
        if datamodule.has(stage):
            [measured] = run(model, datamodule=datamodule, verbose=False)
            scores |= measured
    return scores


def _write_run(
    cfg: DictConfig,
    facts: dict[str, Any],
    trainer: L.Trainer,
    model: ExpressionClassifier,
    datamodule: FaceDataModule,
    epochs: pd.DataFrame,
    scores: dict[str, float],
    started: float,
) -> None:
    """Write pictures and tables, then `result.json`, and print the main results."""
    run_dir = Path(cfg.output_dir)
    findings = model.findings("test" if datamodule.has("test") else "val")
    write_artifacts(run_dir, findings, datamodule, model.class_names, epochs)
    per_class = per_class_scores(findings.confusion, model.class_names)
    parameters = count_parameters(model.net)
    multiply_adds = count_multiply_adds(model.net, model.example_input_array.to(model.device))
    _log_hyper_parameters(cfg, trainer, datamodule, scores)
    write_result(
        run_dir / "result.json",
        {
            **facts,
            "seed": cfg.seed,
            "hardware": describe_hardware() | {"precision": str(trainer.precision), "devices": trainer.world_size},
            "data": datamodule.fingerprint,
            "class_names": model.class_names,
            "selection": f"best epoch by {cfg.monitor.metric}" if cfg.monitor.metric else "last epoch",
            "best_epoch": load_checkpoint(trainer.checkpoint_callback.best_model_path)["epoch"] + 1,
            "parameters": parameters,
            "multiply_adds": multiply_adds,
            "epochs": len(epochs),
            "images_per_s": float(epochs["images_per_s"].median()),
            "train_seconds": float(epochs["seconds"].sum()),
            "seconds": time.perf_counter() - started,
            "metrics": scores,
            "per_class": {findings.stage: per_class},
        },
    )
    print_results("Best checkpoint", scores, per_class, findings.stage)
    Console().print(
        f"Everything is in [bold]{run_dir}[/bold]: result.json, checkpoints/best.ckpt, confusion_matrix.png, "
        "sample_predictions.png, predictions.csv. Curves: tensorboard --logdir outputs",
        soft_wrap=True,
    )


def _log_hyper_parameters(
    cfg: DictConfig, trainer: L.Trainer, datamodule: FaceDataModule, scores: dict[str, float]
) -> None:
    """Log the settings in which runs differ, with the final metrics, for TensorBoard's HParams tab."""
    settings = {
        "data": datamodule.index.dataset,
        "protocol": datamodule.split.protocol,
        **{f"net.{name}": value for name, value in cfg.model.net.items()},
        "optimizer": _class_name(cfg.optimizer),
        "scheduler": _class_name(cfg.scheduler),
        "loss": _class_name(cfg.loss),
        "lr": cfg.optimizer.lr,
        "label_smoothing": cfg.model.label_smoothing,
        "augmentation": "+".join(_class_name(node) for node in cfg.augmentation.transforms) or "none",
        "batch_size": cfg.data.batch_size,
        "max_epochs": cfg.trainer.max_epochs,
        "seed": cfg.seed,
    }
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(settings, {f"final/{name}": value for name, value in scores.items()})


def _class_name(node: DictConfig) -> str:
    return node._target_.rpartition(".")[2]
