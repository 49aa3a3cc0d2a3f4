"""Finished runs, read from their `result.json`.

Two runs may be compared if they have the same *comparison*: the dataset with its fingerprint, the protocol and the
split. Runs that differ only in seed or fold are one *entry*; entries are told apart by every setting in which
the given runs differ.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from fer_lightning.errors import InputError
from fer_lightning.runs.result import SCHEMA_VERSION
from fer_lightning.runs.settings import (
    DUPLICATED_PREFIXES,
    LOCATION_KEYS,
    MACHINE_KEYS,
    PASSIVE_CALLBACKS,
    REPETITION_KEYS,
    flattened,
    unless_empty,
)


class Comparison(NamedTuple):
    """What runs must have in common for their numbers to stand in one table.

    Attributes:
        fingerprint: Hash of all images of the dataset; empty where only a drawn part of its training images is known.
        measured: Hash of those of the compared split; empty where seeds and folds draw different ones.
    """

    dataset: str
    fingerprint: str
    protocol: str
    leaks: bool
    stage: str
    measured: str

    def __str__(self) -> str:
        leaks = ", leaks" if self.leaks else ""
        hashes = " ".join(digest[:6] for digest in (self.fingerprint, self.measured) if digest)
        return f"{self.dataset} {self.protocol}{leaks}, {self.stage} [{hashes}]"


@dataclass(frozen=True)
class Run:
    """One `result.json`.

    Attributes:
        folder: Folder of the run.
        facts: Content of the file.
        stage: The split whose numbers are compared: `val` or `test`.
    """

    folder: Path
    facts: Mapping[str, Any] = field(repr=False)
    stage: str

    @property
    def metrics(self) -> Mapping[str, float]:
        """Metrics by name, `test/acc` and so on."""
        return self.facts["metrics"]

    @property
    def is_evaluation(self) -> bool:
        """Whether a trained model was only measured."""
        return "model" in self.facts and isinstance(self.facts["model"], Mapping)

    @cached_property
    def comparison(self) -> Comparison:
        """The table to which its number belongs."""
        data, protocol = self.facts["data"], self.facts.get("config", {}).get("protocol") or {}
        drawn = "percent" in protocol or protocol.get("fold") is not None
        drawn |= self.stage == "val" and bool(protocol.get("val_percent"))
        return Comparison(
            data["dataset"],
            "" if protocol.get("train_percent") is not None else data["sha256"],
            data["protocol"],
            bool(data.get("leaks")),
            self.stage,
            "" if drawn else data["splits"][self.stage]["sha256"],
        )

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """The whole configuration, by dotted keys."""
        return dict(flattened(self.facts.get("config", {})))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The configuration by dotted keys, without settings that only repeat, place or watch a run."""
        left_out = {*REPETITION_KEYS, *LOCATION_KEYS, *MACHINE_KEYS}
        if self.configuration.get("data.seed") == self.configuration.get("seed"):
            left_out.add("data.seed")  # it is the run's, unless it is set
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
        """Number of images of the compared split."""
        return self.facts["data"]["splits"][self.stage]["count"]

    @cached_property
    def predictions(self) -> pd.DataFrame | None:
        """One row per image: image, person, target, prediction, correct.

        `person` is the image's name where the table does not say who it is. None if the table is missing or unreadable,
        or is of another split than the compared one.
        """
        path = self.folder / "predictions.csv"
        try:
            told = [name for name in pd.read_csv(path, nrows=0) if name in ("split", "person")]
            columns = ["image", *told, "target", "prediction"]
            # A class may be called None.
            table = pd.read_csv(path, usecols=columns, engine="pyarrow", keep_default_na=False, dtype=str)
        except (OSError, ValueError):
            return None
        if "split" in told and (table["split"] != self.stage).any():
            return None
        person = table["person" if "person" in told else "image"]
        return table.assign(person=person, correct=table["target"] == table["prediction"])

    def confidences(self) -> pd.DataFrame | None:
        """One row per image: confidence, correct; None if the table is missing, or holds no probabilities."""
        if self.predictions is None:
            return None
        path = self.folder / "predictions.csv"
        told = [name for name in pd.read_csv(path, nrows=0) if name.startswith("p_")]
        if not told:
            return None
        confidence = pd.read_csv(path, usecols=told, engine="pyarrow").max(axis=1)
        return pd.DataFrame({"confidence": confidence, "correct": self.predictions["correct"]})

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


def collect(places: Sequence[Path], stage: str | None = None) -> Collected:
    """Read every `result.json` at or below the given folders, once; a folder with only checkpoints is unfinished.

    For a failed job of a sweep, the reason is read from `failure.json`.

    Args:
        places: The folders.
        stage: Split to compare, `val` or `test`; None compares each run's test if it has one, else its val.

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
                runs.setdefault(path.resolve(), _read(path, stage))
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


def _read(path: Path, stage: str | None) -> Run:
    try:
        facts = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read ({error})") from error
    version = facts.get("schema_version") if isinstance(facts, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(f"has schema {version}, but this version reads {SCHEMA_VERSION}")
    if missing := {"metrics", "data"} - facts.keys():
        raise InputError(f"lacks {', '.join(sorted(missing))}")
    if wrong := [name for name in ("metrics", "data", "config") if not isinstance(facts.get(name, {}), dict)]:
        raise InputError(f"has no mapping under {wrong[0]}")
    if missing := {"dataset", "protocol", "splits"} - facts["data"].keys():
        raise InputError(f"lacks data.{', data.'.join(sorted(missing))}")
    if odd := [name for name, value in facts["metrics"].items() if not isinstance(value, int | float)]:
        raise InputError(f"has a metric that is no number: {odd[0]}")
    if "sha256" not in facts["data"]:
        raise InputError("does not say which images it used: data.sha256 is missing")
    stages = (stage,) if stage else ("test", "val")
    measured = [name for name in stages if f"{name}/acc" in facts["metrics"]]
    if not measured:
        raise InputError(f"has no accuracy on {' or '.join(stages)}")
    return Run(path.parent, facts, measured[0])


def _failure(path: Path) -> str:
    try:
        return f"failed: {json.loads(path.read_bytes())['reason']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"failed, and its failure.json cannot be read ({error})"
