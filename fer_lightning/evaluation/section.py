"""A section of a report: text, tables and pictures on one question."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section of the page, with the tables and pictures that are also written as files.

    Attributes:
        key: Key of its facts in report.json.
        title: Heading.
        text: Paragraphs.
        tables: Name of the csv -> rows, also shown on the page.
        data: Name of the csv -> rows, with the data behind a picture.
        figures: Name of the PNG -> picture.
        facts: Plain data for report.json.
    """

    key: str
    title: str
    text: tuple[str, ...] = ()
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    data: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
