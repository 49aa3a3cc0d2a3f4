"""Runs that differ only in seed or fold as one row of a leaderboard, and whether the best may be so by chance."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from fer_lightning.errors import InputError
from fer_lightning.leaderboard.pooling import pooled_score, scores_of_seeds
from fer_lightning.leaderboard.runs import Comparison, Run, differing
from fer_lightning.run_settings import EMPTY, LOWER_IS_BETTER, unless_empty

RESAMPLES = 100_000
MOST_TESTED = 25  # entries per table that are tested against its best
EMPTY_WORDS = {str(value) for value in (*EMPTY, 0.0)}
SHOWN = ("acc", "f1_macro", "precision_macro", "recall_macro", "ece")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row.

    Attributes:
        comparison: The table in which its numbers may be compared.
        label: The network, and the settings in which it differs from other entries.
        runs: Runs in the order of seeds and folds; if a seed and fold was run more than once, the last run.
        mean: Mean of the metric over seeds; the folds of a seed are pooled first, as in `pooling.py`.
        std: Standard deviation over seeds, or over the folds of a single seed; None for one run.
        interval: Half the width of the mean's 95 % interval over seeds (Student's t); None for a single seed: its folds
            share most of their training images, so their spread says too little about another training.
        repetitions: Number of runs in words: `3 seeds`, `10 folds`.
        p_value: p-value of the difference from the table's best, corrected for the number of pairs; None for the best
            itself, if seeds or test images are not the same, and after the first `MOST_TESTED` others.
    """

    comparison: Comparison
    label: str
    runs: tuple[Run, ...]
    mean: float
    std: float | None
    interval: float | None
    repetitions: str
    p_value: float | None = None


def entries(runs: Sequence[Run], metric: str, *, group_by: Sequence[str] | None = None) -> list[Entry]:
    """Group runs and summarise `metric`, without its split's name: `acc`, `f1_macro`; the best of each table first.

    Args:
        runs: Runs that have the metric.
        metric: Name of the metric.
        group_by: Settings that define the entries; None uses those that differ.

    Raises:
        InputError: `group_by` puts runs of one seed and fold into one entry that differ in another setting.
    """
    keys = list(group_by) if group_by is not None else differing(runs)
    absent = _values_if_absent(runs, keys)
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        values = tuple(str(run.settings.get(key, absent.get((run.comparison, run.network, key)))) for key in keys)
        groups.setdefault((run.comparison, run.network, values), []).append(run)
    of_network: dict[tuple[Comparison, str], list[tuple]] = {}
    for comparison, network, values in groups:
        of_network.setdefault((comparison, network), []).append(values)
    made = [
        _summary(comparison, _label(network, keys, values, of_network[comparison, network]), members, metric)
        for (comparison, network, values), members in groups.items()
    ]
    sign = 1 if metric in LOWER_IS_BETTER else -1
    return sorted(made, key=lambda entry: (entry.comparison, sign * entry.mean))


def _values_if_absent(runs: Sequence[Run], keys: Sequence[str]) -> dict[tuple[Comparison, str, str], Any]:
    """The null, empty or zero value that runs of a network have for a setting which older runs of it lack."""
    return {
        (run.comparison, run.network, key): run.settings[key]
        for run in runs
        for key in keys
        if key in run.settings and unless_empty(run.settings, key) is None
    }


def with_p_values(made: Sequence[Entry]) -> list[Entry]:
    """Fill in `p_value` of entries by accuracy: a paired bootstrap of each table's best against the others.

    Each p-value is multiplied by the number of pairs of the entries that are tested (Bonferroni), not by the number of
    others: the best was chosen on the same images, so its lead is the largest of all pairs' differences.
    """
    result = []
    for comparison in dict.fromkeys(entry.comparison for entry in made):
        best, *others = [entry for entry in made if entry.comparison == comparison]
        of_best = _correct(best) if others else None
        tested, rest = others[:MOST_TESTED], others[MOST_TESTED:]
        p_values = [_paired_bootstrap(of_best, _correct(other)) for other in tested]
        count = sum(p is not None for p in p_values)
        pairs = count * (count + 1) / 2
        corrected = [None if p is None else min(1.0, p * pairs) for p in p_values]
        result += [best, *(replace(other, p_value=p) for other, p in zip(tested, corrected, strict=True)), *rest]
    return result


