"""Settings that no training could work with, told before it starts."""

from itertools import product

from omegaconf import DictConfig, OmegaConf

from fer_lightning.errors import InputError
from fer_lightning.module import ExpressionClassifier
from fer_lightning.run_settings import asks_for_several

# Settings of a checkpoint callback that say which epochs it keeps.
WHICH_EPOCHS = ("save_top_k", "every_n_epochs", "every_n_train_steps", "train_time_interval")
FILE_NAMES = {"best_checkpoint": "best", "last_checkpoint": "last"}  # by which resuming and exporting find them
NEEDED_CALLBACKS = ("epoch_seed", "epoch_table", "best_checkpoint", "last_checkpoint")
MONITOR_KEYS = ("callbacks.early_stopping.monitor", "scheduler.monitor")  # in addition to monitor.metric
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
    if not isinstance(cfg.trainer.max_epochs, int) or cfg.trainer.max_epochs < 1:
        raise InputError(f"trainer.max_epochs must be at least 1, got {cfg.trainer.max_epochs}")
    if used := [name for name in WITHIN_AN_EPOCH if cfg.trainer.get(name) not in (-1, None)]:
        raise InputError(f"trainer.{used[0]} would end a run within an epoch, before val: set trainer.max_epochs")
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
    for name, key in product(("best_checkpoint", "last_checkpoint"), WHICH_EPOCHS):
        if cfg.callbacks[name].get(key, 1) != 1:
            raise InputError(f"callbacks.{name}.{key} would keep other epochs than the best and the last: omit it")
    for name, filename in FILE_NAMES.items():
        if cfg.callbacks[name].filename != filename or cfg.callbacks[name].get("save_weights_only"):
            raise InputError(f"callbacks.{name} must write {filename}.ckpt, and all of it: omit its settings")
    if (stopping := cfg.callbacks.get("early_stopping")) is not None and stopping.monitor is None:
        raise InputError("callbacks=early_stopping has nothing to watch: set monitor.metric, for example to val/acc")
    best = cfg.callbacks.best_checkpoint
    if (best.monitor, best.mode) != (cfg.monitor.metric, cfg.monitor.mode):
        raise InputError(
            f"callbacks.best_checkpoint would keep the epoch of {best.mode} {best.monitor}, and monitor.metric is "
            f"{cfg.monitor.metric}: set monitor.metric and monitor.mode instead, by which all choose"
        )


def check_metrics(cfg: DictConfig, model: ExpressionClassifier) -> None:
    """Raise InputError if a metric is watched that the model does not measure."""
    for place in ("monitor.metric", *MONITOR_KEYS):
        metric = OmegaConf.select(cfg, place)
        if metric is not None and metric not in model.val_meter.names:
            raise InputError(f"{place} {metric} is not measured: choose from {', '.join(model.val_meter.names)}")


def require_no_monitor(cfg: DictConfig) -> None:
    """Raise InputError if something watches validation; for runs without it."""
    for place in MONITOR_KEYS:
        if metric := OmegaConf.select(cfg, place):
            raise InputError(
                f"{place} watches {metric}, but this protocol has no validation split: use another scheduler "
                "and no early stopping, or another protocol (for subject_kfold: protocol.val_folds=1)"
            )
