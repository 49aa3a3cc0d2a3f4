"""Settings that no training could work with, told before it starts."""

from itertools import product

from omegaconf import DictConfig, OmegaConf

from fer_lightning.data.datamodule import FaceDataModule
from fer_lightning.data.splits import STAGES
from fer_lightning.errors import InputError
from fer_lightning.module import ExpressionClassifier
from fer_lightning.runs.settings import asks_for_several, best_is

# Settings of a checkpoint callback that say which epochs it keeps.
WHICH_EPOCHS = ("save_top_k", "every_n_epochs", "every_n_train_steps", "train_time_interval")
FILE_NAMES = {"best_checkpoint": "best", "last_checkpoint": "last"}  # by which resuming and exporting find them
# Settings of the same that say where, when and what they write.
HOW_WRITTEN = {"save_on_train_epoch_end": True, "enable_version_counter": False, "save_weights_only": False}
NEEDED_CALLBACKS = ("epoch_seed", "epoch_table", "best_checkpoint", "last_checkpoint")
MONITOR_KEYS = ("monitor.metric", "callbacks.early_stopping.monitor", "scheduler.monitor")
# Kinds of Lightning's strategy that train in processes of their own, which keep what they measured to themselves.
IN_CHILDREN = ("ddp_spawn", "ddp_fork", "ddp_notebook")
# Lightning's switches that take away what a run needs: its checkpoints, its order of images, or validation as a whole.
UNFIT_SWITCHES = ("fast_dev_run", "overfit_batches", "use_distributed_sampler", "num_sanity_val_steps")
WITHIN_AN_EPOCH = ("max_steps", "max_time")  # its limits that may end one
# Its switches that measure a part of val or test, or val at other times than after each epoch, which it chooses by.
PART_OF_VAL = ("limit_val_batches", "limit_test_batches", "check_val_every_n_epoch", "val_check_interval")


def check_settings(cfg: DictConfig) -> None:
    """Raise InputError for the first setting that no run could have."""
    if "net" not in cfg.model:
        raise InputError("that model is not a network: fit it with python -m fer_lightning.baseline")
    if not 0 <= cfg.seed < 2**32:
        raise InputError(f"seed must be 0 to {2**32 - 1}, got {cfg.seed}")
    _check_trainer(cfg.trainer)
    _check_freezing(cfg)
    _check_checkpoints(cfg)
    if (seed := cfg.callbacks.epoch_seed.seed) != cfg.seed:
        raise InputError(f"callbacks.epoch_seed.seed={seed} is not the run's seed, {cfg.seed}: set seed alone")
    if (stopping := cfg.callbacks.get("early_stopping")) is not None and stopping.monitor is None:
        raise InputError("callbacks=early_stopping has nothing to watch: set monitor.metric, for example to val/acc")


def _check_trainer(trainer: DictConfig) -> None:
    if not isinstance(trainer.max_epochs, int) or trainer.max_epochs < 1:
        raise InputError(f"trainer.max_epochs must be at least 1, got {trainer.max_epochs}")
    if used := [name for name in WITHIN_AN_EPOCH if trainer.get(name) not in (-1, None)]:
        raise InputError(f"trainer.{used[0]} would end a run within an epoch, before val: set trainer.max_epochs")
    if trainer.limit_train_batches == 0:
        raise InputError("trainer.limit_train_batches must be above 0, or null for all, got 0")
    batches, clip = trainer.get("accumulate_grad_batches", 1), trainer.gradient_clip_val
    if not isinstance(batches, int) or batches < 1:
        raise InputError(f"trainer.accumulate_grad_batches must be a whole number from 1, got {batches}")
    if clip is not None and (not isinstance(clip, int | float) or clip < 0):
        raise InputError(f"trainer.gradient_clip_val must be a number from 0, or null, got {clip}")
    if str(trainer.strategy).startswith(IN_CHILDREN):
        raise InputError(f"trainer.strategy={trainer.strategy} would leave no results in this process: use ddp")
    if used := [name for name in PART_OF_VAL if trainer.get(name) is not None]:
        raise InputError(
            f"all of val is measured after each epoch, since it chooses the best one, and all of test once: omit "
            f"trainer.{used[0]}; trainer.limit_train_batches=2 makes a quick trial"
        )
    if used := [name for name in UNFIT_SWITCHES if trainer.get(name)]:
        raise InputError(
            f"trainer.{used[0]} takes away what a run needs: for a quick trial set trainer.max_epochs=1 and "
            "trainer.limit_train_batches=2"
        )


