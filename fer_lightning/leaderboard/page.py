"""A leaderboard as Markdown and as one self-contained HTML file."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from fer_lightning.leaderboard.columns import HEADER, cells
from fer_lightning.leaderboard.entries import Entry, by_comparison
from fer_lightning.leaderboard.significance import MOST_TESTED
from fer_lightning.text import html_page
from fer_lightning.text.markdown import markdown_table

NOTE = (
    "Mean over seeds and splits; the folds of a seed are pooled first, accuracy by their images and scores of classes "
    "by all their predictions. std is over the seeds and splits, or over the folds of a single one; ± is the 95 % "
    "interval of the mean over seeds (Student's t), where all have the same split. Entries that lack folds, or random "
    "splits that others were measured on, stand last. "
    "p, of accuracy only: against the best of the table, on the same test images, how often a difference as large "
    "would come about if each image's (where they are known, each person's) had its sign by chance (exact; for two "
    "networks McNemar's test). It is about these trained networks on other images, not about another training of them. "
    "These images chose the best, so p is multiplied by the table's number of pairs (Bonferroni). It is empty where "
    f"the images differ, and after {MOST_TESTED} others. Training times of different hardware do not compare, and some "
    "include pauses or other work. Tables are never to be compared with each other."
)


def markdown(entries: Sequence[Entry], metric: str) -> str:
    """One table for each comparison."""
    lines = ["# Leaderboard", "", NOTE, ""]
    for comparison, members in by_comparison(entries).items():
        lines += [f"## {comparison}: {metric}", "", *markdown_table(HEADER, map(cells, members)), ""]
    return "\n".join(lines)


def page(entries: Sequence[Entry], metric: str, figures: Mapping[str, Figure], left_out: Mapping[Path, str]) -> str:
    """The whole page, including pictures."""
    parts = ["<h1>Leaderboard</h1>", f"<p>{html.escape(NOTE)}</p>"]
    for comparison, members in by_comparison(entries).items():
        leaks = ' <span class="leaks">near-copies may cross this split</span>' if comparison.leaks else ""
        parts.append(f"<h2>{html.escape(str(comparison))}: {html.escape(metric)}{leaks}</h2>")
        parts.append(html_page.table(HEADER, [cells(entry) for entry in members]))
    parts += [html_page.picture(title, html_page.png(figure)) for title, figure in figures.items()]
    if left_out:
        items = "".join(f"<li>{html.escape(f'{folder}: {why}')}</li>" for folder, why in left_out.items())
        parts.append(f"<h2>Left out</h2><ul>{items}</ul>")
    return html_page.document("Leaderboard", "\n".join(parts))
