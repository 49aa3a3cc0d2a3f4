"""The files that a finished run writes beside its checkpoints: predictions, confusion matrix and pictures."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fer_lightning.atomic import replacing
from fer_lightning.data.datamodule import FaceDataModule
from fer_lightning.metrics import Findings
from fer_lightning.plots import confusion_matrix_figure, learning_curves_figure, mistakes_figure, samples_figure


def write_artifacts(
    folder: Path,
    findings: Findings,
    datamodule: FaceDataModule,
    class_names: Sequence[str],
    epochs: pd.DataFrame | None = None,
) -> None:
    """Write the results on a split to `folder`, as tables and pictures.

    Args:
        folder: Folder of the run.
        findings: Predictions on the split.
        datamodule: Source of the images.
        class_names: Class names, in the order of the findings' targets and columns.
        epochs: The rows of `metrics.csv`; None if nothing was trained in epochs.
    """
    write_tables(folder, findings, datamodule, class_names)
    title = f"{datamodule.index.dataset}, {datamodule.split.protocol}, {findings.stage}"
    faces = datamodule.faces(findings.indices), findings, class_names
    _write_figure(folder / "confusion_matrix.png", confusion_matrix_figure(findings.confusion, class_names, title))
    _write_figure(folder / "sample_predictions.png", samples_figure(*faces, title))
    mistakes = "Mistakes" if findings.votes else "Worst mistakes"
    _write_figure(folder / "worst_mistakes.png", mistakes_figure(*faces, f"{mistakes} on {title}"))
    if epochs is not None:
        title = f"{datamodule.index.dataset}, {datamodule.split.protocol}"
        _write_figure(folder / "learning_curves.png", learning_curves_figure(epochs, title))


def write_tables(folder: Path, findings: Findings, datamodule: FaceDataModule, class_names: Sequence[str]) -> None:
    """Write `predictions.csv` and `confusion_matrix.csv`.

    The first has one row per image: split, image, person (if the dataset says who it is), target, prediction, and
    p_<class> unless the predictions are votes; the second has counts, with true classes as rows and predicted classes
    as columns.
    """
    _write_csv(folder / "predictions.csv", _predictions_table(findings, datamodule, class_names))
    counts = pd.DataFrame(findings.confusion, index=class_names, columns=class_names)
    _write_csv(folder / "confusion_matrix.csv", counts, index=True)


def print_results(title: str, scores: dict[str, float], per_class: dict[str, dict[str, float]], stage: str) -> None:
    """Print the scores of all measured splits, and the scores per class of one of them."""
    console = Console()
    measured = [split for split in ("train", "val", "test") if f"{split}/acc" in scores]
    summary = Table("metric", *measured)
    for metric in ("acc", "f1_macro", "precision_macro", "recall_macro", "specificity_macro", "ece", "loss"):
        if f"{measured[0]}/{metric}" in scores:
            summary.add_row(metric, *(f"{scores[f'{split}/{metric}']:.4f}" for split in measured))
    console.print(f"[bold]{escape(title)}[/bold]", summary, sep="\n")
    classes = Table("class", "precision", "recall", "f1", "images", title=f"By class, {stage}")
    for name, row in per_class.items():
        classes.add_row(
            escape(name), f"{row['precision']:.3f}", f"{row['recall']:.3f}", f"{row['f1']:.3f}", str(row["support"])
        )
    console.print(classes)


def _predictions_table(findings: Findings, datamodule: FaceDataModule, class_names: Sequence[str]) -> pd.DataFrame:
    class_names, people = np.array(class_names), datamodule.index.subjects
    table = {
        "split": findings.stage,
        "image": [datamodule.index.names[i] for i in findings.indices],
        **({} if people is None else {"person": people[findings.indices]}),
        "target": class_names[findings.targets],
        "prediction": class_names[findings.probabilities.argmax(axis=1)],
    }
    if not findings.votes:
        table |= {f"p_{name}": findings.probabilities[:, k] for k, name in enumerate(class_names)}
    return pd.DataFrame(table)


def _write_csv(path: Path, table: pd.DataFrame, *, index: bool = False) -> None:
    with replacing(path) as temporary:
        table.to_csv(temporary, index=index, float_format="%.6f")


def _write_figure(path: Path, figure: Figure) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130)
    plt.close(figure)
