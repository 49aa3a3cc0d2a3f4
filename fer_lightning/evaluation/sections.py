"""What the answers of a model say of it.   Shapes: N images, J classes in common."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from fer_lightning.errors import InputError
from fer_lightning.evaluation.calibration import abstaining, fit_temperature, reliability
from fer_lightning.evaluation.figures import curves_figure, groups_figure, per_class_figure, reliability_figure
from fer_lightning.evaluation.groups import FEW, gaps, scores_by_group
from fer_lightning.evaluation.measurement import Measurement, logits_of
from fer_lightning.evaluation.scores import Score, Scores, plain, scores_with_intervals
from fer_lightning.evaluation.section import Section
from fer_lightning.inference.predictor import softmax
from fer_lightning.plots import (
    confusion_matrix_figure,
    faces_figure,
    learning_curves_figure,
    mistakes_figure,
    samples_figure,
)

MEANINGS = {
    "acc": "accuracy: the most probable class is right",
    "balanced_acc": "balanced accuracy: mean recall of the classes that are there",
    "f1_macro": "F1, mean over classes",
    "f1_weighted": "F1, mean over images' classes",
    "precision_macro": "precision, mean over classes",
    "recall_macro": "recall (sensitivity), mean over classes",
    "kappa": "Cohen's kappa: agreement beyond chance",
    "top2_acc": "the right class is among the two most probable",
    "auroc_macro": "area under the ROC curve, one against the rest, mean over classes",
    "auprc_macro": "average precision, one against the rest, mean over classes",
    "log_loss": "cross-entropy of the probabilities; lower is better",
    "brier": "Brier score, summed over classes (0 to 2); lower is better",
    "ece": "expected calibration error, 15 bins; lower is better",
}
CLASS_SCORES = ("precision", "recall", "specificity", "f1", "auroc", "auprc")
SHEET = 32  # faces on a contact sheet


def scores_section(measured: Measurement, *, resamples: int, seed: int) -> tuple[Section, Scores]:
    """Every score of all images, and of recordings where the dataset has several frames of each."""
    people = measured.people
    scores = scores_with_intervals(
        measured.probabilities, measured.targets, units=people, resamples=resamples, seed=seed
    )
    columns, text = {"image": scores.overall}, [_what_is_drawn(measured, resamples)]
    if (sequences := _by_sequence(measured)) is not None:
        probabilities, targets, of_whom = sequences
        columns["sequence"] = scores_with_intervals(
            probabilities, targets, units=of_whom, resamples=resamples, seed=seed
        ).overall
        text.append(f"By sequence: the frames' probabilities are averaged, {len(targets):,} recordings.")
    if measured.datamodule.split.leaks:
        text.append(
            "This protocol puts near-copies and the same people into train and test: the figures only compare with "
            "papers that split so, and say little of new faces."
        )
    facts = {"images": len(measured.targets)} | {f"by_{name}": plain(of) for name, of in columns.items()}
    if len(measured.classes.ours) < len(measured.backend.card.class_names):
        every = float((measured.logits.argmax(axis=1) == np.array(measured.classes.ours)[measured.targets]).mean())
        text.append(f"With all the model's classes to choose from, {every:.1%} are right.")
        facts["acc_all_classes"] = every
    section = Section(
        key="scores",
        title="Scores",
        text=tuple(text),
        tables={"scores": _scores_table(columns)},
        facts=facts,
    )
    return section, scores


def classes_section(measured: Measurement, scores: Scores) -> Section:
    """Each class's scores, which is taken for which, and the curves."""
    names, targets = measured.classes.names, measured.targets
    support = np.bincount(targets, minlength=len(names))
    rows = [
        {"class": name, "images": int(count)} | {score: of_class[score] for score in CLASS_SCORES}
        for name, count, of_class in zip(names, support, scores.classes, strict=True)
    ]
    text = []
    if missing := [name for name, count in zip(names, support, strict=True) if not count]:
        text.append(f"There is no image of {', '.join(missing)} here, so some of the scores have no number.")
    return Section(
        key="classes",
        title="By class",
        text=(
            *text,
            "With 95 % intervals, which are too narrow where a class has few images; auroc and auprc are of the class "
            "against the rest.",
        ),
        tables={"classes": pd.DataFrame(rows)},
        figures={
            "classes": per_class_figure(scores.classes, names, "Precision, recall and F1, 95 % intervals"),
            "confusion_matrix": confusion_matrix_figure(
                measured.findings.confusion, names, "Rows true: share of the row, number of images"
            ),
            "curves": curves_figure(measured.probabilities, targets, names, "One class against the rest"),
        },
        facts={
            name: {"support": int(count)} | plain(of_class)
            for name, count, of_class in zip(names, support, scores.classes, strict=True)
        },
    )


