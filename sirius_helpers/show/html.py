"""Tables, pictures and notes as HTML that a notebook or a saved page shows without scripts; all data are escaped.

table(rows, "Labels by category", {"share, %": ".1f"})
"""

import base64
from collections.abc import Mapping
from html import escape

import pandas as pd
from matplotlib.figure import Figure

from ..files.runs import Run
from .pictures import png

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
LONG = 30  # characters of a text that needs a broad column
_CLASSES = "tex2jax_ignore mathjax_ignore"  # prices in dollars are no formulas


class Html:
    """Finished HTML that a notebook shows."""

    def __init__(self, html: str) -> None:
        self.html = html

    def _repr_html_(self) -> str:
        return self.html

    def __add__(self, other: "Html") -> "Html":
        return Html(self.html + other.html)


def table(rows: pd.DataFrame, caption: str = "", formats: Mapping[str, str] | None = None) -> Html:
    """A table with escaped text; `formats` maps a column to a format such as ".3f"."""
    columns = []
    for name, values in rows.items():
        form = (formats or {}).get(str(name))
        cells = [value.html if isinstance(value, Html) else escape(_text(value, form)) for value in values]
        number = form is not None or pd.api.types.is_numeric_dtype(values)
        kind = "num" if number else "long" if max(map(len, cells), default=0) > LONG else ""
        attribute = f' class="{kind}"' if kind else ""
        columns.append([f"<th{attribute}>{escape(str(name))}</th>", *(f"<td{attribute}>{cell}</td>" for cell in cells)])
    body = "".join(f"<tr>{''.join(line)}</tr>" for line in zip(*columns, strict=True))
    title = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""  # a <caption> would scroll with the table
    scrolled = f'<div class="sirius-scroll"><table>{body}</table></div>'
    return Html(f'{_STYLE}<figure class="sirius {_CLASSES}">{title}{scrolled}</figure>')


def facts(values: Mapping[str, object], caption: str = "") -> Html:
    """Names and values, a row each."""
    return table(pd.DataFrame({"setting": list(values), "value": list(map(str, values.values()))}), caption)


def picture(figure: Figure | bytes, alt: str) -> Html:
    """A figure, or a PNG file's content."""
    data = figure if isinstance(figure, bytes) else png(figure)
    pixels = int.from_bytes(data[16:20], "big")  # the width, from the PNG's header
    # Letters as large as the page's; on a phone not below half, where they cannot be read: the picture scrolls.
    width = f"width:{pixels * 0.72:.0f}px;max-width:max(100%,{pixels * 0.5:.0f}px)"
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return Html(f'{_STYLE}<div class="sirius-scroll"><img style="{width}" alt="{escape(alt)}" src="{source}"></div>')


def report_picture(run: Run, name: str, alt: str) -> Html:
    """A picture of the evaluation's report, by its name without ".png"."""
    return picture((run.need("report") / f"{name}.png").read_bytes(), alt)


def note(text: str) -> Html:
    """A small line of plain text below something."""
    return Html(f'{_STYLE}<p class="sirius-note {_CLASSES}">{escape(text)}</p>')


def text_block(piece: Html) -> Html:
    """A piece of HTML, such as a marked text, in the style of the tables."""
    return Html(f'{_STYLE}<div class="sirius sirius-text {_CLASSES}">{piece.html}</div>')


def _text(value: object, form: str | None) -> str:
    if value is None or (isinstance(value, float) and value != value):  # NaN
        return ""
    return format(value, form) if form and not isinstance(value, str) else str(value)
