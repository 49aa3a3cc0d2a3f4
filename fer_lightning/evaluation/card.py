"""A model card as Markdown (Mitchell et al., 2019), filled from the model file and its measurement."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fer_lightning.checkpoint import trainings
from fer_lightning.evaluation.corruptions import STRENGTHS
from fer_lightning.evaluation.measurement import Measurement
from fer_lightning.evaluation.scores import Scores
from fer_lightning.evaluation.section import Section
from fer_lightning.text.markdown import markdown_table

# What a dataset's pictures are, and what they are not.
PICTURES = {
    "fer2013": "FER2013: grey pictures of 48 x 48 pixels, found by an image search for words of emotion and then "
    "sorted by people: a quarter happy, 1.5% disgust, some of no face at all, more than a thousand of them more than "
    "once. The labels are doubtful: people agree with about two thirds of them (Goodfellow et al., 2013). Who is on "
    "them is not recorded, and one person may be in several splits.",
    "ckplus": "CK+: expressions that were asked for, not felt: the last three frames of 327 recordings of 118 adults "
    "up to the age of 50 before one camera, most of them women and Euro-American (Lucey et al., 2010). Everyday "
    "light, angles and expressions are not among them.",
    "affectnet": "AffectNet: pictures found by image searches for words of emotion in six languages. Most have one "
    "annotator; where there were two, they agreed on three in five (Mollahosseini et al., 2017). Who is on them is "
    "not recorded.",
    "synthetic": "Faces drawn by this package: a model of them knows nothing of real ones.",
}
LICENCES = {
    "fer2013": "FER2013 was published for a competition, for research; the rights in its pictures are with their "
    "owners.",
    "ckplus": "CK+ is for non-commercial research under an agreement with its authors.",
    "affectnet": "AffectNet is for non-commercial research under an agreement with its authors.",
    "imagenet": "ImageNet's pictures are for non-commercial research.",
    "synthetic": "The synthetic faces are free to use.",
}
SHOWN = ("acc", "balanced_acc", "f1_macro", "top2_acc", "auroc_macro", "log_loss", "ece")
MISTAKES = 10  # the number of wrong answers to list

USE = """
## Intended use

Research on facial expressions, teaching, and tools whose users know that they are being looked at and can object.

## Uses to avoid

* An expression is not a feeling: a smile may be politeness. What a face shows says little of what a person feels,
  thinks or will do, and less across cultures, ages and illnesses.
* Decisions about people: hiring, grading, policing, insurance, care. Inferring emotions at work and in schools, and by
  authorities, is restricted or forbidden in places, in the European Union among them.
* Use on people who have not agreed to it.

## Limits

