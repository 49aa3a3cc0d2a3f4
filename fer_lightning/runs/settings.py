"""Which settings of a run's configuration say what was learnt, and which only where, how or how often it runs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Settings that only repeat a run, or that say where and how it ran, but not what was learnt.
REPETITION_KEYS = ("seed", "protocol.seed", "protocol.fold")
LOCATION_KEYS = ("output_dir", "ckpt_path", "data.root", "data.cache_dir", "data.num_workers", "data.cache_gb")
MACHINE_KEYS = ("trainer.accelerator", "trainer.compile", "trainer._target_")
PASSIVE_CALLBACKS = (  # callbacks that do not affect what is learnt
    "progress",
    "epoch_seed",
    "pictures",
    "learning_check",
    "epoch_table",
    "best_checkpoint",
    "last_checkpoint",
)
EMPTY = (None, 0, False, "", "[]")  # values that an older run's lack of a setting is as good as
LOWER_IS_BETTER = ("loss", "ece")  # of the metrics, without their split's name
# Parts of the configuration that it contains a second time, as constructor arguments.
DUPLICATED_PREFIXES = (
    *("data.preprocess.", "data.protocol.", "data.augmentation."),
    *("model.optimizer.", "model.scheduler.", "model.loss."),
)


def flattened(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A nested configuration as dotted keys and values, lists as JSON."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from flattened(value, f"{prefix}{key}.")
    else:
        yield prefix.rstrip("."), json.dumps(node) if isinstance(node, list) else node


def best_is(metric: str | None) -> str:
    """`min` for metrics that should be small, `max` for the others."""
    return "min" if metric and metric.rpartition("/")[2] in LOWER_IS_BETTER else "max"


def asks_for_several(strategy: str, devices: Any) -> bool:
    """Whether these settings of a Trainer may put a run on several devices, with a process for each."""
    one = devices in (1, "1") or (isinstance(devices, Sequence) and not isinstance(devices, str) and len(devices) == 1)
    return str(strategy).startswith("ddp") or not one


def unless_empty(settings: Mapping[str, Any], key: str) -> Any:
    """The value of a setting, None if it is missing, null, empty or zero."""
    value = settings.get(key)
    return None if value in EMPTY else value
