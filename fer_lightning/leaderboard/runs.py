"""Finished runs, read from their `result.json`.

Two runs may be compared if they have the same *comparison*: the dataset with its fingerprint, the protocol and the
reported split. Runs that differ only in seed or fold are one *entry*; entries are told apart by every setting in which
the given runs differ.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from fer_lightning.errors import InputError
from fer_lightning.result import SCHEMA_VERSION
from fer_lightning.run_settings import (
    DUPLICATED_PREFIXES,
    LOCATION_KEYS,
    MACHINE_KEYS,
    PASSIVE_CALLBACKS,
    REPETITION_KEYS,
    flattened,
    unless_empty,
)


class Comparison(NamedTuple):
    """What runs must have in common for their numbers to stand in one table."""

    dataset: str
    fingerprint: str
    protocol: str
    leaks: bool
    stage: str

    def __str__(self) -> str:
        leaks = ", leaks" if self.leaks else ""
        return f"{self.dataset} {self.protocol}{leaks}, {self.stage} [{self.fingerprint[:6]}]"


@dataclass(frozen=True)
class Run:
    """One `result.json`.

    Attributes:
        folder: Folder of the run.
        facts: Content of the file.
    """

    folder: Path
    facts: Mapping[str, Any] = field(repr=False)

    @property
    def metrics(self) -> Mapping[str, float]:
        """Metrics by name, `test/acc` and so on."""
        return self.facts["metrics"]

    @property
    def stage(self) -> str:
        """The reported split: test if there is one, else val."""
        return "test" if "test/acc" in self.metrics else "val"

    @property
    def is_evaluation(self) -> bool:
        """Whether a trained model was only measured."""
        return "model" in self.facts and isinstance(self.facts["model"], Mapping)

    @cached_property
    def comparison(self) -> Comparison:
        """The table to which its number belongs."""
        data = self.facts["data"]
        return Comparison(data["dataset"], _fingerprint(data), data["protocol"], bool(data.get("leaks")), self.stage)

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """The whole configuration, by dotted keys."""
        return dict(flattened(self.facts.get("config", {})))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The configuration by dotted keys, without settings that only repeat, place or watch a run."""
        left_out = {*REPETITION_KEYS, *LOCATION_KEYS, *MACHINE_KEYS}
        parts = (*(f"callbacks.{name}." for name in PASSIVE_CALLBACKS), *DUPLICATED_PREFIXES, "logger.")
        return {
            key: value for key, value in self.configuration.items() if key not in left_out and not key.startswith(parts)
        }

    @property
    def network(self) -> str:
        """Name of the network, or of the classifier with its features."""
        model = self.facts.get("config", {}).get("model") or {}
        if "net" in model:
            return model["net"]["name"]
        return f"{model.get('_target_', 'model').rpartition('.')[2]} {model.get('features', '')}".strip()

    @property
    def repetition(self) -> "Repetition":
        """Its seeds and its fold."""
        protocol = self.facts.get("config", {}).get("protocol") or {}
        return Repetition(self.facts.get("seed"), protocol.get("seed"), protocol.get("fold"))

    @property
    def count(self) -> int:
        """Number of images of the reported split."""
        return self.facts["data"]["splits"][self.stage]["count"]

    def predictions(self) -> pd.DataFrame | None:
        """One row per image: image, person, target, prediction, correct; None if the table is missing or unreadable.

        `person` is the image's name where the table does not say who it is.
        """
        path = self.folder / "predictions.csv"
        try:
            told = [name for name in pd.read_csv(path, nrows=0) if name == "person"]
            table = pd.read_csv(path, usecols=["image", *told, "target", "prediction"], engine="pyarrow")
        except (OSError, ValueError):
            return None
        person = table["person" if told else "image"].astype(str)
        return table.assign(person=person, correct=table["target"] == table["prediction"])

    def epochs(self) -> pd.DataFrame | None:
        """The run's `metrics.csv`; None if it is missing or unreadable."""
        try:
            return pd.read_csv(self.folder / "metrics.csv")
        except (OSError, ValueError):
            return None


class Repetition(NamedTuple):
    """What runs of one entry may differ in: the run's seed, the split's seed and the fold; None if it has none."""

    seed: int | None
    split_seed: int | None
    fold: int | None

    @property
    def of_folds(self) -> tuple[int | None, int | None]:
        """What the folds of one cross-validation have in common."""
        return self.seed, self.split_seed


class Collected(NamedTuple):
    """The runs that were read, and the reasons why others were not, by folder."""

    runs: list[Run]
    unreadable: dict[Path, str]


def collect(places: Sequence[Path]) -> Collected:
    """Read every `result.json` at or below the given folders, once; a folder with only checkpoints is unfinished.

    For a failed job of a sweep, the reason is read from `failure.json`.

    Raises:
        InputError: A folder does not exist.
    """
    runs: dict[Path, Run] = {}
    unreadable = {}
    for place in places:
        if not place.is_dir():
            raise InputError(f"there is no folder {place}: give the folder of a sweep, or outputs")
        for path in sorted(place.rglob("result.json")):
            try:
                runs.setdefault(path.resolve(), Run(path.parent, _read(path)))
            except InputError as error:
                unreadable[path.parent] = str(error)
        for path in sorted(place.rglob("checkpoints")):
            if not (path.parent / "result.json").exists():
                unreadable[path.parent] = "is unfinished: it has no result.json"
        for path in sorted(place.rglob("failure.json")):
            if (path.parent / "result.json").resolve() not in runs:  # else only its repetition failed
                unreadable[path.parent] = _failure(path)
    return Collected(list(runs.values()), unreadable)


def differing(runs: Sequence[Run]) -> list[str]:
    """Settings that are not the same in all runs of one network in one table, in alphabetical order.

    A setting that an older run lacks counts as equal to null, empty or zero.
    """
    keys: set[str] = set()
    alike: dict[tuple[Comparison, str], list[Run]] = {}
    for run in runs:
        alike.setdefault((run.comparison, run.network), []).append(run)
    for first, *others in alike.values():
        for run in others:
            ours, theirs = first.settings, run.settings
            keys |= {key for key in ours.keys() | theirs.keys() if _differ(ours, theirs, key)}
    return sorted(keys)


def _differ(ours: Mapping[str, Any], theirs: Mapping[str, Any], key: str) -> bool:
    if key in ours and key in theirs:
        return ours[key] != theirs[key]
    return unless_empty(ours, key) != unless_empty(theirs, key)


def _read(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read ({error})") from error
    version = facts.get("schema_version") if isinstance(facts, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(f"has schema {version}, but this version reads {SCHEMA_VERSION}")
    if missing := {"metrics", "data"} - facts.keys():
        raise InputError(f"lacks {', '.join(sorted(missing))}")
    if not {"test/acc", "val/acc"} & facts["metrics"].keys():
        raise InputError("has no accuracy on val or test")
    return facts


def _failure(path: Path) -> str:
    try:
        return f"failed: {json.loads(path.read_bytes())['reason']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"failed, and its failure.json cannot be read ({error})"


def _fingerprint(data: Mapping[str, Any]) -> str:
    """Fingerprint of all the dataset's images, whichever split they are in."""
    if "sha256" in data:
        return data["sha256"]
    counts: dict[str, int] = {}
    for split in data["splits"].values():
        for name, count in split["classes"].items():
            counts[name] = counts.get(name, 0) + count
    return hashlib.sha256(json.dumps(counts, sort_keys=True).encode()).hexdigest()
