"""The columns of a leaderboard: as numbers for leaderboard.csv, and as text for people."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from fer_lightning.leaderboard.entries import Entry
from fer_lightning.leaderboard.pooling import pooled_score
from fer_lightning.text.words import counted, duration

SCORES = ("acc", "f1_macro", "precision_macro", "recall_macro", "ece")  # in leaderboard.csv, beside the metric
COSTS = ("parameters", "multiply_adds", "epochs", "train_seconds")
HEADER = (
    "entry",
    "runs",
    "mean",
    "± 95 %",
    "std",
    "p against the best",
    "parameters",
    "multiply-adds",
    "epochs",
    "training",
    "epoch chosen by",
    "hardware",
)


def table(entries: Sequence[Entry], metric: str) -> pd.DataFrame:
    """One row per entry, as in leaderboard.csv; costs are means over the entry's runs."""
    columns = {
        "dataset": [entry.comparison.dataset for entry in entries],
        "protocol": [entry.comparison.protocol for entry in entries],
        "leaks": [entry.comparison.leaks for entry in entries],
        "split": [entry.comparison.stage for entry in entries],
        "fingerprint": [entry.comparison.fingerprint[:12] for entry in entries],
        "entry": [entry.label for entry in entries],
        "repetitions": [entry.repetitions for entry in entries],
        metric: [entry.mean for entry in entries],
        "std": [entry.std for entry in entries],
        "interval_95": [entry.interval for entry in entries],
        "p_against_best": [entry.p_value for entry in entries],
        **{name: [pooled_score(entry.runs, name) for entry in entries] for name in SCORES if name != metric},
        **{name: [_mean(entry, name) for entry in entries] for name in COSTS},
        "selection": ["; ".join(_told(entry, "selection")) for entry in entries],
        "hardware": [_hardware(entry) for entry in entries],
    }
    for name in ("parameters", "multiply_adds"):  # whole numbers, also where one is missing
        columns[name] = pd.array([None if mean is None else round(mean) for mean in columns[name]], dtype="Int64")
    return pd.DataFrame(columns)


def cells(entry: Entry) -> list[str]:
    """One row for people, in the order of `HEADER`."""
    cost = {name: _mean(entry, name) for name in COSTS}
    chosen_by = [
        text.removeprefix("best epoch by ").removeprefix("nothing is chosen: ") for text in _told(entry, "selection")
    ]
    return [
        entry.label,
        entry.repetitions,
        f"{entry.mean:.4f}",
        "" if entry.interval is None else f"{entry.interval:.4f}",
        "" if entry.std is None else f"{entry.std:.4f}",
        "" if entry.p_value is None else ("< 0.001" if entry.p_value < 0.001 else f"{entry.p_value:.3f}"),
        "" if cost["parameters"] is None else f"{cost['parameters']:,.0f}",
        "" if cost["multiply_adds"] is None else f"{cost['multiply_adds'] / 1e6:,.1f} M",
        "" if cost["epochs"] is None else f"{cost['epochs']:g}",
        "" if cost["train_seconds"] is None else duration(cost["train_seconds"]),
        "; ".join(chosen_by),
        _hardware(entry),
    ]


def _mean(entry: Entry, name: str) -> float | None:
    """Mean of a number over the runs; None if one of them lacks it."""
    values = [run.facts.get(name) for run in entry.runs]
    return None if None in values else np.mean(values).item()


def _told(entry: Entry, name: str) -> list[str]:
    """What the runs say, each text once."""
    return list(dict.fromkeys(run.facts[name] for run in entry.runs if run.facts.get(name)))


def _hardware(entry: Entry) -> str:
    """What an entry's runs were trained on: GPU or processor, threads, precision."""

    def described() -> Iterator[str]:
        for run in entry.runs:
            machine = run.facts.get("hardware", {})
            name = ", ".join(machine.get("gpus") or [machine.get("cpu", "")]).replace("(R)", "")
            threads = machine.get("threads")
            parts = [name, counted(threads, "thread") if threads else "", machine.get("precision")]
            yield ", ".join(part for part in parts if part)

    return "; ".join(dict.fromkeys(described()))
