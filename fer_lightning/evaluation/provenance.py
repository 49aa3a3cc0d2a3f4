"""What the images that are measured have to do with those that the model was trained on."""

from dataclasses import dataclass

import numpy as np

from fer_lightning.data.datamodule import FaceDataModule
from fer_lightning.data.splits import STAGES
from fer_lightning.errors import InputError
from fer_lightning.inference.model_card import ModelCard

SPLITS = ("train", "val", "test", "all")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Of the images of a split, by the fingerprints in the model's file.

    Attributes:
        split: `train`, `val`, `test` or `all`.
        own: Whether the model was trained on this very dataset, split in this way.
        seen: Why the model may have been trained on some of the images; None where it was not.
        note: What a report says of it.
    """

    split: str
    own: bool
    seen: str | None
    note: str

    @property
    def stage(self) -> str:
        """Of the names of the metrics: everything of a dataset counts as its test."""
        return "test" if self.split == "all" else self.split


def provenance(split: str | None, datamodule: FaceDataModule, card: ModelCard) -> Provenance:
    """Look the split's fingerprints up; by default it is test, or val where there is no test.

    Raises:
        InputError: There is no such split.
    """
    if split is not None and split not in SPLITS:
        raise InputError(f"split must be {', '.join(SPLITS)}, or null, got {split!r}")
    dataset = datamodule.index.dataset
    split = split or ("test" if datamodule.has("test") else "val")
    if split != "all" and not datamodule.has(split):
        raise InputError(f"{dataset} has no {split} split under protocol {datamodule.split.protocol}")
    own, seen = _own_and_seen(split, datamodule, card)
    return Provenance(split=split, own=own, seen=seen, note=_note(split, card, own=own, seen=seen))


def images_of(split: str, datamodule: FaceDataModule) -> np.ndarray:
    """Positions of a split's images, sorted."""
    stages = STAGES if split == "all" else (split,)
    return np.sort(np.concatenate([getattr(datamodule.split, stage) for stage in stages]))


def _own_and_seen(split: str, datamodule: FaceDataModule, card: ModelCard) -> tuple[bool, str | None]:
    dataset, trained, ours = datamodule.index.dataset, card.training, datamodule.fingerprint["splits"]
    of_model = trained.get("splits", {})
    own = of_model.get("train") == ours["train"]["sha256"] and trained.get("dataset") == dataset
    pixels = trained.get("pixels")  # found again under whatever name, order and labels
    stages = STAGES if split == "all" else (split,)
    if any(
        ours[stage]["count"] and (ours[stage]["sha256"] == of_model.get("train") or ours[stage]["pixels"] == pixels)
        for stage in stages
    ):
        part = "this very split" if split != "all" else "a part"
        return own, f"the model was trained on {part} of {dataset}: evaluate it on split=test or split=val"
    if trained.get("dataset") == dataset and not own:
        return own, (
            f"the model was trained on another split of {dataset} ({_protocol(card)}), so that images of this one may "
            "be among those it was trained on: give the protocol and data.reader as its run had them"
        )
    return own, None


def _protocol(card: ModelCard) -> str:
    """As the model file says it, with the settings that decide the split."""
    settings = card.training.get("protocol_settings", {})
    said = [
        f"protocol.{name}={settings[name]}"
        for name in ("seed", "fold", "n_folds", "val_folds", "val_percent")
        if name in settings
    ]
    return ", ".join([str(card.training.get("protocol")), *said])


def _note(split: str, card: ModelCard, *, own: bool, seen: str | None) -> str:
    if not card.training.get("splits"):
        return "The model file does not say what it was trained on: these images may be among it."
    if seen is not None:
        return "The model was, or may have been, trained on some of these images: the figures say little of new faces."
    if own and split == "val":
        return "The epoch was chosen on these images, so the figures lean to the optimistic side."
    if own:
        return "The model was neither trained on these images nor chosen by them."
    return (
        f"The model was trained on {card.training.get('dataset')}, and none of its splits is this one; whether single "
        "images stand in both is not looked for."
    )
