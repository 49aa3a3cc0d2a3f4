"""Runs that differ only in seed, split or fold, as one row of a leaderboard."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from fer_lightning.errors import InputError
from fer_lightning.leaderboard.labels import label_of
from fer_lightning.leaderboard.pooling import scores_of_seeds
from fer_lightning.leaderboard.runs import Comparison, Run, differing
from fer_lightning.runs.settings import LOWER_IS_BETTER, unless_empty
from fer_lightning.text.words import counted


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row.

    Attributes:
        comparison: The table in which its numbers may be compared.
        label: The network, and the settings in which it differs from other entries.
        runs: Runs in the order of seeds and folds; if a seed and fold was run more than once, the last to finish.
        mean: Mean of the metric over seeds; the folds of a seed are pooled first, as in `pooling.py`.
        std: Standard deviation over seeds, or over the folds of a single seed; None for one run.
        interval: Half the width of the mean's 95 % interval over seeds (Student's t); None for a single seed, for
            several splits or folds, which share images, so that their spread says too little about another training,
            and where a seed lacks folds that others have.
        repetitions: Number of runs in words: `3 seeds`, `1 seed, 10 folds`.
        complete: Whether no fold is missing, nor a drawn split that others of the table were measured on.
        p_value: p-value of the difference from the table's best, as in `significance.py`; None if there is none.
    """

    comparison: Comparison
    label: str
    runs: tuple[Run, ...]
    mean: float
    std: float | None
    interval: float | None
    repetitions: str
    complete: bool
    p_value: float | None = None


def entries(runs: Sequence[Run], metric: str, *, group_by: Sequence[str] | None = None) -> list[Entry]:
    """Group runs and summarise a metric: of each table the best first, but entries that lack folds or splits last.

    Args:
        runs: Runs that have the metric.
        metric: Name of the metric, without its split's: `acc`, `f1_macro`.
        group_by: Settings that define the entries; None uses those that differ.

    Raises:
        InputError: `group_by` puts runs of one seed and fold into one entry that differ in another setting.
    """
    keys = list(group_by) if group_by is not None else differing(runs)
    absent = _values_if_absent(runs, keys)
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        values = tuple(_text(run.settings.get(key, absent.get((run.comparison, run.network, key)))) for key in keys)
        groups.setdefault((run.comparison, run.network, values), []).append(run)
    of_network: dict[tuple[Comparison, str], list[tuple]] = {}
    for comparison, network, values in groups:
        of_network.setdefault((comparison, network), []).append(values)
    drawn: dict[Comparison, set[int | None]] = {}
    for run in runs:
        if not run.comparison.measured:
            drawn.setdefault(run.comparison, set()).add(run.repetition.split_seed)
    made = [
        _summary(
            comparison,
            label_of(network, keys, values, of_network[comparison, network]),
            members,
            metric,
            drawn.get(comparison, set()),
        )
        for (comparison, network, values), members in groups.items()
    ]
    sign = 1 if metric in LOWER_IS_BETTER else -1
    return sorted(made, key=lambda entry: (entry.comparison, not entry.complete, sign * entry.mean))


def by_comparison(entries: Sequence[Entry]) -> dict[Comparison, list[Entry]]:
    """The entries of each table, in order."""
    result: dict[Comparison, list[Entry]] = {}
    for entry in entries:
        result.setdefault(entry.comparison, []).append(entry)
    return result


def _text(value: Any) -> str:
    """The value of a setting, alike for 1 and 1.0, which are the same setting."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _values_if_absent(runs: Sequence[Run], keys: Sequence[str]) -> dict[tuple[Comparison, str, str], Any]:
    """The null, empty or zero value that runs of a network have for a setting which older runs of it lack."""
    return {
        (run.comparison, run.network, key): run.settings[key]
        for run in runs
        for key in keys
        if key in run.settings and unless_empty(run.settings, key) is None
    }


def _summary(
    comparison: Comparison, label: str, runs: Sequence[Run], metric: str, splits: Collection[int | None]
) -> Entry:
    latest = _without_reruns(runs)
    per_seed = scores_of_seeds(latest, metric)
    spread = per_seed if len(per_seed) > 1 else [run.metrics[f"{comparison.stage}/{metric}"] for run in latest]
    std = float(np.std(spread, ddof=1)) if len(spread) > 1 else None
    seeds = len(per_seed)
    counts = _Counts.of(latest, splits)
    independent = seeds > 1 and counts.splits == 1 and not counts.missing
    return Entry(
        comparison=comparison,
        label=label,
        runs=tuple(latest),
        mean=float(np.mean(per_seed)),
        std=std,
        interval=float(stats.t.ppf(0.975, seeds - 1) * std / math.sqrt(seeds)) if independent else None,
        repetitions=counts.in_words(reruns=len(runs) - len(latest)),
        complete=counts.complete,
    )


def _without_reruns(runs: Sequence[Run]) -> list[Run]:
    """The run of each seed and fold that finished last, in the order of these."""
    latest: dict[Any, Run] = {}
    for run in sorted(runs, key=lambda run: run.facts.get("finished", "")):
        key = run.repetition if run.repetition.seed is not None else run.folder
        if key in latest and (others := differing([latest[key], run])):
            raise InputError(f"--group-by puts runs of different {others[0]} into one entry: add it")
        latest[key] = run
    return sorted(latest.values(), key=lambda run: tuple(-1 if part is None else part for part in run.repetition))


class _Counts(NamedTuple):
    """How often an entry was run, without runs that were only run again.

    Attributes:
        seeds: Number of seeds; None if the runs have none.
        splits: Number of seeds of the split.
        folds: Number of folds that were run.
        n_folds: Number of folds that there are; None without folds.
        missing: Number of folds that some of the seeds and splits lack.
        missing_splits: Number of drawn splits of the table that there is no run of: one may be harder than another.
    """

    seeds: int | None
    splits: int
    folds: int
    n_folds: int | None
    missing: int
    missing_splits: int

    @classmethod
    def of(cls, runs: Sequence[Run], splits_of_table: Collection[int | None]) -> "_Counts":
        seeds, splits, folds = (len(set(column)) for column in zip(*(run.repetition for run in runs), strict=True))
        n_folds = (runs[0].facts.get("config", {}).get("protocol") or {}).get("n_folds")
        if n_folds is None and folds > 1:
            n_folds = folds
        missing = len({run.repetition.of_folds for run in runs}) * folds - len(runs)
        missing_splits = len(set(splits_of_table) - {run.repetition.split_seed for run in runs})
        seeds = None if runs[0].repetition.seed is None else seeds
        return cls(seeds, splits, folds, n_folds, missing, missing_splits)

    @property
    def complete(self) -> bool:
        return self.n_folds in (None, self.folds) and not self.missing and not self.missing_splits

    def in_words(self, *, reruns: int) -> str:
        words = ["no seed" if self.seeds is None else f"{self.seeds} seed{'s' if self.seeds > 1 else ''}"]
        if self.splits > 1:
            words.append(f"{self.splits} splits")
        if self.n_folds is not None:
            words.append(
                f"{self.folds} folds" if self.folds == self.n_folds else f"{self.folds} of {self.n_folds} folds"
            )
        if self.missing:
            words.append(f"{self.missing} missing")
        if self.missing_splits:
            words.append(f"{counted(self.missing_splits, 'split')} of others missing")
        if reruns:
            words.append(f"{reruns} run again")
        return ", ".join(words)
