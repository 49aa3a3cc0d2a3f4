"""A part of a report: what is told, drawn and written down of one question."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Section:
    """One heading of the page, and what of it lies in files beside it.

    Attributes:
        key: Of its facts in report.json.
        title: Its heading.
        text: Sentences, a paragraph each.
        tables: Name of the csv -> rows, on the page too.
        data: Name of the csv -> rows, of what a picture shows.
        figures: Name of the PNG -> picture.
        facts: Plain data.
    """

    key: str
    title: str
    text: tuple[str, ...] = ()
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    data: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