def _check_freezing(cfg: DictConfig) -> None:
    if "freeze" in cfg.callbacks and asks_for_several(cfg.trainer.strategy, cfg.trainer.devices):
        raise InputError(
            f"callbacks=finetune freezes layers, whose gradients trainer.strategy={cfg.trainer.strategy} on "
            f"trainer.devices={cfg.trainer.devices} would wait for: train on one device, with trainer=auto"
        )
    if "freeze" in cfg.callbacks and cfg.model.init_from is None:
        raise InputError("callbacks=finetune would freeze random weights: say where to begin with model.init_from=")


def _check_checkpoints(cfg: DictConfig) -> None:
    """The run's own callbacks must be there, and write best.ckpt and last.ckpt as resuming and exporting need them."""
    if missing := [name for name in NEEDED_CALLBACKS if cfg.callbacks.get(name) is None]:
        raise InputError(f"a run needs callbacks.{', callbacks.'.join(missing)}: do not remove them")
    for name, key in product(("best_checkpoint", "last_checkpoint"), WHICH_EPOCHS):
        if cfg.callbacks[name].get(key, 1) != 1:
            raise InputError(f"callbacks.{name}.{key} would keep other epochs than the best and the last: omit it")
    for name, filename in FILE_NAMES.items():
        needed = {"dirpath": f"{cfg.output_dir}/checkpoints", "filename": filename, **HOW_WRITTEN}
        if other := [key for key, value in needed.items() if cfg.callbacks[name].get(key, False) != value]:
            raise InputError(
                f"callbacks.{name} must write checkpoints/{filename}.ckpt at the end of each epoch, and all of it: "
                f"omit its {other[0]}"
            )
    best = cfg.callbacks.best_checkpoint
    if (best.monitor, best.mode) != (cfg.monitor.metric, cfg.monitor.mode):
        raise InputError(
            f"callbacks.best_checkpoint would keep the epoch of {best.mode} {best.monitor}, and monitor.metric is "
            f"{cfg.monitor.metric}: set monitor.metric instead, by which all choose"
        )


def check_processes(datamodule: FaceDataModule, processes: int) -> None:
    """Raise InputError if there are more processes than images for them."""
    for stage in STAGES:
        if datamodule.has(stage) and (count := len(datamodule.split[stage])) < processes:
            raise InputError(f"{stage} has {count} images for {processes} processes: lower trainer.devices to {count}")


def check_metrics(cfg: DictConfig, model: ExpressionClassifier) -> None:
    """Raise InputError if a metric is watched that the model does not measure, or for its worst value."""
    for place in MONITOR_KEYS:
        metric = OmegaConf.select(cfg, place)
        if metric is None:
            continue
        if metric not in model.val_meter.names:
            raise InputError(f"{place} {metric} is not measured: choose from {', '.join(model.val_meter.names)}")
        mode = f"{place.rpartition('.')[0]}.mode"
        if (asked := OmegaConf.select(cfg, mode)) != best_is(metric):
            raise InputError(f"{mode}={asked} would take the worst {metric} for the best: omit it")


def require_no_monitor(cfg: DictConfig) -> None:
    """Raise InputError if something watches validation; for runs without it."""
    for place in MONITOR_KEYS[1:]:  # monitor.metric gives way to the last epoch
        if metric := OmegaConf.select(cfg, place):
            raise InputError(
                f"{place} watches {metric}, but this protocol has no validation split: use another scheduler "
                "and no early stopping, or another protocol (for subject_kfold: protocol.val_folds=1)"
            )
