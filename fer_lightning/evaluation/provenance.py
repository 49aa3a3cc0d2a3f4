"""How the evaluated images relate to those that the model was trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fer_lightning.checkpoint import trainings
from fer_lightning.data.datamodule import FaceDataModule
from fer_lightning.data.fingerprint import NO_IMAGES
from fer_lightning.data.splits import STAGES
from fer_lightning.errors import InputError
from fer_lightning.inference.model_card import ModelCard

SPLITS = ("train", "val", "test", "all")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Relation of a split's images to the model's training, by the fingerprints in the model's file.

    Attributes:
        split: `train`, `val`, `test` or `all`.
        own: Whether the model was trained on this dataset with this split's train.
        chosen: Whether an epoch, the model's or that of what it builds on, was chosen on exactly these images.
        seen: Why the model may have been trained, or its epoch chosen, on some of the images; None if it was not, or if
            it was chosen on all of them.
        note: Sentence about this for the report.
    """

    split: str
    own: bool
    chosen: bool
    seen: str | None
    note: str

    @property
    def stage(self) -> str:
        """Prefix of the metrics' names: `all` images count as `test`."""
        return "test" if self.split == "all" else self.split


def provenance(split: str | None, datamodule: FaceDataModule, card: ModelCard) -> Provenance:
    """Compare the split's fingerprints with the model's; the default split is test, or val if there is no test.

    Raises:
        InputError: The split does not exist.
    """
    if split is not None and split not in SPLITS:
        raise InputError(f"split must be {', '.join(SPLITS)}, or null, got {split!r}")
    dataset = datamodule.index.dataset
    split = split or ("test" if datamodule.has("test") else "val")
    if split != "all" and not datamodule.has(split):
        raise InputError(f"{dataset} has no {split} split under protocol {datamodule.split.protocol}")
    own = _is_own(card.training, datamodule)
    seen = _seen(split, datamodule, card.training)
    ours = datamodule.fingerprint["splits"]
    held_out = split in ("val", "test") and _holds_out(card.training, split, ours)  # whatever part it learned from
    chose = [
        split == "val" and _holds_out(training, "val", ours) and bool(training.get("monitor", "val/acc"))
        for training in trainings(card.training)
    ]
    chosen = any(chose)
    note = _note(card, own=own or held_out, chosen=chosen, chosen_before=any(chose[1:]), seen=seen)
    return Provenance(split=split, own=own, chosen=chosen, seen=seen, note=note)


def images_of(split: str, datamodule: FaceDataModule) -> np.ndarray:
    """Positions of a split's images, sorted."""
    stages = STAGES if split == "all" else (split,)
    return np.sort(np.concatenate([datamodule.split[stage] for stage in stages]))


def _is_own(training: Mapping[str, Any], datamodule: FaceDataModule) -> bool:
    return training.get("splits", {}).get("train") == datamodule.fingerprint["splits"]["train"]["sha256"]


def _holds_out(training: Mapping[str, Any], stage: str, ours: Mapping[str, Any]) -> bool:
    return training.get("splits", {}).get(stage) == ours[stage]["sha256"]


def _seen(split: str, datamodule: FaceDataModule, training: Mapping[str, Any]) -> str | None:
    """Why the model, its initial weights or its teachers may have seen some of a split's images, with the remedy."""
    of_model, *before = trainings(training)
    if why := _why_seen(split, datamodule, of_model):
        return f"the model {why.reason}: {why.remedy}"
    if why := next(filter(None, (_why_seen(split, datamodule, each) for each in before)), None):
        network = "a network that the model began with or learned from"
        return f"{network} {why.reason}: use a split or dataset that it has not seen"
    return None


class _Objection(NamedTuple):
    """To measuring a network on a split: what it has seen of it, as the rest of a sentence, and what to do instead."""

    reason: str
    remedy: str


def _why_seen(split: str, datamodule: FaceDataModule, training: Mapping[str, Any]) -> _Objection | None:
    """Why a training may have used some of a split's images.

    To have chosen the epoch on the whole split is no reason, since the note says so.
    """
    dataset, splits = datamodule.index.dataset, datamodule.fingerprint["splits"]
    trained_on = training.get("splits", {}).get("train")
    pixels = training.get("pixels")  # does not depend on names, order and labels
    stages = STAGES if split == "all" else (split,)
    if any(
        splits[stage]["count"] and (splits[stage]["sha256"] == trained_on or splits[stage]["pixels"] == pixels)
        for stage in stages
    ):
        part = "this very split" if split != "all" else "a part"
        return _Objection(f"was trained on {part} of {dataset}", "evaluate it on split=test or split=val")
    own = _is_own(training, datamodule)
    held_out = all(stage != "train" and _holds_out(training, stage, splits) for stage in stages)
    if training.get("dataset") == dataset and not own and not held_out:
        return _Objection(
            f"was trained on another split of {dataset} ({_protocol(training)}), so images of this one may be among "
            "those it was trained on",
            "use the protocol and data.reader of its run",
        )
    if own and training["splits"].get("val", NO_IMAGES) not in (NO_IMAGES, splits["val"]["sha256"]):
        return _Objection(
            f"had its epoch chosen on another val split of {dataset} ({_protocol(training)}), so images of this split "
            "may be among those",
            "use the protocol of its run",
        )
    return None


def _protocol(training: Mapping[str, Any]) -> str:
    """The protocol of a training, with the settings that determine the split."""
    settings = training.get("protocol_settings", {})
    said = [
        f"protocol.{name}={settings[name]}"
        for name in ("seed", "fold", "n_folds", "val_folds", "val_percent", "train_percent")
        if settings.get(name) is not None
    ]
    return ", ".join([str(training.get("protocol")), *said])


def _note(card: ModelCard, *, own: bool, chosen: bool, chosen_before: bool, seen: str | None) -> str:
    if not card.training.get("splits"):
        return "The model file does not say what it was trained on: these images may be part of it."
    if seen is not None:
        return (
            "The model was, or may have been, trained or chosen on some of these images: the figures say little about "
            "new faces."
        )
    if {} in trainings(card.training):
        return "What the model's initial weights or teachers saw is not recorded: these images may be part of it."
    if chosen:
        before = "of the model's initial weights or teachers"
        whose = f"An epoch {before} was"
        if own:
            whose = f"The epoch, and at least one {before}, were" if chosen_before else "The epoch was"
        return f"{whose} chosen on these images, so the figures are slightly optimistic."
    if own:
        return "The model was neither trained nor chosen on these images."
    return (
        f"The model was trained on {card.training.get('dataset')}, and none of its splits is this one; single images "
        "that occur in both are not searched for."
    )
