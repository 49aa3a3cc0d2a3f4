"""Markdown's tables."""

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table whose first column is aligned left, as text, and the others right, as numbers."""
    return [_row(header), _row(["---"] + ["---:"] * (len(header) - 1)), *map(_row, rows)]


def _row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(text.replace('|', '/') for text in texts)} |"
