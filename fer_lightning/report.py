"""`fer-report DIR...`: a leaderboard of all finished runs below some folders."""

import json
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fer_lightning.atomic import replacing
from fer_lightning.command import run_command
from fer_lightning.errors import InputError
from fer_lightning.leaderboard.columns import HEADER, cells, table
from fer_lightning.leaderboard.entries import Entry, by_comparison, entries
from fer_lightning.leaderboard.figures import bars_figure, cost_figure, curves_figure, kernel_figure, transfer_figure
from fer_lightning.leaderboard.page import markdown, page
from fer_lightning.leaderboard.runs import Run, collect
from fer_lightning.leaderboard.significance import with_p_values

MOST_LINES = 10  # lines of a list in the terminal
TERMINAL_COLUMNS = HEADER.index("parameters")  # the first ones; all are in the files


def main(
    places: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders of runs or sweeps, searched recursively.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="Folder to write the leaderboard to. Default: the first folder.")
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            help="Metric to compare, on test if a run has it, else on val: acc, f1_macro, ...; val/acc, to choose by, "
            "compares on val."
        ),
    ] = "acc",
    group_by: Annotated[
        str | None,
        typer.Option(help="Settings that define the entries, separated by commas. Default: those that differ."),
    ] = None,
    filter_: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", help="Keep only runs with KEY=VALUE in their configuration; can be repeated, and all must hold."
        ),
    ] = None,
) -> None:
    """Print a leaderboard, and write it as csv, Markdown and an HTML page with pictures."""
    matplotlib.use("agg")
    stage, _, metric = metric.rpartition("/")
    if stage not in ("", "val", "test"):
        raise InputError(f"--metric {stage}/{metric}: runs are compared on val or test, as in val/{metric}")
    runs, left_out = collect(places, stage or None)
    if not runs:
        why = "".join(f"; {folder} {reason}" for folder, reason in list(left_out.items())[:MOST_LINES])
        raise InputError(f"no run to compare (a folder with result.json) below {', '.join(map(str, places))}{why}")
    runs = _filtered(runs, filter_ or [])
    _check_metric(runs, metric)
    left_out |= {run.folder: f"has no {metric}" for run in runs if f"{run.stage}/{metric}" not in run.metrics}
    runs = [run for run in runs if run.folder not in left_out]
    keys = group_by.split(",") if group_by else None
    _check_keys([run.settings for run in runs], keys or [])
    trained = [run for run in runs if not run.is_evaluation]
    made = entries(trained, metric, group_by=keys)
    if metric == "acc":
        made = with_p_values(made)
    folder = output or places[0]
    _write(folder, made, runs, metric, left_out)
    _print(made, metric, left_out, folder)


def _filtered(runs: list[Run], filters: list[str]) -> list[Run]:
    """The runs that pass all filters."""
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--filter {text}: it must be KEY=VALUE, as data.batch_size=64")
        _check_keys([run.configuration for run in runs], [key])
        runs = [run for run in runs if _means(run.configuration.get(key), value)]
        if not runs:
            raise InputError(f"--filter {text}: no run has it")
    return runs


def _check_metric(runs: list[Run], metric: str) -> None:
    known = {name.partition("/")[2] for run in runs for name in run.metrics}
    if metric not in known:
        raise InputError(f"no run has the metric {metric}: choose from {', '.join(sorted(known))}")


def _means(value: object, text: str) -> bool:
    """Whether the text means this value: 1e-3 is 0.001, and true is True."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(text) == value
        except ValueError:
            return False
    return text in (str(value), json.dumps(value))


def _check_keys(settings: list[dict[str, Any]], keys: list[str]) -> None:
    known = {key for of_run in settings for key in of_run}
    for key in keys:
        if key not in known:
            near = sorted(name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]) or sorted(known)
            raise InputError(f"no run has the setting {key}: choose from {', '.join(near[:20])}")


def _write(folder: Path, made: list[Entry], runs: list[Run], metric: str, left_out: dict[Path, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"By kernel size": kernel_figure(made, metric), "Trained here, measured there": transfer_figure(runs)}
    for comparison, members in by_comparison(made).items():
        compared = [entry for entry in members if entry.complete] or members
        figures |= {
            f"Scores: {comparison}": bars_figure(compared),
            f"Cost: {comparison}": cost_figure(compared, metric),
            f"Learning curves, first seed: {comparison}": curves_figure(members),
        }
    drawn = {title: figure for title, figure in figures.items() if figure is not None}
    if kernels := drawn.get("By kernel size"):
        with replacing(folder / "kernel_size.png") as temporary:
            kernels.savefig(temporary, dpi=110)
    with replacing(folder / "leaderboard.csv") as temporary:
        table(made, metric).to_csv(temporary, index=False, float_format="%.6g")
    with replacing(folder / "leaderboard.md") as temporary:
        temporary.write_text(markdown(made, metric))
    with replacing(folder / "leaderboard.html") as temporary:
        temporary.write_text(page(made, metric, drawn, left_out))


def _print(made: list[Entry], metric: str, left_out: dict[Path, str], folder: Path) -> None:
    console = Console()
    for comparison, members in by_comparison(made).items():
        shown = Table("entry")
        for name in HEADER[1:TERMINAL_COLUMNS]:
            shown.add_column(name, justify="right")
        for entry in members:
            shown.add_row(*map(escape, cells(entry)[:TERMINAL_COLUMNS]))
        console.print(f"[bold]{escape(str(comparison))}: {metric}[/bold]", shown, sep="\n")
    for place, why in list(left_out.items())[:MOST_LINES]:
        console.print(f"[yellow]left out: {escape(str(place))} {escape(why)}[/yellow]", soft_wrap=True)
    if len(left_out) > MOST_LINES:
        console.print(f"[yellow]... and {len(left_out) - MOST_LINES} more: see leaderboard.html[/yellow]")
    console.print(
        f"Written to [bold]{escape(str(folder))}[/bold]: leaderboard.csv, leaderboard.md, leaderboard.html",
        soft_wrap=True,
    )


def run() -> None:
    """Entry point of the command."""
    run_command(main)


if __name__ == "__main__":
    run()
