"""Tables, pictures and marked words as HTML that a notebook shows by itself; whatever comes from data is escaped.

Works the same in Colab, JupyterLab and VS Code, light and dark, and in a saved page: nothing here needs a script.

    table(rows, "Labels by category", {"share, %": ".1f"})
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..llm.filters import bare
from .theme import pngs

_STYLE = (
    "<style>figure.sirius{margin:.4em 0}.sirius-scroll{overflow-x:auto;margin:.4em 0}"
    ".sirius figcaption{font-size:13px;font-weight:600}.sirius table{border-collapse:collapse;font-size:13px}"
    ".sirius th,.sirius td{padding:.3em .7em;text-align:left!important;vertical-align:top;"
    "border-bottom:1px solid rgba(127,127,127,.3)}.sirius th{white-space:normal}.sirius td{white-space:nowrap}"
    ".sirius td.num,.sirius th.num{text-align:right!important;font-variant-numeric:tabular-nums}"
    # On a phone the table scrolls: names in pieces and texts of a word a line are no reading.
    ".sirius td.long{white-space:normal;overflow-wrap:break-word;min-width:15em;max-width:38em}"
    ".sirius-text{font-size:13px;line-height:1.4}"
    ".sirius mark{background:rgba(230,159,0,.3);color:inherit}"
    ".sirius-note{font-size:12px;opacity:.75;margin:.4em 0}</style>"
)
# Which of a picture's two papers fits the page: Colab, JupyterLab (and nbconvert) and VS Code each say it their way,
# a plain page follows the system. Without styles the light one is shown.
_ON_DARK = ":is(html[theme=dark],body[data-jp-theme-light=false],body.vscode-dark)"
_UNSAID = "html:not([theme]) body:not([data-jp-theme-light]):not([class*=vscode])"
_SWITCH = "{0} .sirius-light{{display:none!important}}{0} .sirius-dark{{display:inline!important}}"
_THEMED = f"<style>{_SWITCH.format(_ON_DARK)}@media (prefers-color-scheme:dark){{{_SWITCH.format(_UNSAID)}}}</style>"
SHRINK = 0.72  # page pixels for each pixel of a picture: its letters are then as large as the page's
SMALLEST = 0.5  # on a phone: below it letters cannot be read, so the picture scrolls
LONG = 30  # characters of a text that needs a broad column
_FILES = {"light": "", "dark": "-dark"}  # theme -> how the name of its file in report/ ends
_CLASSES = "tex2jax_ignore mathjax_ignore"  # prices in dollars are no formulas


class Html:
    """Finished HTML that a notebook shows."""

    def __init__(self, html: str) -> None:
        self.html = html

    def _repr_html_(self) -> str:
        return self.html

    def __add__(self, other: Html) -> Html:
        return Html(self.html + other.html)


def table(rows: pd.DataFrame, caption: str = "", formats: dict[str, str] | None = None) -> Html:
    """A table with escaped text; `formats` maps a column to a format such as ".3f"."""
    formats = formats or {}
    kinds = ["num" if name in formats else _kind(rows[name]) for name in rows.columns]
    head = "".join(_cell("th", escape(str(name)), kind) for name, kind in zip(rows.columns, kinds, strict=True))
    body = "".join(
        "<tr>"
        + "".join(
            _cell("td", value.html if isinstance(value, Html) else escape(_text(value, formats.get(name))), kind)
            for name, value, kind in zip(rows.columns, row, kinds, strict=True)
        )
        + "</tr>"
        for row in rows.itertuples(index=False)
    )
    title = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""  # a <caption> would scroll with the table
    scrolled = f'<div class="sirius-scroll"><table><tr>{head}</tr>{body}</table></div>'
    return Html(f'{_STYLE}<figure class="sirius {_CLASSES}">{title}{scrolled}</figure>')


def facts(values: Mapping[str, object], caption: str = "") -> Html:
    """Names and values, a row each."""
    rows = [(name, value if isinstance(value, str) else repr(value)) for name, value in values.items()]
    return table(pd.DataFrame(rows, columns=["setting", "value"]), caption)


def picture(draw: Callable[..., Figure], *data: object, alt: str) -> Html:
    """What a styled function draws of the data, on light and on dark paper; the page shows the one that fits."""
    return _image(pngs(draw, *data), alt)


def shown(folder: Path, name: str, alt: str) -> Html:
    """A picture of the report, likewise; a report made before there were dark ones has the light one only."""
    files = {theme: folder / f"{name}{end}.png" for theme, end in _FILES.items()}
    return _image({theme: path.read_bytes() for theme, path in files.items() if path.exists()}, alt)


def note(text: str) -> Html:
    """A small line of plain text below something."""
    return Html(f'{_STYLE}<p class="sirius-note {_CLASSES}">{escape(text)}</p>')


def inside(piece: Html) -> Html:
    """A piece of HTML, such as a marked text, in the style of the tables."""
    return Html(f'{_STYLE}<div class="sirius sirius-text {_CLASSES}">{piece.html}</div>')


def marked(texts: pd.Series, others: pd.Series) -> list[Html]:
    """Texts with the words that the other text lacks in <mark>; everything escaped."""
    cells = []
    for text, other in zip(texts, others, strict=True):
        known = set(bare(other).split())
        parts = re.split(r"(\w+)", text)
        cells.append(
            Html(
                "".join(
                    f"<mark>{escape(part)}</mark>" if n % 2 and part.casefold() not in known else escape(part)
                    for n, part in enumerate(parts)
                )
            )
        )
    return cells


def _image(images: dict[str, bytes], alt: str) -> Html:
    """Tags of a picture, by theme; a single one is shown on every page."""
    tags = []
    for theme, data in images.items():
        marks = f' class="sirius-{theme}"' if len(images) > 1 else ""
        hidden = ";display:none" if theme == "dark" else ""
        pixels = int.from_bytes(data[16:20], "big")  # from the PNG's header
        width = f"width:{pixels * SHRINK:.0f}px;max-width:max(100%,{pixels * SMALLEST:.0f}px)"
        source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        tags.append(f'<img{marks} style="{width}{hidden}" alt="{escape(alt)}" src="{source}">')
    return Html(f'{_THEMED}{_STYLE}<div class="sirius-scroll">{"".join(tags)}</div>')


def _text(value: object, form: str | None) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return format(value, form) if form and not isinstance(value, str) else str(value)


def _kind(column: pd.Series) -> str:
    """The class of a column's cells: numbers, long texts, or neither."""
    if pd.api.types.is_numeric_dtype(column):
        return "num"
    sizes = [len(value.html if isinstance(value, Html) else str(value)) for value in column]
    return "long" if max(sizes, default=0) > LONG else ""


def _cell(tag: str, html: str, kind: str) -> str:
    return f'<{tag} class="{kind}">{html}</{tag}>' if kind else f"<{tag}>{html}</{tag}>"