def faces_section(measured: Measurement) -> Section:
    """Faces to look at: some of each class, the worst mistakes, the least certain, and labels to doubt."""
    names, findings, images = measured.classes.names, measured.findings, measured.images
    sure = measured.probabilities.max(axis=1)
    least = np.argsort(sure, kind="stable")[:SHEET]
    doubted = suspicious_labels(measured.probabilities, measured.targets)
    table = pd.DataFrame(
        {
            "image": measured.names[doubted],
            "label": np.array(names)[measured.targets[doubted]],
            "p_label": measured.probabilities[doubted, measured.targets[doubted]],
            "model_says": np.array(names)[measured.predictions[doubted]],
            "p_model": sure[doubted],
        }
    )
    return Section(
        key="faces",
        title="Faces",
        text=(
            f"Labels that are contradicted with confidence (Northcutt et al., 2021): {len(doubted):,}, "
            f"{len(doubted) / len(findings.targets):.1%} of all. Each is either a mistake of the model's or a label to "
            "look at again.",
        ),
        figures={
            "samples": samples_figure(images, findings, names, "Some of each class"),
            "worst_mistakes": mistakes_figure(images, findings, names, "Wrong with the highest confidence"),
            "least_certain": faces_figure(
                images[least], [_two_best(measured, i) for i in least], "The least certain, with the two best classes"
            ),
            "suspicious_labels": faces_figure(
                images[doubted[:SHEET]],
                [
                    f"{row.label} {row.p_label:.0%}\n{row.model_says} {row.p_model:.0%}"
                    for row in table[:SHEET].itertuples()
                ],
                "Labels most contradicted: the label above, the model's answer below",
            ),
        },
        tables={"suspicious_labels": table},
        facts={"suspicious_labels": len(doubted)},
    )


def calibration_section(measured: Measurement) -> tuple[Section, float | None]:
    """Confidence against accuracy, the temperature that `val` asks for, and what abstaining would bring.

    The temperature is None where the images that chose this model's epoch are not at hand.
    """
    temperature, why = _fitted_temperature(measured)
    common = measured.logits[:, measured.classes.ours]
    named = {"as trained": 1.0, "in the file": measured.backend.card.temperature, "fitted on val": temperature}
    if named["in the file"] == 1.0:
        del named["in the file"]
    of = {
        f"{name}, T = {value:.2f}": softmax(common / np.float32(value))
        for name, value in named.items()
        if value is not None
    }
    rows = []
    for name, probabilities in of.items():
        scores = scores_with_intervals(probabilities, measured.targets, resamples=0).overall
        rows.append({"probabilities": name} | {key: scores[key].value for key in ("log_loss", "brier", "ece")})
    tables = {name: reliability(probabilities, measured.targets) for name, probabilities in of.items()}
    last, best = list(of.items())[-1]
    section = Section(
        key="calibration",
        title="Calibration",
        text=(why, f"The second table: what answering only from a confidence on would bring ({last})."),
        tables={"calibration": pd.DataFrame(rows), "abstaining": abstaining(best, measured.targets)},
        figures={"reliability": reliability_figure(tables, "Confidence and accuracy")},
        facts={"temperature": temperature, "rows": rows},
    )
    return section, temperature


