"""Whether the best entry of a table may be the best by chance."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from fer_lightning.leaderboard.entries import Entry

RESAMPLES = 100_000
MOST_TESTED = 25  # entries per table that are tested against its best


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
