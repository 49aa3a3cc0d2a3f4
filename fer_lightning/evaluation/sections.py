"""Report sections computed from a model's answers.   Shapes: N images, J shared classes."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from fer_lightning.evaluation.calibration import abstaining, fit_temperature, reliability
from fer_lightning.evaluation.figures import (
    curves,
    curves_figure,
    fewest_in_a_bin,
    per_class_figure,
    reliability_figure,
)
from fer_lightning.evaluation.label_noise import suspicious_labels
from fer_lightning.evaluation.measurement import Measurement, logits_of
from fer_lightning.evaluation.scores import LEAST_UNITS, OVERALL, Score, Scores, plain
from fer_lightning.evaluation.section import Section
from fer_lightning.metrics import worst_mistakes
from fer_lightning.plots import (
    confusion_matrix_figure,
    faces_figure,
    learning_curves_figure,
    mistakes_figure,
    samples_figure,
)

SHEET = 32  # faces on a contact sheet


def scores_section(measured: Measurement) -> tuple[Section, Scores]:
    """Every score over all images, and over recordings if the dataset has several frames of each."""
    scores = measured.scores()
    columns, text = {"image": scores.overall}, [_what_is_drawn(measured)]
    if (sequences := _by_sequence(measured)) is not None:
        columns["sequence"] = sequences
        text.append("By sequence: the probabilities of a recording's frames are averaged.")
    if measured.provenance.own and measured.datamodule.split.leaks:
        text.append(
            "This protocol ignores who is seen: people with several images, and near-copies, are in both train and "
            "test. Compare the figures only with papers that split in the same way; they say little about new faces."
        )
    facts = {"images": len(measured.targets)} | {f"by_{name}": plain(scores) for name, scores in columns.items()}
    if len(measured.classes.in_model) < len(measured.backend.card.class_names):
        every = float((measured.logits.argmax(axis=1) == np.array(measured.classes.in_model)[measured.targets]).mean())
        text.append(f"With all the model's classes to choose from, {every:.1%} are right.")
        facts["acc_all_classes"] = every
    rows = [
        {"score": name, **{f"by {what}": of[name] for what, of in columns.items()}, "meaning": meaning}
        for name, meaning in OVERALL.items()
    ]
    section = Section(
        key="scores", title="Scores", text=tuple(text), tables={"scores": pd.DataFrame(rows)}, facts=facts
    )
    return section, scores


def classes_section(measured: Measurement, scores: Scores) -> Section:
    """Each class's scores, the confusion matrix, and the curves."""
    names, targets = measured.classes.names, measured.targets
    support = np.bincount(targets, minlength=len(names))
    rows = [
        {"class": name, "images": int(count)} | of_class
        for name, count, of_class in zip(names, support, scores.classes, strict=True)
    ]
    points, text = curves(measured.probabilities, targets, names), []
    if missing := [name for name, count in zip(names, support, strict=True) if not count]:
        text.append(f"There is no image of {', '.join(missing)} here, so some of the scores have no number.")
    return Section(
        key="classes",
        title="By class",
        text=(
            *text,
            ("With 95 % intervals, which are too narrow for classes with few images. " if measured.resamples else "")
            + "auroc and auprc are for the class against the rest.",
        ),
        tables={"classes": pd.DataFrame(rows)},
        figures={
            "classes": per_class_figure(scores.classes, names, "Precision, recall and F1, 95 % intervals"),
            "confusion_matrix": confusion_matrix_figure(
                measured.findings.confusion, names, "Rows true: share of the row, number of images"
            ),
            "curves": curves_figure(points, "One class against the rest"),
        },
        data={"roc_and_precision_recall": points},
        facts={
            "confusion": {"rows_true": list(names), "counts": measured.findings.confusion},
            "of": {
                name: {"support": int(count)} | plain(of_class)
                for name, count, of_class in zip(names, support, scores.classes, strict=True)
            },
        },
    )


def faces_section(measured: Measurement) -> Section:
    """Faces to look at: some of each class, the worst mistakes, the least certain, and suspected label errors."""
    names, findings, faces = np.array(measured.classes.names), measured.findings, measured.faces
    sure = measured.probabilities.max(axis=1)
    least = np.argsort(sure, kind="stable")[:SHEET]
    mistakes = worst_mistakes(findings)
    doubted = suspicious_labels(measured.probabilities, measured.targets)
    table = _label_and_answer(measured, doubted)
    figures = {"samples": samples_figure(faces, findings, names, "Some of each class")}
    if len(mistakes):
        figures["worst_mistakes"] = mistakes_figure(faces, findings, names, "Wrong with the highest confidence")
    captions = [_two_best(measured, i) for i in least]
    figures["least_certain"] = faces_figure(faces[least], captions, "The least certain, with the two best classes")
    if len(doubted):
        shown = table[:SHEET].itertuples()
        captions = [f"{row.label} {row.p_label:.0%}\n{row.model_says} {row.p_model:.0%}" for row in shown]
        title = "Labels most contradicted: the label, the model's answer"
        figures["suspicious_labels"] = faces_figure(faces[doubted[:SHEET]], captions, title)
    return Section(
        key="faces",
        title="Faces",
        text=(
            f"Mistakes: {len(mistakes):,}. Labels that the model contradicts confidently (Northcutt et al., 2021): "
            f"{len(doubted):,}, {len(doubted) / len(findings.targets):.1%} of all. Each is either a mistake of the "
            "model or a label to check again.",
        ),
        figures=figures,
        tables={"suspicious_labels": table} if len(doubted) else {},
        data={"mistakes": _label_and_answer(measured, mistakes)},
        facts={"mistakes": len(mistakes), "suspicious_labels": len(doubted)},
    )


