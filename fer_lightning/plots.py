"""The pictures of a run.   Shapes: N images, S side in pixels, K classes."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from fer_lightning.data.cache import Faces
from fer_lightning.metrics import Findings, worst_mistakes

PER_CLASS = 4  # sample predictions of each class


def confusion_matrix_figure(counts: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Draw counts (K, K), rows true and columns predicted; the colour shows the share of the row."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    texts = [f"{share:.0%}\n{count}" for share, count in zip(shares.flat, counts.flat, strict=True)]
    labels = np.reshape(texts, counts.shape)
    side = 2.2 + 0.75 * len(class_names)
    figure, axes = plt.subplots(figsize=(side, side * 0.92), layout="constrained")
    sns.heatmap(
        shares,
        annot=labels,
        fmt="",
        vmin=0,
        vmax=1,
        cmap="Blues",
        cbar=False,
        square=True,
        annot_kws={"fontsize": 8},
        xticklabels=class_names,
        yticklabels=class_names,
        ax=axes,
    )
    axes.set(xlabel="predicted", ylabel="true", title=title)
    axes.tick_params(axis="x", rotation=45)
    axes.tick_params(axis="y", rotation=0)
    return figure


def faces_figure(
    images: np.ndarray, captions: Sequence[str], title: str, *, colors: Sequence[str] | None = None, columns: int = 8
) -> Figure:
    """Lay out uint8 images (N, S, S) or BGR (N, S, S, 3) in rows, each under a caption of two lines."""
    width, height, caption, top = 1.35, 1.75, 0.42, 0.4  # inches: cell width and height, caption height, title height
    columns = min(columns, max(5, len(images)))  # the title needs its width
    rows = max(1, -(-len(images) // columns))
    size = columns * width, rows * height + top
    figure = plt.figure(figsize=size)
    # A single axes for all images: thirty axes would take thirty times as long.
    axes = figure.add_axes((0, 0, 1, 1 - top / size[1]))
    for i, (image, text) in enumerate(zip(images, captions, strict=True)):
        left, upper = i % columns * width, i // columns * height + caption
        extent = (left + 0.04, left + width - 0.04, upper + width - 0.08, upper)
        axes.imshow(image if image.ndim == 2 else image[..., ::-1], cmap="gray", vmin=0, vmax=255, extent=extent)
        color = colors[i] if colors is not None else "black"
        axes.text(left + width / 2, upper - 0.04, text, fontsize=8, color=color, ha="center", va="bottom")
    axes.set(xlim=(0, columns * width), ylim=(rows * height, 0), aspect="auto")
    axes.axis("off")
    figure.text(0.5, 1 - 0.12 / size[1], title, fontsize=11, ha="center", va="top")
    return figure


def learning_curves_figure(epochs: pd.DataFrame, title: str) -> Figure:
    """Draw loss and accuracy of training and validation by epoch, from the columns of `metrics.csv`."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    # Label smoothing, weights of classes and the like are in the loss of training alone.
    labels = {"loss": ("train, as minimised", "val, cross-entropy"), "acc": ("train", "val")}
    for axes, metric, name in zip(panels, labels, ("loss", "top-1 accuracy"), strict=True):
        for stage, label in zip(("train", "val"), labels[metric], strict=True):
            if f"{stage}/{metric}" in epochs:
                axes.plot(epochs["epoch"], epochs[f"{stage}/{metric}"], label=label, marker=".", markersize=4)
        axes.set(xlabel="epoch", ylabel=name)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title, fontsize=11)
    return figure


def mistakes_figure(
    images: np.ndarray | Faces, findings: Findings, class_names: Sequence[str], title: str, *, count: int = 32
) -> Figure:
    """Show the most confident wrong predictions; images, uint8 (N, S, S) or (N, S, S, 3), match findings."""
    targets, answers = findings.targets, _answers(findings, class_names)
    worst = worst_mistakes(findings)[:count]
    captions = [f"{class_names[targets[i]]}\nnot {answers[i]}" for i in worst]
    return faces_figure(images[worst], captions, title if len(worst) else f"{title}: none")


def samples_figure(images: np.ndarray | Faces, findings: Findings, class_names: Sequence[str], title: str) -> Figure:
    """Show a few images of each class, evenly spread, with their prediction: right ones green, wrong ones red."""
    targets, predictions = findings.targets, findings.probabilities.argmax(axis=1)
    answers = _answers(findings, class_names)
    of_class = [np.flatnonzero(targets == target) for target in range(len(class_names))]
    spread = [np.linspace(0, len(rows) - 1, min(PER_CLASS, len(rows))).astype(int) for rows in of_class]
    chosen = np.concatenate([rows[picked] for rows, picked in zip(of_class, spread, strict=True)])
    captions = [f"{class_names[targets[i]]}\n{answers[i]}" for i in chosen]
    colors = ["tab:green" if predictions[i] == targets[i] else "tab:red" for i in chosen]
    title = f"{title}: the label above, the prediction below"
    return faces_figure(images[chosen], captions, title, colors=colors, columns=2 * PER_CLASS)


def _answers(findings: Findings, class_names: Sequence[str]) -> list[str]:
    """Predicted classes with their confidence, which votes do not have."""
    names = [class_names[k] for k in findings.probabilities.argmax(axis=1)]
    if findings.votes:
        return names
    return [f"{name} {share:.0%}" for name, share in zip(names, findings.probabilities.max(axis=1), strict=True)]