def table(made: Sequence[Entry], metric: str) -> pd.DataFrame:
    """One row per entry, as in leaderboard.csv."""
    rows = []
    for entry in made:
        facts, comparison = entry.runs[0].facts, entry.comparison
        rows.append(
            {
                "dataset": comparison.dataset,
                "protocol": comparison.protocol,
                "leaks": comparison.leaks,
                "split": comparison.stage,
                "fingerprint": comparison.fingerprint[:12],
                "entry": entry.label,
                "repetitions": entry.repetitions,
                metric: entry.mean,
                "std": entry.std,
                "interval_95": entry.interval,
                "p_against_best": entry.p_value,
                **{name: pooled_score(entry.runs, name) for name in SHOWN if name != metric},
                "parameters": facts.get("parameters"),
                "multiply_adds": facts.get("multiply_adds"),
                "epochs": facts.get("epochs"),
                "train_seconds": float(np.mean([run.facts["train_seconds"] for run in entry.runs]))
                if all("train_seconds" in run.facts for run in entry.runs)
                else None,
                "selection": facts.get("selection"),
                "hardware": hardware(entry),
            }
        )
    return pd.DataFrame(rows)


def hardware(entry: Entry) -> str:
    """What an entry's runs were trained on: GPU or processor, threads, precision."""
    found = []
    for run in entry.runs:
        machine = run.facts.get("hardware", {})
        name = ", ".join(machine.get("gpus") or [machine.get("cpu", "")]).replace("(R)", "")
        threads = machine.get("threads")
        parts = [name, f"{threads} thread{'s' if threads > 1 else ''}" if threads else "", machine.get("precision")]
        found.append(", ".join(part for part in parts if part))
    return "; ".join(dict.fromkeys(found))


def _summary(comparison: Comparison, label: str, runs: Sequence[Run], metric: str) -> Entry:
    latest = _without_reruns(runs)
    per_seed = scores_of_seeds(latest, metric)
    spread = per_seed if len(per_seed) > 1 else [run.metrics[f"{comparison.stage}/{metric}"] for run in latest]
    std = float(np.std(spread, ddof=1)) if len(spread) > 1 else None
    seeds = len(per_seed)
    return Entry(
        comparison=comparison,
        label=label,
        runs=tuple(latest),
        mean=float(np.mean(per_seed)),
        std=std,
        interval=float(stats.t.ppf(0.975, seeds - 1) * std / math.sqrt(seeds)) if seeds > 1 else None,
        repetitions=_repetitions_in_words(latest, reruns=len(runs) - len(latest)),
    )


def _without_reruns(runs: Sequence[Run]) -> list[Run]:
    """The last run of each seed and fold, in the order of these."""
    latest: dict[Any, Run] = {}
    for run in runs:
        key = run.repetition if run.repetition.seed is not None else run.folder
        if key in latest and (others := differing([latest[key], run])):
            raise InputError(f"--group-by puts runs of different {others[0]} into one entry: add it")
        latest[key] = run
    return sorted(latest.values(), key=lambda run: tuple(-1 if part is None else part for part in run.repetition))


