"""A report as one self-contained HTML file, and as the separate files of its contents."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fer_lightning.atomic import replacing
from fer_lightning.evaluation.scores import Score
from fer_lightning.evaluation.section import Section
from fer_lightning.text import html_page

LONGEST = 15  # rows of a table on the page; the csv has all rows
SCHEMA_VERSION = 1


def write_report(
    folder: Path,
    title: str,
    introduction: Sequence[str],
    sections: Sequence[Section],
    facts: Mapping[str, Any],
    card: str | None,
) -> None:
    """Write index.html, report.json, model_card.md, and each section's tables as csv and pictures as PNG.

    Args:
        folder: Folder of the report; created if it does not exist.
        title: Title of the page.
        introduction: Paragraphs above the sections.
        sections: Sections, in order.
        facts: Further content of report.json, in addition to the sections' facts.
        card: The model card as Markdown; None for no card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    body = [f"<h1>{html.escape(title)}</h1>", *map(_paragraph, introduction), _contents(sections)]
    for section in sections:
        body += _write_section(folder, section)
    if card is not None:
        body.append(f'<h2 id="card">Model card</h2><pre>{html.escape(card)}</pre>')
        with replacing(folder / "model_card.md") as temporary:
            temporary.write_text(card)
    everything = {"schema_version": SCHEMA_VERSION, "title": title, **facts} | {
        section.key: section.facts for section in sections if section.facts
    }
    for name, text in (
        ("report.json", json.dumps(everything, indent=2, allow_nan=False, default=_plain) + "\n"),
        ("index.html", html_page.document(title, "\n".join(body))),
    ):
        with replacing(folder / name) as temporary:
            temporary.write_text(text)


def _write_section(folder: Path, section: Section) -> list[str]:
    """Write a section's tables and pictures, and return its part of the page."""
    body = [f'<h2 id="{section.key}">{html.escape(section.title)}</h2>', *map(_paragraph, section.text)]
    for name, table in (section.tables | section.data).items():
        with replacing(folder / f"{name}.csv") as temporary:
            _numbers(table).to_csv(temporary, index=False, float_format="%.6g")
    for name, table in section.tables.items():
        body.append(html_page.table([str(column) for column in table.columns], _cells(table[:LONGEST])))
        if len(table) > LONGEST:
            body.append(_paragraph(f"The first {LONGEST} of {len(table):,}; all are in {name}.csv."))
    for name, figure in section.figures.items():
        data = html_page.png(figure)
        with replacing(folder / f"{name}.png") as temporary:
            temporary.write_bytes(data)
        body.append(html_page.picture(name.replace("_", " "), data, captioned=False))
    return body


def _contents(sections: Sequence[Section]) -> str:
    links = [f'<a href="#{section.key}">{html.escape(section.title)}</a>' for section in sections]
    return f"<nav>{''.join(links)}</nav>"


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _cells(table: pd.DataFrame) -> list[list[str]]:
    return [[_text(value) for value in row] for row in table.itertuples(index=False, name=None)]


def _numbers(table: pd.DataFrame) -> pd.DataFrame:
    """The table with each column of scores split into three: the value and the limits of its interval."""
    columns: dict[str, Any] = {}
    for name, column in table.items():
        if len(column) and isinstance(column.iloc[0], Score):
            values = zip(*column, strict=True)
            columns |= {f"{name}{end}": part for end, part in zip(("", "_low", "_high"), values, strict=True)}
        else:
            columns[str(name)] = column
    return pd.DataFrame(columns)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if value != value else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _plain(value: object) -> object:
    """NumPy numbers and arrays as plain numbers and lists for JSON."""
    return value.tolist()