def twins_section(measured: Measurement, audit: str | None, *, resamples: int, seed: int) -> Section | None:
    """The scores without images that stand in train too; None where there are none and no audit is at hand."""
    kinds = {"no exact twin in train": measured.datamodule.has_twin_in_train(measured.indices)}
    if audit is not None:
        kinds |= {
            f"no {kind} twin in train, by the audit": np.isin(measured.names, names)
            for kind, names in read_audit(audit, measured).items()
        }
    if not any(twins.any() for twins in kinds.values()):
        return None
    rows, facts = [], {}
    for name, twins in ({"all": np.zeros(len(measured.indices), bool)} | kinds).items():
        scores = scores_with_intervals(
            measured.probabilities[~twins], measured.targets[~twins], resamples=resamples, seed=seed
        ).overall
        rows.append(
            {"images with": name, "images": int((~twins).sum())} | {name: scores[name] for name in ("acc", "f1_macro")}
        )
        facts[name] = {"images": int((~twins).sum())} | plain(scores)
    hint = (
        ()
        if audit is not None
        else ("Near twins are found by python -m fer_lightning.audit; name its folder as audit=.",)
    )
    return Section(
        key="twins",
        title="Without images that were trained on",
        text=("Some images stand in train as well, pixel for pixel or nearly.", *hint),
        tables={"without_twins": pd.DataFrame(rows)},
        facts=facts,
    )


def groups_sections(measured: Measurement, *, resamples: int, seed: int) -> list[Section]:
    """One for each column of the user's file of groups."""
    table = measured.datamodule.groups_of(measured.indices)
    sections = []
    for column in () if table is None else table.columns:
        rows = scores_by_group(
            measured.probabilities, measured.targets, table[column].astype(str), resamples=resamples, seed=seed
        )
        between = gaps(rows)
        said = ", ".join(f"{name} {gap:.3f}" for name, gap in between.items())
        sections.append(
            Section(
                key=f"groups_{column}",
                title=f"By {column}",
                text=(
                    (
                        f"Largest gaps between groups of at least {FEW} images: {said}."
                        if between
                        else f"Fewer than two groups have {FEW} images: no gap is told."
                    ),
                    "A gap within the intervals may be chance; none says why it is there.",
                ),
                tables={f"groups_{column}": rows},
                figures={f"groups_{column}": groups_figure(rows, column)},
                facts={"gaps": between, "groups": _by_group(rows)},
            )
        )
    return sections


def learning_section(run: Path | None) -> Section | None:
    """The curves of the run that the model comes from, where its table is at hand."""
    if run is None or not (run / "metrics.csv").is_file():
        return None
    epochs = pd.read_csv(run / "metrics.csv")
    return Section(
        key="learning",
        title="How it was trained",
        text=(f"Epochs: {len(epochs)}, in {epochs['seconds'].sum() / 60:.1f} minutes.",),
        figures={"learning_curves": learning_curves_figure(epochs, "Learning curves")},
        facts={"epochs": len(epochs), "seconds": float(epochs["seconds"].sum())},
    )