* Posed or searched-for pictures are not everyday faces; labels are what annotators saw, and they disagree.
* Nothing is known of groups (age, skin, sex, glasses) unless it is measured above, with `groups=file.csv`.
"""


def model_card(measured: Measurement, scores: Scores, sections: Sequence[Section]) -> str:
    """The card, which contains only what was measured."""
    parts = {section.key: section for section in sections}
    cost = parts["cost"].facts
    training = measured.backend.card.training
    return "\n".join(
        [
            f"# Model card: {measured.model}",
            *("", "## The model", "", *_the_model(measured, cost)),
            *("", "## What it was trained on", "", f"* {training_in_words(training)}"),
            *(f"* {sentences}" for sentences in _of_the_data(training)),
            *("", f"## How well it does: {measured.title}", "", *_results(measured, scores, parts.get("twins"))),
            *("", "## How it fails", "", *_failures(measured, scores, parts)),
            USE,
        ]
    )


def _of_the_data(training: Mapping[str, Any]) -> list[str]:
    sentences = []
    for name in dict.fromkeys(each.get("dataset") for each in trainings(training)):
        sentences += [PICTURES[name]] if name in PICTURES else []
        sentences.append(LICENCES.get(name, f"The licence of {name or 'its training images'} was not recorded."))
    return sentences


def _the_model(measured: Measurement, cost: Mapping[str, Any]) -> list[str]:
    card, preprocess = measured.backend.card, measured.backend.card.preprocess
    side = preprocess.size
    color = "grey" if preprocess.channels == 1 else "colour"
    size = [f"{cost['bytes'] / 1e6:.1f} MB", f"{cost['parameters']:,} parameters"]
    size += [f"{cost['multiply_adds'] / 1e6:,.1f} M multiply-adds per face"] if cost.get("multiply_adds") else []
    return [
        f"* {card.training.get('network', 'A network')}, a classifier of {color} face crops of {side} x {side} pixels: "
        f"{', '.join(card.class_names)}.",
        f"* {', '.join(size)}.",
        *(f"* {_latency(row, cost['runtime'])}" for row in cost.get("latency", ()) if row["batch"] == 1),
        f"* Temperature {measured.temperature:.3g}; crop margin {card.crop_margin:g}.",
    ]


def _latency(row: Mapping[str, Any], runtime: str) -> str:
    threads = f", threads: {row['threads']}" if row["threads"] else ""
    return f"One face, prepared, takes {row['p50_ms']:.1f} ms (median; {runtime}, {row['hardware']}{threads})."


def _results(measured: Measurement, scores: Scores, twins: Section | None) -> list[str]:
    split, dataset = measured.datamodule.split, measured.datamodule.index.dataset
    leaks = " (near-copies of training images may be among them)" if measured.provenance.own and split.leaks else ""
    support = np.bincount(measured.targets, minlength=len(measured.classes.names))
    of_classes = zip(measured.classes.names, support, scores.classes, strict=True)
    foreign = LICENCES.get(dataset, "") if dataset != measured.backend.card.training.get("dataset") else ""
    return [
        f"{len(measured.targets):,} images of {', '.join(measured.classes.names)}, protocol {split.protocol}"
        f"{leaks}. {measured.note} {foreign}",
        "",
        *markdown_table(("score", "value [95 % interval]"), ((name, str(scores.overall[name])) for name in SHOWN)),
        "",
        *markdown_table(
            ("class", "images", "precision", "recall", "F1"),
            (
                (name, f"{count:,}", *(str(of_class[score]) for score in ("precision", "recall", "f1")))
                for name, count, of_class in of_classes
            ),
        ),
        *(_without_twins(twins) if twins else ()),
    ]


def _without_twins(twins: Section) -> list[str]:
    table = twins.tables["without_twins"]
    return ["", twins.title + ":", "", *markdown_table(table.columns, table.astype(str).itertuples(index=False))]


def training_in_words(training: Mapping[str, Any]) -> str:
    """Dataset, protocol and recipe as recorded in a model file, then those of the networks that it was made from."""
    words = f"{_recipe(training)}."
    direct = [training]
    if "initial_weights" in training:
        direct.append(training["initial_weights"])
        words += f" It began with weights of {_recipe(direct[-1])}."
    if teachers := training.get("teachers", ()):
        direct += teachers
        networks = "a network" if len(teachers) == 1 else f"{len(teachers)} networks"
        words += f" It learned from the answers of {networks} of {'; '.join(map(_recipe, teachers))}."
    told = list(map(_recipe, direct))
    if earlier := [recipe for recipe in dict.fromkeys(map(_recipe, trainings(training))) if recipe not in told]:
        words += f" These were made from networks of {'; '.join(earlier)}."
    return words


def _recipe(training: Mapping[str, Any]) -> str:
    if not training:
        return "data that the model file does not name"
    texts = {
        "dataset": "{}",
        "protocol": "protocol {}",
        "seed": "seed {}",
        "max_epochs": "at most {} epochs",
        "batch_size": "batches of {}",
    }
    parts = [text.format(training[name]) for name, text in texts.items() if training.get(name) is not None]
    named = [training[name] for name in ("optimizer", "loss") if isinstance(training.get(name), Mapping)]
    parts += [str(node["name"]).rpartition(".")[2] for node in named if "name" in node]
    return ", ".join(parts)


def _failures(measured: Measurement, scores: Scores, parts: Mapping[str, Section]) -> list[str]:
    names, confusion = measured.classes.names, measured.findings.confusion
    recalls = [of_class["recall"].value for of_class in scores.classes]
    worst = min((k for k in range(len(names)) if recalls[k] == recalls[k]), key=recalls.__getitem__)
    lines = [f"* Weakest: {names[worst]}, of which {recalls[worst]:.1%} are found."]
    wrong = confusion.copy()
    wrong[range(len(names)), range(len(names))] = 0
    if wrong.any():
        i, j = divmod(int(wrong.argmax()), len(names))
        lines.append(
            f"* Most frequent confusion: {names[i]} taken for {names[j]}, {wrong[i, j]:,} times "
            f"({wrong[i, j] / confusion[i].sum():.1%} of {names[i]})."
        )
    gaps = {key.removeprefix("groups_"): of.facts["gaps"] for key, of in parts.items() if key.startswith("groups_")}
    lines += [f"* Gap of accuracy by {name}: {of['acc']:.3f}." for name, of in gaps.items() if of]
    return lines + _damage(parts.get("robustness")) + _mistakes(parts["faces"].data["mistakes"])


def _damage(robustness: Section | None) -> list[str]:
    if robustness is None:
        return []
    rows = robustness.tables["robustness"].itertuples(index=False)
    return [
        "",
        f"Accuracy under damage, from mild (1) to severe (5), on {robustness.facts['images']:,} images; without damage "
        f"it is {robustness.facts['undamaged']:.1%}:",
        "",
        *markdown_table(
            ("damage", *map(str, STRENGTHS)), ((kind, *(f"{acc:.1%}" for acc in accs)) for kind, *accs in rows)
        ),
    ]


def _mistakes(mistakes: pd.DataFrame) -> list[str]:
    if mistakes.empty:
        return []
    return [
        "",
        "Wrong with the highest confidence:",
        "",
        *markdown_table(
            ("image", "label", "answer", "confidence"),
            (
                (row.image, row.label, row.model_says, f"{row.p_model:.1%}")
                for row in mistakes[:MISTAKES].itertuples(index=False)
            ),
        ),
    ]
