"""Building blocks of a self-contained HTML file."""

import base64
import html
import io
from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

STYLE = """
body { font-family: system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; line-height: 1.45;
  color-scheme: light dark }
.wide { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: .86rem; margin: .8rem 0 }
th, td { padding: .3rem .45rem; text-align: right; white-space: nowrap }
th { border-bottom: 2px solid; cursor: default }
th:first-child, td:first-child, .text { text-align: left } td:first-child { white-space: normal; min-width: 11rem }
tr:nth-child(even) td { background: rgb(128 128 128 / .1) }
img { max-width: 100%; background: white } figure { margin: 1.5rem 0 } .leaks { color: #b45309 }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: 1rem 0 } pre { white-space: pre-wrap }
"""


def document(title: str, body: str) -> str:
    """A whole page around `body`, which is HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain-text cells; a column without any number is aligned left."""
    classes = ["" if any(map(_has_number, column)) else ' class="text"' for column in zip(*rows, strict=True)]

    def line(tag: str, texts: Sequence[str]) -> str:
        cells = zip(texts, classes or [""] * len(texts), strict=True)
        return f"<tr>{''.join(f'<{tag}{kind}>{html.escape(text)}</{tag}>' for text, kind in cells)}</tr>"

    body = "".join(line("td", row) for row in rows)
    return f'<div class="wide"><table><thead>{line("th", header)}</thead><tbody>{body}</tbody></table></div>'


def picture(text: str, png: bytes, *, captioned: bool = True) -> str:
    """A PNG inside the page, under its caption; without a caption, the text is only for screen readers."""
    text, data = html.escape(text), base64.b64encode(png).decode()
    caption = f"<figcaption>{text}</figcaption>" if captioned else ""
    return f'<figure>{caption}<img alt="{text}" src="data:image/png;base64,{data}"></figure>'


def png(figure: Figure) -> bytes:
    """The figure as PNG; the figure is closed afterwards."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    plt.close(figure)
    return buffer.getvalue()


def _has_number(text: str) -> bool:
    return text[:1].isdigit() or text.startswith(("-", "+", "<"))