def fitted_temperature(measured: Measurement) -> tuple[float | None, str]:
    """The temperature fitted on `val`, if that split chose this model's epoch; and a sentence about it."""
    datamodule, chosen = measured.datamodule, measured.backend.card.training.get("splits", {}).get("val")
    val = datamodule.fingerprint["splits"]["val"]
    if not val["count"]:
        return None, "No temperature is fitted: this protocol has no val split, and test must not be used for it."
    if chosen != val["sha256"]:
        return None, "No temperature is fitted: the model was chosen on other images than this val split."
    if measured.stage == "val":
        logits, targets = measured.logits, measured.targets
        note = "The temperature, a single number, is fitted on these same images."
    else:
        logits = logits_of(measured.backend, datamodule, datamodule.split.val, description="Calibrating")
        targets = datamodule.index.targets[datamodule.split.val]
        note = "The temperature is fitted on val, and the table is for the reported split."
    temperature = fit_temperature(logits, targets)
    if temperature is None:
        return None, "No temperature is fitted: val gives none, as all answers are right or no better than chance."
    return temperature, note


def calibration_section(measured: Measurement, fitted: float | None, note: str) -> Section:
    """Confidence against accuracy at several temperatures, and the effect of a confidence threshold."""
    temperatures = {"as trained": 1.0, "in the file": measured.temperature, "fitted on val": fitted}
    if measured.temperature == 1 or math.isclose(measured.temperature, fitted or 0, rel_tol=1e-3):
        del temperatures["in the file"]
    at_temperature = {
        f"{name}, T = {value:.2f}": replace(measured, temperature=value)
        for name, value in temperatures.items()
        if value is not None
    }
    rows = []
    for name, at in at_temperature.items():
        scores = replace(at, resamples=0).scores().overall
        rows.append({"probabilities": name} | {key: scores[key].value for key in ("log_loss", "brier", "ece")})
    bins = {name: reliability(at.probabilities, at.targets) for name, at in at_temperature.items()}
    answers = abstaining(measured.probabilities, measured.targets)
    fewest = fewest_in_a_bin(len(measured.targets))
    return Section(
        key="calibration",
        title="Calibration",
        text=(
            note,
            "The second table shows the effect of answering only above a confidence threshold, with the model's "
            f"current probabilities. Bins of fewer than {fewest} images are left out of the picture only.",
        ),
        tables={"calibration": pd.DataFrame(rows), "abstaining": answers},
        data={"reliability": pd.concat(bins, names=["probabilities"]).reset_index(level=0)},
        figures={"reliability": reliability_figure(bins, "Confidence and accuracy", fewest=fewest)},
        facts={
            "temperature": measured.temperature,
            "fitted_temperature": fitted,
            "rows": rows,
            "abstaining": answers.replace({np.nan: None}).to_dict("records"),
            "bins": {name: table.to_dict("records") for name, table in bins.items()},
        },
    )


def learning_section(run: Path) -> Section | None:
    """The learning curves of the model's run, if its metrics.csv is available."""
    if not (run / "metrics.csv").is_file():
        return None
    epochs = pd.read_csv(run / "metrics.csv")
    if not {"epoch", "seconds"} <= set(epochs.columns):
        return None  # of another program
    return Section(
        key="learning",
        title="How it was trained",
        text=(f"Epochs: {len(epochs)}, in {epochs['seconds'].sum() / 60:.1f} minutes.",),
        data={"epochs": epochs},
        figures={"learning_curves": learning_curves_figure(epochs, "Learning curves")},
        facts={"epochs": len(epochs), "seconds": float(epochs["seconds"].sum())},
    )


def _what_is_drawn(measured: Measurement) -> str:
    if not measured.resamples:
        return "No intervals: evaluate.resamples=0."
    drawn = "people, each with all their images" if measured.people is not None else "images"
    return (
        f"95 % intervals: percentiles of {measured.resamples:,} bootstrap resamples, drawn from the {drawn}. Fewer "
        f"than {LEAST_UNITS} of these have no interval, nor has a score that all resamples leave as it is."
    )


def _by_sequence(measured: Measurement) -> dict[str, Score] | None:
    """Scores of recordings, with averaged probabilities of their frames; None if no recording has two frames."""
    sequences = measured.datamodule.index.sequences
    if sequences is None:
        return None
    _, first, sequence_of = np.unique(np.asarray(sequences)[measured.indices], return_index=True, return_inverse=True)
    if len(first) == len(sequence_of):
        return None
    sums = np.zeros((len(first), measured.probabilities.shape[1]))
    np.add.at(sums, sequence_of, measured.probabilities)
    means = np.zeros_like(measured.probabilities)
    means[first] = sums / np.bincount(sequence_of)[:, None]
    return measured.scores(means, first).overall


def _label_and_answer(measured: Measurement, chosen: np.ndarray) -> pd.DataFrame:
    """The label and the model's answer of the images at the positions `chosen`, with their probabilities."""
    names, targets, answers = np.array(measured.classes.names), measured.targets[chosen], measured.predictions[chosen]
    return pd.DataFrame(
        {
            "image": measured.names[chosen],
            "label": names[targets],
            "p_label": measured.probabilities[chosen, targets],
            "model_says": names[answers],
            "p_model": measured.probabilities[chosen, answers],
        }
    )


def _two_best(measured: Measurement, i: int) -> str:
    first, second = np.argsort(-measured.probabilities[i])[:2]
    names, row = measured.classes.names, measured.probabilities[i]
    return f"{names[first]} {row[first]:.0%}\n{names[second]} {row[second]:.0%}"
