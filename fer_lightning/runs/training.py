"""Train, choose the best epoch on `val`, measure it on `test` once, write a folder."""

from fer_lightning.settings import config  # isort: skip - sets what must be set before albumentations is imported

import logging
import math
import signal
import sys
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
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape

from fer_lightning.callbacks import EpochTable
from fer_lightning.checkpoint import check_fits, load_checkpoint
from fer_lightning.checkpoint_io import AtomicCheckpointIO
from fer_lightning.data.announce import announce, check_trainable
from fer_lightning.data.datamodule import FaceDataModule
from fer_lightning.errors import InputError
from fer_lightning.machine.code_version import describe_code
from fer_lightning.machine.hardware import choose_precision, describe_hardware, keep_freed_memory
from fer_lightning.metrics import per_class_scores
from fer_lightning.models.cost import count_multiply_adds, count_parameters
from fer_lightning.module import ExpressionClassifier
from fer_lightning.runs.artifacts import print_results, write_artifacts
from fer_lightning.runs.checks import check_metrics, check_processes, check_settings, require_no_monitor
from fer_lightning.runs.facts import training_facts
from fer_lightning.runs.folder import claimed
from fer_lightning.runs.result import write_result
from fer_lightning.settings.plain_errors import INTERRUPTED

log = logging.getLogger(__name__)

