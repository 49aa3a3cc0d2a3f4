"""A leaderboard as Markdown and as one self-contained HTML file."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from fer_lightning import html_page
from fer_lightning.durations import in_words
from fer_lightning.leaderboard.entries import MOST_TESTED, RESAMPLES, Entry, hardware
from fer_lightning.leaderboard.runs import Comparison
from fer_lightning.markdown import markdown_table

HEADER = (
    "entry",
    "runs",
    "mean",
    "± 95 %",
    "std",
    "p against the best",
    "parameters",
    "multiply-adds",
    "epochs",
    "training",
    "epoch chosen by",
    "hardware",
)
NOTE = (
    "Mean over seeds; the folds of a seed are pooled first, accuracy by their images and scores of classes by all "
    "their predictions. std is over the seeds, or over the folds of a single one; ± is the 95 % interval of the mean "
    "over seeds (Student's t). p, of accuracy only: a paired bootstrap over the same test images, or over the people "
    "in them where they are known, against the best of the table. These images chose the best, so p is corrected for "
    f"the number of pairs (Bonferroni), and no smaller than 2 in {RESAMPLES:,} times that number; it is empty where "
    f"seeds or images differ, and after {MOST_TESTED} others. Training times of different hardware do not compare, and "
    "some include pauses or other work. Tables are never to be compared with each other."
)


def cells(entry: Entry) -> list[str]:
    """One row, in the order of `HEADER`."""
    facts = entry.runs[0].facts
    seconds = [run.facts["train_seconds"] for run in entry.runs if "train_seconds" in run.facts]
    return [
        entry.label,
        entry.repetitions,
        f"{entry.mean:.4f}",
        "" if entry.interval is None else f"{entry.interval:.4f}",
        "" if entry.std is None else f"{entry.std:.4f}",
        "" if entry.p_value is None else ("< 0.001" if entry.p_value < 0.001 else f"{entry.p_value:.3f}"),
        f"{facts['parameters']:,}" if facts.get("parameters") else "",
        f"{facts['multiply_adds'] / 1e6:,.1f} M" if facts.get("multiply_adds") else "",
        str(facts.get("epochs") or ""),
        in_words(sum(seconds) / len(seconds)) if seconds else "",
        str(facts.get("selection") or "").removeprefix("best epoch by ").removeprefix("nothing is chosen: "),
        hardware(entry),
    ]


def by_comparison(entries: Sequence[Entry]) -> dict[Comparison, list[Entry]]:
    """The entries of each table, in order."""
    result: dict[Comparison, list[Entry]] = {}
    for entry in entries:
        result.setdefault(entry.comparison, []).append(entry)
    return result


def markdown(entries: Sequence[Entry], metric: str) -> str:
    """One table for each comparison."""
    lines = ["# Leaderboard", "", NOTE, ""]
    for comparison, members in by_comparison(entries).items():
        lines += [f"## {comparison}: {metric}", "", *markdown_table(HEADER, map(cells, members)), ""]
    return "\n".join(lines)


def page(entries: Sequence[Entry], metric: str, figures: Mapping[str, Figure], unreadable: Mapping[Path, str]) -> str:
    """The whole page, including pictures."""
    parts = ["<h1>Leaderboard</h1>", f"<p>{html.escape(NOTE)}</p>"]
    for comparison, members in by_comparison(entries).items():
        leaks = ' <span class="leaks">near-copies may cross this split</span>' if comparison.leaks else ""
        parts.append(f"<h2>{html.escape(str(comparison))}: {html.escape(metric)}{leaks}</h2>")
        parts.append(html_page.table(HEADER, [cells(entry) for entry in members]))
    parts += [html_page.picture(title, html_page.png(figure)) for title, figure in figures.items()]
    if unreadable:
        items = "".join(f"<li>{html.escape(f'{folder}: {why}')}</li>" for folder, why in unreadable.items())
        parts.append(f"<h2>Left out</h2><ul>{items}</ul>")
    return html_page.document("Leaderboard", "\n".join(parts))
