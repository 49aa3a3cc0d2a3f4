"""Several models on the same images.   Shapes: N images."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fer_lightning.evaluation.measurement import Measurement
from fer_lightning.evaluation.scores import Score, Scores, plain
from fer_lightning.evaluation.section import Section

SHOWN = ("acc", "balanced_acc", "f1_macro", "top2_acc", "log_loss", "ece")
TOGETHER = "all, their probabilities averaged"
NOTHING = Score(np.nan, np.nan, np.nan)


def comparison_sections(measurements: Sequence[Measurement], scores: Sequence[Scores]) -> list[Section]:
    """The models' scores side by side, the best first, and how far each is behind the best on their shared images.

    The models share at least one image. If all have the same classes, the last row is their ensemble, with averaged
    probabilities.
    """
    common = sorted(set.intersection(*(set(each.indices.tolist()) for each in measurements)))
    rows = [np.searchsorted(each.indices, common) for each in measurements]
    hits = [(each.predictions == each.targets)[mine] for each, mine in zip(measurements, rows, strict=True)]
    order = sorted(range(len(measurements)), key=lambda i: -hits[i].mean())
    measurements, scores, rows, hits = ([of_model[i] for i in order] for of_model in (measurements, scores, rows, hits))
    return [
        _side_by_side(measurements, scores, len(common)),
        _behind_the_best(measurements, hits, rows),
        _by_class(measurements, scores),
    ]


def _side_by_side(measurements: Sequence[Measurement], scores: Sequence[Scores], common: int) -> Section:
    table = [
        {"model": each.model, "images": len(each.indices)} | {name: of_model.overall[name] for name in SHOWN}
        for each, of_model in zip(measurements, scores, strict=True)
    ]
    facts = {each.model: plain(of_model.overall) for each, of_model in zip(measurements, scores, strict=True)}
    if (together := _averaged(measurements)) is not None:
        table.append({"model": TOGETHER, "images": common} | {name: together[name] for name in SHOWN})
        facts[TOGETHER] = plain(together)
    return Section(
        key="comparison",
        title="Scores",
        text=_notes(measurements),
        tables={"comparison": pd.DataFrame(table)},
        facts=facts,
    )


def _behind_the_best(
    measurements: Sequence[Measurement], hits: Sequence[np.ndarray], rows: Sequence[np.ndarray]
) -> Section:
    """Differences of accuracy; `hits` and `rows` are of the shared images, (M,), whether right and where."""
    best, *others = measurements
    behind = {
        other.model: other.mean_of(hits[0].astype(float) - right, mine)
        for other, right, mine in zip(others, hits[1:], rows[1:], strict=True)
    }
    text = [
        f"Paired over {len(hits[0]):,} images. If the interval of a difference contains 0, chance may explain it; "
        "among many models, one is ahead by chance alone."
    ]
    if len({frozenset(each.classes.in_dataset) for each in measurements}) > 1:
        text.append("The models were evaluated on different classes: some had an easier choice than others.")
    return Section(
        key="differences",
        title=f"Accuracy behind {best.model}",
        text=tuple(text),
        tables={"differences": pd.DataFrame({"model": list(behind), "behind": list(behind.values())})},
        facts={"best": best.model, "images": len(hits[0]), "behind": plain(behind)},
    )


def _by_class(measurements: Sequence[Measurement], scores: Sequence[Scores]) -> Section:
    """Recalls under the dataset's names of classes, since models may spell their own."""
    recalls = [_recalls(*of_model) for of_model in zip(measurements, scores, strict=True)]
    classes = dict.fromkeys(name for recall in recalls for name in recall)
    table = [
        {"model": each.model} | {name: recall.get(name, NOTHING) for name in classes}
        for each, recall in zip(measurements, recalls, strict=True)
    ]
    return Section(key="recalls", title="Recall by class", tables={"recalls": pd.DataFrame(table)})


def _notes(measurements: Sequence[Measurement]) -> tuple[str, ...]:
    """What the models knew of the images, once if it is the same of all."""
    notes = list(dict.fromkeys(each.note for each in measurements))
    return tuple(notes) if len(notes) == 1 else tuple(f"{each.model}: {each.note}" for each in measurements)


def _averaged(measurements: Sequence[Measurement]) -> dict[str, Score] | None:
    """Scores of the ensemble; None if the models have different classes."""
    first, *others = measurements
    if any(set(each.classes.in_dataset) != set(first.classes.in_dataset) for each in others):
        return None
    in_order = [
        each.probabilities[:, [each.classes.in_dataset.index(k) for k in first.classes.in_dataset]]
        for each in measurements
    ]
    return first.scores(np.mean(in_order, axis=0)).overall


def _recalls(measured: Measurement, scores: Scores) -> dict[str, Score]:
    names = [measured.datamodule.class_names[k] for k in measured.classes.in_dataset]
    return {name: of_class["recall"] for name, of_class in zip(names, scores.classes, strict=True)}
