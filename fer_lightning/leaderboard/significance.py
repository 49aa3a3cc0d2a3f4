"""Whether the best entry of a table may be the best by chance."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import signal, stats

from fer_lightning.leaderboard.entries import Entry, by_comparison

MOST_TESTED = 25  # entries per table that are tested against its best


def with_p_values(made: Sequence[Entry]) -> list[Entry]:
    """Fill in `p_value` of entries by accuracy: a paired test of each table's best against the others.

    Each p-value is multiplied by the number of pairs of the table's entries (Bonferroni), not by the number of others:
    the best was chosen on the same images, so its lead is the largest of all pairs' differences.
    """
    result = []
    for best, *others in by_comparison(made).values():
        of_best = _right(best) if others else None
        tested, rest = others[:MOST_TESTED], others[MOST_TESTED:]
        pairs = len(others) * (len(others) + 1) / 2
        p_values = [_paired_test(of_best, _right(other)) for other in tested]
        corrected = [None if p is None else min(1.0, p * pairs) for p in p_values]
        result += [best, *(replace(other, p_value=p) for other, p in zip(tested, corrected, strict=True)), *rest]
    return result


def _right(entry: Entry) -> pd.DataFrame | None:
    """Of each test image of a split: how many of the entry's runs classified it, how many rightly, and who is on it.

    None if predictions are missing.
    """
    parts = []
    for run in entry.runs:
        if (predictions := run.predictions) is None:
            return None
        # Where all runs have one split, an image is the same whatever the seed.
        part = "" if entry.comparison.measured else f"{run.repetition.split_seed} {run.repetition.fold}"
        parts.append(predictions.assign(part=part))
    grouped = pd.concat(parts).groupby(["part", "image"])
    return grouped.agg(right=("correct", "sum"), runs=("correct", "size"), person=("person", "first"))


def _paired_test(of_best: pd.DataFrame | None, of_other: pd.DataFrame | None) -> float | None:
    """Two-sided p-value for equal accuracy; None if splits or test images are not the same."""
    if of_best is None or of_other is None:
        return None
    both = of_best.merge(of_other, left_index=True, right_index=True, suffixes=("_best", "_other"))
    if len(both) < max(len(of_best), len(of_other)):
        return None
    # In whole numbers, for which equal sums are equal: the mean over an entry's runs, times a common multiple.
    multiple = np.lcm.reduce(np.unique(both[["runs_best", "runs_other"]]))
    difference = both.right_best * (multiple // both.runs_best) - both.right_other * (multiple // both.runs_other)
    # One image under several seeds is a single observation, and so are the images of one person.
    told_by_best = both.person_best != both.index.get_level_values("image")
    person = both.person_best.where(told_by_best, both.person_other)
    return _sign_flip_p(difference.groupby(person).sum().to_numpy())


def _sign_flip_p(differences: np.ndarray) -> float:
    """How often whole numbers of these sizes, each with a sign by chance, add up to at least as much either way.

    The exact distribution, by convolution; for differences of 1 it is McNemar's exact test.
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    distribution = np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        sums = np.zeros(2 * size * count + 1)
        sums[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        distribution = signal.convolve(distribution, sums)
    sums = np.arange(len(distribution)) - len(distribution) // 2
    return float(distribution[np.abs(sums) >= abs(differences.sum())].sum().clip(0, 1))
