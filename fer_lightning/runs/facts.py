"""What a checkpoint says of its training: a run that goes on from it must say the same."""

from typing import Any

from omegaconf import DictConfig, ListConfig

from fer_lightning.data.datamodule import FaceDataModule
from fer_lightning.machine.hardware import choose_precision
from fer_lightning.runs.settings import PASSIVE_CALLBACKS

# Trainer settings that change what is learnt.
TRAINER_FACTS = (
    *("max_epochs", "limit_train_batches", "accumulate_grad_batches"),
    *("gradient_clip_val", "gradient_clip_algorithm", "devices", "strategy"),
)


def training_facts(cfg: DictConfig, datamodule: FaceDataModule, code_sha256: str) -> dict[str, Any]:
    """What decides what is learnt: the checkpoint keeps it beside the model's other hyper-parameters."""
    fingerprint = datamodule.fingerprint
    return {
        "code_sha256": code_sha256,
        "network": cfg.model.net.name,
        "dataset": fingerprint["dataset"],
        "protocol": fingerprint["protocol"],
        "protocol_settings": _without_hydra(cfg.data.protocol),
        "pixels": fingerprint["splits"]["train"]["pixels"],
        "splits": {stage: summary["sha256"] for stage, summary in fingerprint["splits"].items()},
        "seed": cfg.seed,
        "data_seed": cfg.data.seed,
        "batch_size": cfg.data.batch_size,
        "oversample": cfg.data.oversample,
        "loss": _without_hydra(cfg.model.loss),
        "label_smoothing": cfg.model.label_smoothing,
        "mixup": cfg.model.mixup,
        "decay_weights_only": cfg.model.decay_weights_only,
        "monitor": cfg.monitor.metric,
        "optimizer": _without_hydra(cfg.model.optimizer),
        "scheduler": _without_hydra(cfg.model.scheduler),
        "augmentation": _without_hydra(cfg.data.augmentation),
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
