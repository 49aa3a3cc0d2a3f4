"""What a command that trains checks and prints about its data before it begins."""

import logging

from lightning.pytorch.utilities import rank_zero_only

from fer_lightning.data.datamodule import FaceDataModule
from fer_lightning.data.splits import STAGES
from fer_lightning.errors import InputError

log = logging.getLogger(__name__)


def check_trainable(datamodule: FaceDataModule) -> None:
    """Refuse data that nothing can be learnt or measured on.

    Raises:
        InputError: Some class has no image in train, or neither val nor test has images.
    """
    if missing := datamodule.classes_missing_from("train"):
        raise InputError(
            f"protocol {datamodule.split.protocol} leaves no training image of class {', '.join(missing)}: nothing can "
            f"be trained on this {datamodule.index.dataset}, but evaluate can measure a model on it"
        )
    if not datamodule.has("val") and not datamodule.has("test"):
        raise InputError(f"{datamodule.index.dataset} has neither val nor test images here, so nothing can be measured")


@rank_zero_only
def announce(datamodule: FaceDataModule) -> None:
    """Print how many images each split has, and warn about limits of the numbers measured on them."""
    counts = ", ".join(f"{len(datamodule.split[stage]):,} {stage}" for stage in STAGES)
    log.info("%s, protocol %s: %s", datamodule.index.dataset, datamodule.split.protocol, counts)
    if datamodule.split.leaks:
        log.warning(
            "protocol %s ignores who is seen: people with several images, and near-copies, are in both train and test; "
            "compare its numbers only with papers that split in the same way",
            datamodule.split.protocol,
        )
    if not datamodule.has("test"):
        lacks = datamodule.index.lacks
        hint = f" (this copy lacks {lacks})" if lacks else ""
        log.warning("no test split here%s: val is reported, under its own name", hint)
    for stage in ("val", "test"):
        missing = datamodule.classes_missing_from(stage)
        if datamodule.has(stage) and missing:
            log.warning(
                "%s has no image of class %s: if a face is predicted as such a class, it counts as 0 in macro scores",
                stage,
                ", ".join(missing),
            )