# These warnings are correct, but users of these commands cannot act on them.
SETTLED_WARNINGS = (
    ".isinstance.treespec, LeafSpec.. is deprecated",  # lightning 2.6 on torch 2.15
    "Checkpoint directory .* exists and is not empty",  # when a run is resumed
    "The '.*_dataloader' does not have many workers",  # on a CPU they would compete with the network for cores
    "Using padding='same' with even kernel lengths",  # even kernels are asked for by name
    "GPU available but not used",  # trainer=cpu was asked for: trainer=auto uses it
    "Please use the new API settings to control TF32",  # lightning 2.6 on torch before 2.15
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
        overrides: What the command was called with, recorded in `result.json`.
    """
    started = time.perf_counter()
    run_dir = Path(cfg.output_dir)
    with claimed(run_dir, cfg.ckpt_path):
        (run_dir / "checkpoints").mkdir(exist_ok=True)  # fer-report knows unfinished runs by it
        code = describe_code()
        config.check(cfg, config.TrainConfig)
        settings = OmegaConf.to_container(cfg, resolve=True)
        check_settings(cfg)
        L.seed_everything(cfg.seed, workers=True, verbose=False)
        datamodule: FaceDataModule = instantiate(cfg.data)
        check_trainable(datamodule)
        announce(datamodule)
        model: ExpressionClassifier = instantiate(
            cfg.model,
            class_names=list(datamodule.class_names),
            preprocess=datamodule.preprocess.to_dict(),
            class_counts=datamodule.class_counts_drawn().tolist(),
            training=training_facts(cfg, datamodule, code["code_sha256"]),
        )
        check_metrics(cfg, model)
        model.load_teachers()
        if cfg.ckpt_path is None:
            model.load_initial_weights()
        else:
            _check_resumable(cfg.ckpt_path, model, run_dir)
        if not (validates := datamodule.has("val")):
            rank_zero_only(log.info)("no validation split: the last epoch is kept, as none can be chosen")
            require_no_monitor(cfg)
            cfg.monitor.metric = None
        trainer = _make_trainer(cfg, run_dir, validates=validates)
        check_processes(datamodule, trainer.world_size)
        if cfg.ckpt_path is not None:
            rank_zero_only(_reopen)(run_dir)
        _fit(trainer, model, datamodule, cfg.ckpt_path, run_dir)
        [epoch_table] = [callback for callback in trainer.callbacks if isinstance(callback, EpochTable)]
        scores = _measure_best(trainer, model, datamodule)
        if trainer.is_global_zero:
            command = ["python", "-m", "fer_lightning.train", *overrides]
            earlier = model.hparams.training.get("earlier_code", [])  # of a run that went on under other code
            facts = {"command": command, **code, "earlier_code": earlier, "config": settings}
            _write_run(cfg, facts, trainer, model, datamodule, pd.DataFrame(epoch_table.rows), scores, started)
        return scores.get(cfg.monitor.metric, math.nan)


def _fit(
    trainer: L.Trainer, model: ExpressionClassifier, datamodule: FaceDataModule, ckpt_path: str | None, run_dir: Path
) -> None:
    """Train, and tell in words how to go on if that is stopped from outside."""
    try:
        trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
    except MisconfigurationException as error:
        raise InputError(f"the trainer does not accept these settings: {' '.join(str(error).split())}") from error
    except SIGTERMException:  # for which Lightning's own exit code would be 0
        sys.exit(f"error: stopped by SIGTERM{_goes_on(run_dir)}")
    except SystemExit:  # Lightning's way to end on Ctrl-C
        print(f"error: stopped by Ctrl-C{_goes_on(run_dir)}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception:  # whatever it is, it is raised again: the other processes may only not wait for this one for ever
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGKILL)
        raise


def _goes_on(run_dir: Path) -> str:
    last = run_dir / "checkpoints" / "last.ckpt"
    return f"; ckpt_path={last} goes on from its last epoch" if last.exists() else " in its first epoch"


def _check_resumable(ckpt_path: str, model: ExpressionClassifier, run_dir: Path) -> None:
    """Check that the run may go on from a checkpoint, with the weights that it began with."""
    checkpoint = load_checkpoint(ckpt_path)
    check_fits(checkpoint, model.hparams, ckpt_path, run_dir / "checkpoints")
    before, now = checkpoint["hyper_parameters"]["training"], model.hparams.training
    if "initial_weights" in before:
        now["initial_weights"] = before["initial_weights"]
    now["earlier_code"] = list(before.get("earlier_code", []))
    if before.get("code_sha256") != now["code_sha256"]:
        log.warning("%s was written by another code version: this run mixes two code versions", ckpt_path)
        now["earlier_code"].append(before.get("code_sha256"))


def _reopen(run_dir: Path) -> None:
    """Mark a run that is resumed as unfinished."""
    (run_dir / "result.json").unlink(missing_ok=True)
    for half_written in (run_dir / "checkpoints").glob(".*.ckpt"):
        half_written.unlink()


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
            "hardware": {
                **describe_hardware(gpus=_gpus(trainer)),
                "precision": str(trainer.precision),
                "devices": trainer.world_size,
            },
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
        f"Everything is in [bold]{escape(str(run_dir))}[/bold]: result.json, checkpoints/best.ckpt, "
        "confusion_matrix.png, sample_predictions.png, predictions.csv. Curves: tensorboard --logdir outputs",
        soft_wrap=True,
    )


def _gpus(trainer: L.Trainer) -> Sequence[int]:
    """Positions of the GPUs that this process's machine trained on."""
    return trainer.device_ids if trainer.strategy.root_device.type == "cuda" else ()


def _log_hyper_parameters(
    cfg: DictConfig, trainer: L.Trainer, datamodule: FaceDataModule, scores: dict[str, float]
) -> None:
    """Log the settings in which runs differ, with the final metrics, for TensorBoard's HParams tab."""
    augmentation = cfg.data.augmentation
    steps = [augmentation] if augmentation is None else augmentation.get("transforms", [augmentation])
    steps = steps.values() if isinstance(steps, DictConfig) else steps
    settings = {
        "data": datamodule.index.dataset,
        "protocol": datamodule.split.protocol,
        **{f"net.{name}": value for name, value in cfg.model.net.items()},
        "optimizer": _class_name(cfg.model.optimizer),
        "scheduler": _class_name(cfg.model.scheduler),
        "loss": _class_name(cfg.model.loss),
        "lr": OmegaConf.select(cfg.model, "optimizer.lr"),
        "label_smoothing": cfg.model.label_smoothing,
        "augmentation": "+".join(_class_name(step) for step in steps) or "none",
        "batch_size": cfg.data.batch_size,
        "max_epochs": cfg.trainer.max_epochs,
        "seed": cfg.seed,
    }
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(settings, {f"final/{name}": value for name, value in scores.items()})


def _class_name(node: DictConfig | None) -> str:
    return "none" if node is None else node._target_.rpartition(".")[2]
