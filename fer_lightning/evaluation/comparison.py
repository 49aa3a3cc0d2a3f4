"""Several models on the same images.   Shapes: N images."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fer_lightning.errors import InputError
from fer_lightning.evaluation.measurement import Measurement
from fer_lightning.evaluation.scores import Score, Scores, drawn, plain
from fer_lightning.evaluation.section import Section

SHOWN = ("acc", "balanced_acc", "f1_macro", "top2_acc", "log_loss", "ece")


def comparison_sections(
    measured: Sequence[Measurement], scores: Sequence[Scores], *, resamples: int, seed: int
) -> list[Section]:
    """The models' scores side by side, and by how much each is behind the best on the images that all were asked.

    Raises:
        InputError: There is no such image.
    """
    common = sorted(set.intersection(*(set(each.indices.tolist()) for each in measured)))
    if not common:
        raise InputError("the models have no image in common: they know other classes of this dataset")
    order = sorted(range(len(measured)), key=lambda i: -scores[i].overall["acc"].value)
    rows = [
        {"model": measured[i].model, "images": len(measured[i].indices)}
        | {name: scores[i].overall[name] for name in SHOWN}
        for i in order
    ]
    hits = {i: _hits(measured[i], common) for i in order}
    behind = {
        measured[i].model: _difference(hits[order[0]], hits[i], measured[i], common, resamples, seed) for i in order[1:]
    }
    text = [f"Paired over {len(common):,} images; where the interval of a difference holds 0, chance explains it."]
    if len({each.classes.names for each in measured}) > 1:
        text.append("The models were asked for different classes, so that some had an easier choice than others.")
    by_class = [
        {"model": measured[i].model}
        | {name: of["recall"] for name, of in zip(measured[i].classes.names, scores[i].classes, strict=True)}
        for i in order
    ]
    return [
        Section(
            key="comparison",
            title="Scores",
            tables={"comparison": pd.DataFrame(rows)},
            facts={f"{i + 1}. {measured[i].model}": plain(scores[i].overall) for i in range(len(measured))},
        ),
        Section(
            key="differences",
            title=f"Accuracy behind {measured[order[0]].model}",
            text=tuple(text),
            tables={"differences": pd.DataFrame({"model": list(behind), "behind": list(behind.values())})},
            facts=plain(behind),
        ),
        Section(key="recalls", title="Recall by class", tables={"recalls": pd.DataFrame(by_class)}),
    ]


def _hits(measured: Measurement, common: Sequence[int]) -> np.ndarray:
    rows = np.searchsorted(measured.indices, common)
    return (measured.predictions == measured.targets)[rows]


def _difference(
    best: np.ndarray, other: np.ndarray, measured: Measurement, common: Sequence[int], resamples: int, seed: int
) -> Score:
    """How far `other` is behind."""
    difference = best.astype(float) - other
    if not resamples:
        return Score(float(difference.mean()), np.nan, np.nan)
    people = measured.people
    units = None if people is None else people[np.searchsorted(measured.indices, common)]
    weights = drawn(len(common), resamples, np.random.default_rng(seed), units=units)
    low, high = np.percentile(weights @ difference / weights.sum(axis=1), (2.5, 97.5))
    return Score(float(difference.mean()), float(low), float(high))
