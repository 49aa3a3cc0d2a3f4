"""Output of `fer-predict` in the terminal."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fer_lightning.inference.predictor import Prediction, Predictor
from fer_lightning.inference.results import Results
from fer_lightning.text.words import counted

MOST_LINES = 10  # lines of a list


@dataclass
class Tally:
    """Counts of what was processed so far."""

    frames: int = 0
    faces: int = 0
    no_face: int = 0
    unreadable: int = 0
    first: list[Prediction] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    stopped_by: str | None = None

    def add(self, prediction: Prediction) -> None:
        """Count a frame."""
        self.frames += 1
        self.faces += len(prediction.faces)
        self.no_face += prediction.readable and not prediction.faces
        self.unreadable += not prediction.readable
        if len(self.first) < MOST_LINES:
            self.first.append(Prediction(frame=prediction.frame.without_image(), faces=prediction.faces))

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started


def introduce(console: Console, predictor: Predictor) -> None:
    """Print which model is used, and warn if it was not trained on real faces."""
    card = predictor.card
    dataset = card.training.get("dataset", "an unknown dataset")
    score = next((f", {name} {value:.1%}" for name, value in card.metrics.items() if name.endswith("/acc")), "")
    console.print(
        f"Model: {escape(str(predictor.model_path))} (trained on {escape(str(dataset))}{score})", soft_wrap=True
    )
    if dataset == "synthetic":
        console.print("[yellow]It was trained on drawn faces only: do not trust it on real ones.[/yellow]")


def progress_bar(console: Console) -> Progress:
    """Progress and speed; hidden if the output is not a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def summarise(console: Console, tally: Tally, results: Results) -> None:
    """Print what went wrong, the faces if there are few, and where the results are."""
    for problem in results.problems[:MOST_LINES]:
        console.print(f"[yellow]{escape(problem)}[/yellow]", soft_wrap=True)
    if (more := len(results.problems) - MOST_LINES) > 0:
        place = "" if results.folder is None else ": see problems.csv"
        console.print(f"[yellow]... and {more:,} more{place}[/yellow]")
    if tally.frames <= MOST_LINES and tally.faces:
        console.print(_faces_table(tally.first))
    console.print(
        f"{counted(tally.frames, 'image')}, {counted(tally.faces, 'face')}, {tally.no_face} without a face, "
        f"{tally.unreadable} unreadable, in {tally.seconds:.1f} s ({tally.frames / tally.seconds:.1f}/s)"
    )
    if results.folder is not None:
        console.print(f"Results: [bold]{escape(str(results.folder))}[/bold]", soft_wrap=True)


def _faces_table(predictions: list[Prediction]) -> Table:
    table = Table("source", "face", "emotion", "confidence", "next")
    for prediction in predictions:
        for number, face in enumerate(prediction.faces):
            second = sorted(face.probabilities, key=face.probabilities.__getitem__)[-2]
            runner_up = escape(f"{second} {face.probabilities[second]:.0%}")
            source = escape(Path(prediction.frame.source).name)
            table.add_row(source, str(number), escape(face.emotion), f"{face.confidence:.0%}", runner_up)
    return table
