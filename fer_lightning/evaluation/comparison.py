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
    best, *others = order
    behind = {
        measurements[i].model: measurements[i].mean_of(hits[best].astype(float) - hits[i], rows[i]) for i in others
    }
    text = [
        f"Paired over {len(common):,} images. If the interval of a difference contains 0, chance may explain it; among "
        "many models, one is ahead by chance alone.",
        *(
            ["The models were evaluated on different classes: some had an easier choice than others."]
            if len({frozenset(each.classes.theirs) for each in measurements}) > 1
            else []
        ),
    ]
    overall = [
        {"model": measurements[i].model, "images": len(measurements[i].indices)}
        | {name: scores[i].overall[name] for name in SHOWN}
        for i in order
    ]
    if (together := _averaged(measurements)) is not None:
        overall.append({"model": TOGETHER, "images": len(common)} | {name: together[name] for name in SHOWN})
    # By the dataset's names: models may spell their own.
    recalls = [_recalls(measurements[i], scores[i]) for i in order]
    classes = list(dict.fromkeys(name for recall in recalls for name in recall))
    by_class = [
        {"model": measurements[i].model} | {name: recall.get(name, NOTHING) for name in classes}
        for i, recall in zip(order, recalls, strict=True)
    ]
    return [
        Section(
            key="comparison",
            title="Scores",
            text=_notes(measurements),
            tables={"comparison": pd.DataFrame(overall)},
            facts={each.model: plain(of_model.overall) for each, of_model in zip(measurements, scores, strict=True)}
            | ({TOGETHER: plain(together)} if together is not None else {}),
        ),
        Section(
            key="differences",
            title=f"Accuracy behind {measurements[best].model}",
            text=tuple(text),
            tables={"differences": pd.DataFrame({"model": list(behind), "behind": list(behind.values())})},
            facts={"best": measurements[best].model, "images": len(common), "behind": plain(behind)},
        ),
        Section(key="recalls", title="Recall by class", tables={"recalls": pd.DataFrame(by_class)}),
    ]


def _notes(measurements: Sequence[Measurement]) -> tuple[str, ...]:
    """What the models knew of the images, once if it is the same of all."""
    notes = list(dict.fromkeys(each.note for each in measurements))
    return tuple(notes) if len(notes) == 1 else tuple(f"{each.model}: {each.note}" for each in measurements)


def _averaged(measurements: Sequence[Measurement]) -> dict[str, Score] | None:
    """Scores of the ensemble; None if the models have different classes."""
    first, *others = measurements
    if any(set(each.classes.theirs) != set(first.classes.theirs) for each in others):
        return None
    in_order = [
        each.probabilities[:, [each.classes.theirs.index(k) for k in first.classes.theirs]] for each in measurements
    ]
    return first.scores(np.mean(in_order, axis=0)).overall


def _recalls(measured: Measurement, scores: Scores) -> dict[str, Score]:
    names = [measured.datamodule.class_names[k] for k in measured.classes.theirs]
    return {name: of_class["recall"] for name, of_class in zip(names, scores.classes, strict=True)}
