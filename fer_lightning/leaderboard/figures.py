"""The pictures of a leaderboard; each function returns None if the runs have nothing to draw."""

from collections.abc import Sequence
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from fer_lightning.leaderboard.entries import Entry
from fer_lightning.leaderboard.pooling import pooled_score, scores_of_seeds
from fer_lightning.leaderboard.runs import Run
from fer_lightning.runs.settings import LOWER_IS_BETTER

KERNEL = "model.net.kernel_size"
SCORES = ("acc", "precision_macro", "recall_macro", "f1_macro")
MOST = 12  # bars or curves in one picture
LINE = 60  # letters of a label beside a bar


def kernel_figure(entries: Sequence[Entry], metric: str) -> Figure | None:
    """Metric by kernel size, with the standard deviation where there are several runs, of splits that all have.

    There is one line for each table, network and combination of the other settings that tell the entries apart, except
    for the precision: of entries that differ only in that, the best is shown.
    """
    lines: dict[str, dict[int, Entry]] = {}
    for entry in entries:
        if (kernel := entry.runs[0].settings.get(KERNEL)) is not None:
            others = " ".join(
                part for part in entry.label.split() if not part.startswith(("kernel_size=", "precision="))
            )
            lines.setdefault(f"{others}, {entry.comparison}", {}).setdefault(kernel, entry)
    scores = {name: _on_shared_splits(points, metric) for name, points in lines.items() if len(points) > 1}
    scores = {name: points for name, points in scores.items() if points}
    if not scores:
        return None
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, points in scores.items():
        kernels = sorted(points)
        means = [np.mean(points[kernel]) for kernel in kernels]
        deviations = [np.std(points[kernel], ddof=1) if len(points[kernel]) > 1 else 0.0 for kernel in kernels]
        axes.errorbar(kernels, means, yerr=deviations, marker="o", capsize=4, label=fill(name, 80))
    all_kernels = sorted({kernel for points in scores.values() for kernel in points})
    axes.set(xlabel="kernel size", ylabel=f"{metric} (bars: standard deviation of runs)", xticks=all_kernels)
    if metric != "loss":
        axes.set_ylim(top=min(1.0, axes.get_ylim()[1]))  # a bar may exceed 1
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def _on_shared_splits(points: dict[int, Entry], metric: str) -> dict[int, list[float]]:
    """The metric of each seed of the entries; of those whose splits were drawn, of seeds that all have."""
    of_entry = {kernel: list(entry.runs) for kernel, entry in points.items()}
    if not next(iter(points.values())).comparison.measured:
        shared = set.intersection(*({run.repetition.split_seed for run in runs} for runs in of_entry.values()))
        of_entry = {
            kernel: [run for run in runs if run.repetition.split_seed in shared] for kernel, runs in of_entry.items()
        }
    return {kernel: scores_of_seeds(runs, metric) for kernel, runs in of_entry.items() if runs}


def bars_figure(entries: Sequence[Entry]) -> Figure | None:
    """Accuracy, precision, recall and F1 side by side, for the first entries of one table."""
    shown = [entry for entry in entries if all(pooled_score(entry.runs, name) is not None for name in SCORES)][:MOST]
    if not shown:
        return None
    figure, axes = plt.subplots(figsize=(10, 0.6 * len(shown) + 1.6), layout="constrained")
    places, width = np.arange(len(shown)), 0.8 / len(SCORES)
    for number, name in enumerate(SCORES):
        lengths = [pooled_score(entry.runs, name) for entry in shown]
        axes.barh(places + (number - 1.5) * width, lengths, width, label=name.replace("_macro", ", macro"))
    axes.set_yticks(places, [fill(entry.label, LINE) for entry in shown], fontsize=7)
    axes.invert_yaxis()  # the best on top, as in the table
    axes.set(xlim=(0, 1), title=str(shown[0].comparison))
    axes.grid(axis="x", alpha=0.3)
    figure.legend(fontsize=8, ncols=4, loc="outside lower center")
    return figure


