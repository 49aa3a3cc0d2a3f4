"""What a model says when it is asked again: other views, damaged images, reasons, and the time it takes."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
from rich.progress import track

from fer_lightning.evaluation.attribution import occlusion_maps, why_not
from fer_lightning.evaluation.averaging import VIEWS
from fer_lightning.evaluation.corruptions import CORRUPTIONS, STRENGTHS
from fer_lightning.evaluation.cost import latencies, size_of
from fer_lightning.evaluation.figures import attribution_figure, robustness_figure
from fer_lightning.evaluation.measurement import Measurement, logits_of
from fer_lightning.evaluation.scores import drawn, plain, scores_with_intervals
from fer_lightning.evaluation.section import Section

SHOWN = ("acc", "f1_macro", "log_loss", "ece")


def averaging_section(measured: Measurement, averaging: str, *, resamples: int, seed: int) -> Section | None:
    """Averaged views beside the single one, with what they cost; None where none are asked for."""
    if averaging == "none":
        return None
    views, start = VIEWS[averaging], time.perf_counter()
    of_views = [measured.probabilities] + [
        measured.probabilities_of(
            logits_of(measured.backend, measured.datamodule, measured.indices, change=view, description="Averaging")
        )
        for view in views[1:]
    ]
    rate = len(measured.targets) * (len(views) - 1) / len(views) / (time.perf_counter() - start)
    rows, facts = [], {}
    for name, seen in (("single view", of_views[:1]), (f"{averaging}: mean of the probabilities", of_views)):
        scores = scores_with_intervals(
            np.mean(seen, axis=0), measured.targets, units=measured.people, resamples=resamples, seed=seed
        ).overall
        rows.append({"": name, "views": len(seen)} | {score: scores[score] for score in SHOWN})
        facts[name] = {"views": len(seen)} | plain(scores)
    return Section(
        key="averaging",
        title="Averaged views",
        text=(f"{len(views)} views an image cost {len(views)} times the network's time ({rate:,.0f} images/s here).",),
        tables={"averaging": pd.DataFrame(rows)},
        facts=facts,
    )


def robustness_section(measured: Measurement, images: int, *, seed: int) -> Section | None:
    """Accuracy under damage, on a random part of the images; None where none are asked for."""
    if not images:
        return None
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.permutation(len(measured.targets))[:images])
    hits = (measured.predictions == measured.targets)[chosen]
    rows = []
    trials = [(kind, strength) for kind in CORRUPTIONS for strength in STRENGTHS]
    for kind, strength in track(trials, description="Damaging", transient=True):
        corruption = CORRUPTIONS[kind]
        damaged = corruption.batch(measured.images[chosen], strength, seed=seed)
        logits = _logits(measured, damaged)
        correct = measured.probabilities_of(logits).argmax(axis=1) == measured.targets[chosen]
        low, high = _interval(correct, seed=seed)
        rows.append(
            {
                "corruption": kind,
                "strength": strength,
                "amount": corruption.amounts[strength - 1],
                "unit": corruption.unit,
                "acc": correct.mean(),
                "low": low,
                "high": high,
                "lost": hits.mean() - correct.mean(),
            }
        )
    table = pd.DataFrame(rows)
    wide = table.pivot(index="corruption", columns="strength", values="acc").loc[list(CORRUPTIONS)]
    wide.columns = [f"strength {strength}" for strength in STRENGTHS]
    part = "all" if len(chosen) == len(measured.targets) else f"{len(chosen):,} of {len(measured.targets):,}"
    return Section(
        key="robustness",
        title="Robustness",
        text=(
            f"Accuracy on {part} images, of which {hits.mean():.1%} are right undamaged; the drawing of images and of "
            f"noise is seeded ({seed}). Mean over all: {table.acc.mean():.1%}.",
        ),
        tables={"robustness": wide.reset_index(), "robustness_curves": table},
        figures={"robustness": robustness_figure(table, float(hits.mean()), "Accuracy under damage, 95 % intervals")},
        facts={
            "images": len(chosen),
            "undamaged": float(hits.mean()),
            "mean": float(table.acc.mean()),
            "rows": rows,
        },
    )


def attribution_section(measured: Measurement, images: int) -> Section | None:
    """What the answers rest on, for some faces of each class; None where none are asked for."""
    if not images:
        return None
    title = "What an answer rests on"
    if (why := why_not()) is not None:
        return Section(key="attribution", title=title, text=(f"Left out: {why}.",))
    of_class = [np.flatnonzero(measured.targets == k) for k in range(len(measured.classes.names))]
    chosen = np.array([rows[turn] for turn in range(images) for rows in of_class if turn < len(rows)][:images])
    answers, finish = measured.predictions[chosen], measured.datamodule.preprocess.finish
    maps = occlusion_maps(
        lambda inputs: measured.probabilities_of(measured.backend.logits(inputs)),
        finish(measured.images[chosen]),
        answers,
    )
    names, sure = measured.classes.names, measured.probabilities[chosen, answers]
    captions = [
        f"{names[measured.targets[i]]}\n{names[k]} {p:.0%}" for i, k, p in zip(chosen, answers, sure, strict=True)
    ]
    return Section(
        key="attribution",
        title=title,
        text=(
            "A gray patch slides over the face: red where covering costs the answer its probability, blue where it "
            "adds to it; the color scale is each face's own. A coarse map, and no proof of why.",
        ),
        figures={"attribution": attribution_figure(measured.images[chosen], maps, captions, "Label, answer")},
    )


def cost_section(path: Path) -> Section:
    """Size, operations and latencies."""
    size, times = size_of(path), latencies(path)
    counted = [f"{size['bytes'] / 1e6:.1f} MB", f"{size['parameters']:,} parameters"]
    if size["multiply_adds"] is not None:
        counted.append(f"{size['multiply_adds'] / 1e6:,.1f} M multiply-adds a face")
    if path.suffix == ".ckpt":
        counted[0] += " (a checkpoint; with the optimizer's state to go on training)"
    return Section(
        key="cost",
        title="Cost",
        text=(f"{', '.join(counted)}.", "From prepared faces to logits; detection and decoding are not in it."),
        tables={"latency": times},
        facts=size | {"latency": times.to_dict("records")},
    )


def _logits(measured: Measurement, images: np.ndarray) -> np.ndarray:
    """Of prepared images, uint8 (N, S, S) or (N, S, S, 3)."""
    size, finish = measured.datamodule.batch_size, measured.datamodule.preprocess.finish
    parts = [finish(images[start : start + size]) for start in range(0, len(images), size)]
    return np.concatenate([measured.backend.logits(part) for part in parts])


def _interval(correct: np.ndarray, *, seed: int, resamples: int = 1000) -> tuple[float, float]:
    """95 % bootstrap limits of a share."""
    weights = drawn(len(correct), resamples, np.random.default_rng(seed))
    low, high = np.percentile(weights @ correct / len(correct), (2.5, 97.5))
    return float(low), float(high)
