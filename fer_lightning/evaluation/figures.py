"""The pictures of a report.   Shapes: N images, S side in pixels, K classes."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from fer_lightning.evaluation.scores import Score
from fer_lightning.plots import faces_figure


def fewest_in_a_bin(count: int) -> int:
    """How many of all `count` images a bin of confidence needs to be drawn, since fewer show only chance."""
    return min(10, max(1, count // 50))


def curves(probabilities: np.ndarray, targets: np.ndarray, class_names: Sequence[str]) -> pd.DataFrame:
    """ROC and precision-recall curves, one row per point: class, curve, x, y; omits classes with all or no images."""
    parts = []
    for k, name in enumerate(class_names):
        positive = targets == k
        if not 0 < positive.sum() < len(targets):
            continue
        wrong, right, _ = roc_curve(positive, probabilities[:, k])
        precision, recall, _ = precision_recall_curve(positive, probabilities[:, k])
        parts += [pd.DataFrame({"class": name, "curve": "roc", "x": wrong, "y": right})]
        parts += [pd.DataFrame({"class": name, "curve": "precision_recall", "x": recall, "y": precision})]
    return pd.concat(parts) if parts else pd.DataFrame(columns=["class", "curve", "x", "y"])


def curves_figure(points: pd.DataFrame, title: str) -> Figure:
    """Draw the curves from `curves`."""
    figure, (roc, pr) = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    for axes, curve in ((roc, "roc"), (pr, "precision_recall")):
        for name, mine in points[points.curve == curve].groupby("class", sort=False):
            axes.plot(mine.x, mine.y, label=name, linewidth=1.4)
        axes.grid(alpha=0.3)
    roc.plot([0, 1], [0, 1], color="gray", linestyle=":", linewidth=1, label="chance")
    roc.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC, one against the rest")
    pr.set(xlabel="recall", ylabel="precision", title="Precision and recall", ylim=(0, 1.03))
    roc.legend(fontsize=8, loc="lower right")
    figure.suptitle(title, fontsize=11)
    return figure


def per_class_figure(classes: Sequence[dict[str, Score]], class_names: Sequence[str], title: str) -> Figure:
    """Draw precision, recall and F1 of each class with their intervals."""
    figure, axes = plt.subplots(figsize=(max(6.0, 1.25 * len(class_names)), 4), layout="constrained")
    places, names = np.arange(len(class_names)), ("precision", "recall", "f1")
    for number, name in enumerate(names):
        scores = [of_class[name] for of_class in classes]
        values = np.array([score.value for score in scores])
        limits = np.array([[score.value - score.low, score.high - score.value] for score in scores]).T
        errors = None if np.isnan(limits).all() else np.maximum(np.nan_to_num(limits), 0)
        axes.bar(places + (number - 1) * 0.27, values, 0.25, yerr=errors, capsize=2, label=name)
    axes.set_xticks(places, class_names)
    axes.set(ylim=(0, 1.15), title=title)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8, ncols=3, loc="upper center")
    return figure


def reliability_figure(tables: dict[str, pd.DataFrame], title: str, *, fewest: int) -> Figure:
    """Draw accuracy by confidence for each table, in bins of at least `fewest` images; areas show their share."""
    figure, axes = plt.subplots(figsize=(5.4, 4.8), layout="constrained")
    axes.plot([0, 1], [0, 1], color="gray", linestyle=":", linewidth=1, label="perfect calibration")
    for name, every in tables.items():
        table = every[every.images >= fewest]
        sizes = 260 * table.images / table.images.sum()
        [line] = axes.plot(table.confidence, table.accuracy, linewidth=1.2, label=name)
        axes.scatter(table.confidence, table.accuracy, s=np.maximum(sizes, 8), color=line.get_color(), alpha=0.6)
    axes.set(xlabel="confidence", ylabel="accuracy", title=title, xlim=(0, 1.02), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def robustness_figure(table: pd.DataFrame, clean: float, title: str) -> Figure:
    """Draw accuracy by strength, one panel per corruption; the dashed line is the accuracy without damage."""
    kinds = list(dict.fromkeys(table.corruption))
    columns = 5
    rows = -(-len(kinds) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(13, 2.5 * rows), layout="constrained", sharey=True, squeeze=False
    )
    for axes, kind in zip(grid.flat, kinds, strict=False):
        mine = table[table.corruption == kind]
        axes.fill_between(mine.strength, mine.low, mine.high, alpha=0.2)
        axes.plot(mine.strength, mine.acc, marker="o", markersize=4)
        axes.axhline(clean, color="gray", linestyle="--", linewidth=1)
        axes.set_xticks(mine.strength, [f"{amount:g}" for amount in mine.amount])
        axes.set_xlabel(mine.unit.iloc[0], fontsize=8)
        axes.set_title(kind, fontsize=10)
        axes.grid(alpha=0.3)
    for axes in grid.flat[len(kinds) :]:
        axes.axis("off")
    for axes in grid[:, 0]:
        axes.set(ylabel="accuracy", ylim=(0, 1.02))
    figure.suptitle(title, fontsize=11)
    return figure


def groups_figure(table: pd.DataFrame, column: str) -> Figure:
    """Draw the accuracy of each group with its interval."""
    figure, axes = plt.subplots(figsize=(6.5, max(2.0, 0.42 * len(table) + 1.1)), layout="constrained")
    places = np.arange(len(table))[::-1]
    values, low, high = np.array(table.acc.tolist()).T
    errors = np.maximum(np.nan_to_num([values - low, high - values]), 0)
    axes.errorbar(values, places, xerr=errors, fmt="o", capsize=3)
    labels = [f"{name} ({images:,})" for name, images in zip(table.group, table.images, strict=True)]
    axes.set_yticks(places, labels, parse_math=False)  # a group's name may hold dollar signs
    axes.set(xlabel="accuracy, 95 % interval", xlim=(0, 1.02), title=f"By {column}")
    axes.grid(alpha=0.3)
    return figure


def attribution_figure(images: np.ndarray, maps: np.ndarray, captions: Sequence[str], title: str) -> Figure:
    """Draw faces, uint8 (N, S, S) or BGR (N, S, S, 3), with and without maps (N, S, S): red above 0, blue below."""
    columns = 8
    if images.ndim == 3:
        images = np.repeat(images[..., None], 3, axis=-1)
    peaks = np.maximum(np.abs(maps).max(axis=(1, 2), keepdims=True), np.finfo(float).tiny)
    colors = 255 * plt.get_cmap("bwr")((maps / peaks + 1) / 2)[..., 2::-1]
    covered = (0.5 * images + 0.5 * colors).astype(np.uint8)
    rows, texts = [], []
    for start in range(0, len(images), columns):
        part = slice(start, start + columns)
        blank = [np.full_like(images[0], 255)] * (columns - len(images[part]))
        rows += [*images[part], *blank, *covered[part], *blank]
        texts += [*captions[part], *[""] * len(blank), *[""] * columns]
    return faces_figure(np.stack(rows), texts, title, columns=columns)