def cost_figure(entries: Sequence[Entry], metric: str) -> Figure | None:
    """Metric against parameters and multiply-adds, for one table; a line joins the Pareto front.

    The best entry of each cost bears the network's name; those below are the same with other settings.
    """
    costs = {"parameters": "parameters", "multiply_adds": "multiply-adds of one image"}
    shown = [entry for entry in entries if all(entry.runs[0].facts.get(cost) for cost in costs)]
    if len({entry.runs[0].facts["parameters"] for entry in shown}) < 2:
        return None
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained", sharey=True)
    sign = -1 if metric in LOWER_IS_BETTER else 1
    shown = sorted(shown, key=lambda entry: sign * entry.mean)
    for axes, (cost, name) in zip(panels, costs.items(), strict=True):
        points = [(entry.runs[0].facts[cost], entry.mean) for entry in shown]
        axes.scatter(*zip(*points, strict=True))
        best = {x: (y, entry.runs[0].network) for (x, y), entry in zip(points, shown, strict=True)}
        for x, (y, network) in best.items():
            axes.annotate(network, (x, y), fontsize=8, xytext=(4, 4), textcoords="offset points")
        front = pareto_front([(x, sign * y) for x, y in points])
        axes.plot(
            [x for x, _ in front], [sign * y for _, y in front], color="tab:red", alpha=0.5, drawstyle="steps-post"
        )
        wide = max(best) > 10 * min(best)
        axes.set(xscale="log" if wide else "linear", xlabel=name)
        axes.xaxis.set_major_formatter(EngFormatter())
        axes.margins(x=0.25)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(metric)
    figure.suptitle(str(shown[0].comparison), fontsize=11)
    return figure


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (cost, score) points whose score no point of equal or lower cost reaches, the cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def curves_figure(entries: Sequence[Entry]) -> Figure | None:
    """Validation accuracy by epoch, for the first run of each of the first entries of one table."""
    figure, axes = plt.subplots(figsize=(8, 4.2 + 0.25 * min(len(entries), MOST)), layout="constrained")
    axes.set_prop_cycle(color=plt.get_cmap("tab20").colors)
    for entry in entries[:MOST]:
        epochs = entry.runs[0].epochs()
        if epochs is not None and {"epoch", "val/acc"} <= set(epochs.columns):
            axes.plot(epochs["epoch"], epochs["val/acc"], label=fill(entry.label, 2 * LINE))
    if not axes.lines:
        plt.close(figure)
        return None
    axes.set(xlabel="epoch", ylabel="val/acc", title=str(entries[0].comparison))
    axes.grid(alpha=0.3)
    figure.legend(fontsize=7, loc="outside lower center")
    return figure


def transfer_figure(runs: Sequence[Run]) -> Figure | None:
    """Accuracy of models trained on one dataset (rows) and measured on another (columns); the mean of several.

    Left out are measurements on images that the model may have been trained or chosen on.
    """
    measured = [
        (
            run.facts["model"]["training"].get("dataset", "unknown"),
            run.comparison.dataset,
            run.metrics[f"{run.stage}/acc"],
        )
        for run in runs
        if run.is_evaluation and not run.facts.get("seen") and not run.facts.get("chosen")
    ]
    if not measured:
        return None
    matrix = pd.DataFrame(measured, columns=["trained on", "measured on", "acc"]).pivot_table(
        index="trained on", columns="measured on", values="acc"
    )
    figure, axes = plt.subplots(figsize=(2.5 + 1.2 * matrix.shape[1], 2 + 0.8 * matrix.shape[0]), layout="constrained")
    axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(matrix.shape):
        value = matrix.iat[row, column]
        if not np.isnan(value):
            axes.text(column, row, f"{value:.1%}", ha="center", va="center", color="white" if value > 0.6 else "black")
    axes.set_xticks(range(matrix.shape[1]), matrix.columns)
    axes.set_yticks(range(matrix.shape[0]), matrix.index)
    axes.set(xlabel="measured on", ylabel="trained on")
    return figure