def suspicious_labels(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Positions of images whose label is contradicted with confidence, the most so first (Northcutt et al., 2021).

    A class counts as claimed where its probability is at least its mean over the images that carry it as label.
    """
    count = probabilities.shape[1]
    usual = np.array([probabilities[targets == k, k].mean() if (targets == k).any() else np.inf for k in range(count)])
    claimed = np.where(probabilities >= usual, probabilities, 0)
    rows, winner = np.arange(len(targets)), claimed.argmax(axis=1)
    doubted = np.flatnonzero((claimed.max(axis=1) > 0) & (winner != targets))
    margin = probabilities[rows, winner] - probabilities[rows, targets]
    return doubted[np.argsort(-margin[doubted], kind="stable")]


def read_audit(audit: str, measured: Measurement) -> dict[str, pd.Series]:
    """Names of the images that the audit found in train, exactly and nearly."""
    path = Path(audit) / "flagged.csv"
    if not path.is_file():
        raise InputError(
            f"there is no {path}: make it with python -m fer_lightning.audit, and give its folder as audit="
        )
    flagged, index = pd.read_csv(path), measured.datamodule.index
    if not set(flagged.loc[flagged.split == measured.stage, "image"]) <= set(index.names):
        raise InputError(f"{path} speaks of other images than {index.dataset} has here: audit it again")
    return {kind: flagged.loc[flagged[f"{kind}_in_train"], "image"] for kind in ("exact", "near")}


def _what_is_drawn(measured: Measurement, resamples: int) -> str:
    if not resamples:
        return "No intervals: evaluate.resamples=0."
    drawn = "people, each with all images," if measured.people is not None else "images"
    return f"95 % intervals: percentiles of {resamples:,} bootstrap resamples, which draw {drawn} with replacement."


def _by_sequence(measured: Measurement) -> tuple[np.ndarray, np.ndarray, np.ndarray | None] | None:
    """Mean probabilities (M, J), targets (M,) and people (M,) of recordings; None where no one has two frames."""
    sequences = measured.datamodule.index.sequences
    if sequences is None:
        return None
    _, first, of = np.unique(np.asarray(sequences)[measured.indices], return_index=True, return_inverse=True)
    if len(first) == len(of):
        return None
    sums = np.zeros((len(first), measured.probabilities.shape[1]))
    np.add.at(sums, of, measured.probabilities)
    people = measured.people
    return sums / np.bincount(of)[:, None], measured.targets[first], None if people is None else people[first]


def _scores_table(columns: Mapping[str, Mapping[str, Score]]) -> pd.DataFrame:
    rows = [
        {"score": name, **{f"by {what}": scores[name] for what, scores in columns.items()}, "meaning": meaning}
        for name, meaning in MEANINGS.items()
    ]
    return pd.DataFrame(rows)


def _by_group(rows: pd.DataFrame) -> dict[str, dict[str, object]]:
    return {
        row["group"]: {name: value.plain() if isinstance(value, Score) else value for name, value in row.items()}
        for row in rows.to_dict("records")
    }


def _two_best(measured: Measurement, i: int) -> str:
    first, second = np.argsort(-measured.probabilities[i])[:2]
    names, row = measured.classes.names, measured.probabilities[i]
    return f"{names[first]} {row[first]:.0%}\n{names[second]} {row[second]:.0%}"


def _fitted_temperature(measured: Measurement) -> tuple[float | None, str]:
    """On the split that chose the epoch, and where that is not at hand, why there is none."""
    datamodule, training = measured.datamodule, measured.backend.card.training
    ours = datamodule.fingerprint()["splits"]["val"]
    if not ours["count"]:
        return (
            None,
            "No temperature is fitted: this protocol has no val split, and test images are not to be used for it.",
        )
    if training.get("splits", {}).get("val") != ours["sha256"]:
        return None, "No temperature is fitted: the model was chosen on other images than this val split."
    if measured.stage == "val" and not measured.left_out:
        logits, targets = measured.logits, measured.targets
        note = "The temperature is fitted on these same images, one number on all of them."
    else:
        val = datamodule.split.val[np.isin(datamodule.index.targets[datamodule.split.val], measured.classes.theirs)]
        logits = logits_of(measured.backend, datamodule, val, description="Calibrating")
        targets = measured.classes.target_of(datamodule.index.targets[val])
        note = "The temperature is fitted on val, and the table is of the split that is reported."
    return fit_temperature(logits[:, measured.classes.ours], targets), note