def _repetitions_in_words(runs: Sequence[Run], *, reruns: int) -> str:
    """How many seeds, folds and splits there are, which are missing, and how many were run again."""
    seeds = list(dict.fromkeys(run.repetition.seed for run in runs))
    splits = len({run.repetition.of_folds for run in runs})
    folds = len({run.repetition.fold for run in runs})
    n_folds = (runs[0].facts.get("config", {}).get("protocol") or {}).get("n_folds")
    words = [f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"] if seeds != [None] else ["no seed"]
    if n_folds or folds > 1:
        words.append(f"{folds} folds" if n_folds in (None, folds) else f"{folds} of {n_folds} folds")
    if splits > len(seeds):
        words.append(f"{splits} splits")
    if len(runs) < splits * folds:
        words.append(f"{splits * folds - len(runs)} missing")
    if reruns:
        words.append(f"{reruns} run again")
    return ", ".join(words)


def _label(network: str, keys: Sequence[str], values: Sequence[str], of_network: Sequence[Sequence[str]]) -> str:
    """The network with the settings that tell its entries apart; settings that an entry lacks are omitted.

    Null, empty and zero are told only where a network has entries with two of these.
    """
    settings = [
        f"{_name(keys[i])}={_short(values[i])}"
        for i in _telling(keys, of_network)
        if values[i] not in EMPTY_WORDS or len(EMPTY_WORDS & {other[i] for other in of_network}) > 1
    ]
    return " ".join([network, *settings])


def _telling(keys: Sequence[str], of_network: Sequence[Sequence[str]]) -> list[int]:
    """Positions of the settings by which a network's entries differ, each only once.

    Omitted are settings that repeat another one (a schedule's peak rate is the optimizer's rate), and those that follow
    from the class they belong to (a momentum, if the optimizers differ).
    """
    columns = list(zip(*of_network, strict=True))
    first = {column: i for i, column in reversed(list(enumerate(columns))) if len(set(column)) > 1}
    class_of = {keys[i].removesuffix("_target_"): columns[i] for i in first.values() if keys[i].endswith("._target_")}

    def follows(i: int) -> bool:
        cls = class_of.get(f"{keys[i].rpartition('.')[0]}.")
        return cls is not None and cls != columns[i] and len(set(zip(cls, columns[i], strict=True))) == len(set(cls))

    return sorted(i for i in first.values() if not follows(i))


def _name(key: str) -> str:
    """A key's last part; for a `_target_`, the part before it."""
    place, _, name = key.rpartition(".")
    return place.rpartition(".")[2] if name == "_target_" else name


def _short(value: str) -> str:
    if value.startswith("[{"):  # objects: their classes, and a digest of their settings
        classes = "+".join(str(each.get("_target_", "")).rpartition(".")[2] for each in json.loads(value))
        return f"{classes[:24]}#{hashlib.sha256(value.encode()).hexdigest()[:4]}"
    text = value.rpartition(".")[2] if value.startswith(("fer_lightning.", "torch.")) else value
    return text if len(text) <= 24 else f"{text[:21]}..."


def _correct(entry: Entry) -> pd.DataFrame | None:
    """Of each test image, by (repetition, image), how often it was classified correctly, and the person in it.

    None if predictions are missing.
    """
    parts = []
    for run in entry.runs:
        if (predictions := run.predictions()) is None:
            return None
        parts.append(predictions.assign(repetition=str(run.repetition)))
    return pd.concat(parts).groupby(["repetition", "image"]).agg({"correct": "mean", "person": "first"})


def _paired_bootstrap(of_best: pd.DataFrame | None, of_other: pd.DataFrame | None) -> float | None:
    """Two-sided p-value for equal accuracy; None if seeds or test images are not the same."""
    if of_best is None or of_other is None:
        return None
    both = of_best.merge(of_other, left_index=True, right_index=True, suffixes=("_best", "_other"))
    if len(both) < max(len(of_best), len(of_other)):
        return None
    difference = both["correct_best"] - both["correct_other"]
    # One image under several seeds is a single observation, and so are the images of one person.
    told_by_best = both["person_best"] != both.index.get_level_values("image")
    person = both["person_best"].where(told_by_best, both["person_other"])
    difference = difference.groupby([person, "image"]).mean().groupby(level=0).sum().to_numpy()
    generator = np.random.default_rng(0)
    values, counts = np.unique(difference.round(9), return_counts=True)
    drawn = generator.multinomial(len(difference), counts / counts.sum(), size=RESAMPLES) @ values / len(difference)
    beyond = min((drawn <= 0).mean(), (drawn >= 0).mean())
    return float(min(1.0, 2 * max(beyond, 1 / RESAMPLES)))
