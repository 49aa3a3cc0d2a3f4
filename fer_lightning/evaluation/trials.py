"""Report sections that run the model again: averaged views, damaged images, attribution, and cost."""

import time
from functools import partial
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
from fer_lightning.evaluation.scores import plain
from fer_lightning.evaluation.section import Section

SHOWN = ("acc", "f1_macro", "log_loss", "ece")


def averaging_section(measured: Measurement, averaging: str) -> Section | None:
    """Averaged views compared with the single view, with their cost; None if not requested."""
    if averaging == "none":
        return None
    views, start = VIEWS[averaging], time.perf_counter()
    of_views = [measured.probabilities]
    for view in views[1:]:
        logits = logits_of(
            measured.backend, measured.datamodule, measured.indices, change=view, description="Averaging"
        )
        of_views.append(measured.probabilities_of(logits))
    rate = len(measured.targets) * (len(views) - 1) / len(views) / (time.perf_counter() - start)
    rows, facts = [], {}
    for name, seen in (("single view", of_views[:1]), (f"{averaging}: mean of the probabilities", of_views)):
        scores = measured.scores(np.mean(seen, axis=0)).overall
        rows.append({"": name, "views": len(seen)} | {score: scores[score] for score in SHOWN})
        facts[name] = {"views": len(seen)} | plain(scores)
    return Section(
        key="averaging",
        title="Averaged views",
        text=(f"{len(views)} views per image take {len(views)} times the network's time ({rate:,.0f} images/s here).",),
        tables={"averaging": pd.DataFrame(rows)},
        facts=facts,
    )


def robustness_section(measured: Measurement, images: int) -> Section | None:
    """Accuracy under image damage, on a random part of the images; None if not requested."""
    if not images:
        return None
    count = len(measured.targets)
    chosen = np.sort(np.random.default_rng(measured.seed).permutation(count)[:images])
    undamaged = float((measured.predictions == measured.targets)[chosen].mean())
    rows = []
    trials = [(kind, strength) for kind in CORRUPTIONS for strength in STRENGTHS]
    for kind, strength in track(trials, description="Damaging", transient=True):
        corruption, generator = CORRUPTIONS[kind], np.random.default_rng((measured.seed, strength))
        logits = logits_of(
            measured.backend,
            measured.datamodule,
            measured.indices[chosen],
            change=partial(corruption.batch, strength=strength, generator=generator),
        )
        hits = measured.probabilities_of(logits).argmax(axis=1) == measured.targets[chosen]
        accuracy = measured.mean_of(hits, chosen)
        amount = {"amount": corruption.amounts[strength - 1], "unit": corruption.unit}
        rows.append(
            {"corruption": kind, "strength": strength}
            | amount
            | {"acc": accuracy.value, "low": accuracy.low, "high": accuracy.high, "lost": undamaged - accuracy.value}
        )
    table = pd.DataFrame(rows)
    wide = table.pivot(index="corruption", columns="strength", values="acc").loc[list(CORRUPTIONS)]
    wide.columns = [f"strength {strength}" for strength in STRENGTHS]
    part = "all" if len(chosen) == count else f"{len(chosen):,} of {count:,}"
    return Section(
        key="robustness",
        title="Robustness",
        text=(
            f"Accuracy on {part} images; without damage it is {undamaged:.1%}. Random draws use seed {measured.seed}. "
            f"Mean over all kinds and strengths: {table.acc.mean():.1%}.",
        ),
        tables={"robustness": wide.reset_index()},
        data={"robustness_amounts": table},
        figures={"robustness": robustness_figure(table, undamaged, "Accuracy under damage")},
        facts={
            "images": len(chosen),
            "undamaged": undamaged,
            "mean": float(table.acc.mean()),
            "rows": table.replace({np.nan: None}).to_dict("records"),
        },
    )


def attribution_section(measured: Measurement, images: int) -> Section | None:
    """What the answers depend on, for some faces of each class; None if not requested."""
    if not images:
        return None
    title = "What an answer depends on"
    if (why := why_not()) is not None:
        return Section(key="attribution", title=title, text=(f"Left out: {why}.",))
    of_class = [np.flatnonzero(measured.targets == k) for k in range(len(measured.classes.names))]
    chosen = np.array([rows[turn] for turn in range(images) for rows in of_class if turn < len(rows)][:images])
    answers, faces = measured.predictions[chosen], measured.faces[chosen]
    maps = occlusion_maps(
        lambda inputs: measured.probabilities_of(measured.backend.logits(inputs)),
        measured.datamodule.preprocess.finish(faces),
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
            "A grey patch slides over the face: red where covering lowers the answer's probability, blue where it "
            "raises it; each face has its own colour scale. The map is coarse, and does not prove a reason.",
        ),
        figures={"attribution": attribution_figure(faces, maps, captions, "The label, the answer")},
        facts={"images": measured.names[chosen], "most_lost": maps.max(axis=(1, 2))},
    )


def cost_section(path: Path) -> Section:
    """Size, operations and latencies."""
    size, times = size_of(path), latencies(path)
    counted = [f"{size['bytes'] / 1e6:.1f} MB"]
    if path.suffix == ".ckpt":
        counted[0] += " (a checkpoint, with the optimizer's state for resuming)"
    if size["parameters"] is not None:
        counted.append(f"{size['parameters']:,} parameters")
        counted.append(f"{size['multiply_adds'] / 1e6:,.1f} M multiply-adds per face")
    else:
        counted.append("parameters and multiply-adds unknown: the file does not tell them")
    return Section(
        key="cost",
        title="Cost",
        text=(f"{'; '.join(counted)}.", "From prepared faces to logits, without detection and decoding."),
        tables={"latency": pd.DataFrame(times).astype({"threads": object})},
        facts=size | {"latency": times},
    )
