"""Drop-downs to correct labels and buttons to reject synthetic reviews; without ipywidgets, the words for a plain call.

Works in Colab, JupyterLab and VS Code. A choice is kept at once, in `corrections.csv` or `rejected.jsonl`.

    drop_downs(settings, labels.head(8))
    reject_buttons(settings, synthetic.head(8))
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING

import pandas as pd

from ..augment import keep, reject
from ..errors import UserError
from ..files.categories import labels_of, read_categories
from ..files.reviews import CORRECTIONS
from ..files.tables import records_of
from ..kinds import JsonView
from ..review import correct, corrected
from ..settings import Settings
from .html import Html, inside, marked, note
from .tables import NO_MARGINS, pairs

if TYPE_CHECKING:
    from ipywidgets import Button, Dropdown, HBox, Label, VBox

PLAIN = (
    'Drop-downs need the package ipywidgets. Without it, correct a label in a cell: correct(settings, "its id", '
    '"the right category"), after from sirius_helpers.review import correct.'
)
PLAIN_REJECT = (
    "Buttons need the package ipywidgets. Without it, reject a synthetic review in a cell: "
    'reject(settings, "its id"), after from sirius_helpers.augment import reject.'
)


def drop_downs(settings: Settings, rows: pd.DataFrame) -> VBox | Html:
    """A widget with a line for each row: its text and a drop-down of the categories, set to what holds now.

    `rows` have id, text, category and, where known, probabilities (a dictionary), which then stand beside the names.
    """
    if rows.empty:
        return Html(f"<p>There is nothing to correct here. {NO_MARGINS}</p>")
    if not _has_widgets():
        return note(PLAIN)
    from ipywidgets import VBox

    labels, given = labels_of(read_categories(settings.data)), corrected(settings)
    rows = rows.assign(category=[given.get(*row) for row in zip(rows["id"], rows["category"], strict=True)])
    return VBox([_label_line(row, labels, settings) for row in records_of(rows)])


def reject_buttons(settings: Settings, rows: pd.DataFrame) -> VBox | Html:
    """A widget with a line for each synthetic review: both texts, and a button that rejects it, or keeps it after all.

    `rows` have id, category, original and text, and what `display.pairs` shows beside them.
    """
    if rows.empty:
        return Html("<p>There is nothing to reject.</p>")
    if not _has_widgets():
        return pairs(rows, n=len(rows)) + note(PLAIN_REJECT)
    from ipywidgets import VBox

    texts = zip(marked(rows["original"], rows["text"]), marked(rows["text"], rows["original"]), strict=True)
    return VBox([_pair_line(*line, settings) for line in zip(records_of(rows), texts, strict=True)])


def _label_line(row: JsonView, labels: list[str], settings: Settings) -> HBox:
    from ipywidgets import Dropdown, Layout

    chances = row.get("probabilities") or {}
    options = [(f"{name}  {chances[name]:.2f}" if name in chances else name, name) for name in labels]
    options.sort(key=lambda option: -chances.get(option[1], 0))
    now = row["category"] if row["category"] in labels else None  # a category that was taken off the list since
    choice = Dropdown(options=options, value=now, layout=Layout(width="18em", flex="0 0 auto"))
    said = _said()

    def keep(change: JsonView) -> None:
        _try(lambda: correct(settings, row["id"], change["new"]), said, f"kept in {CORRECTIONS}")

    choice.observe(keep, names="value")
    return _line(choice, said, inside(Html(escape(row["text"]))))


def _pair_line(row: JsonView, texts: tuple[Html, Html], settings: Settings) -> HBox:
    from ipywidgets import Button, Layout

    button = Button(description="reject", tooltip=row["id"], layout=Layout(width="7em", flex="0 0 auto"))
    said = _said()

    def choose(_: Button) -> None:
        if button.description == "reject":
            act, done, other = reject, "rejected", "keep"
        else:
            act, done, other = keep, "kept", "reject"
        if _try(lambda: act(settings, row["id"]), said, done):
            button.description = other

    button.on_click(choose)
    original, text = texts
    return _line(button, said, inside(Html(f"{escape(row['category'])}: {original.html}<br>→ {text.html}")))


def _line(control: Button | Dropdown, said: Label, text: Html) -> HBox:
    from ipywidgets import HTML, HBox, Layout

    shown = HTML(text.html, layout=Layout(flex="0 1 38em", min_width="15em"))  # on a phone it goes below the control
    return HBox([control, shown, said], layout=Layout(align_items="center", flex_flow="row wrap", margin="0 0 6px"))


def _said() -> Label:
    """Where a line says what came of it; it takes no room until then."""
    from ipywidgets import Label, Layout

    return Label(layout=Layout(display="none"))


def _try(act: Callable[[], object], said: Label, done: str) -> bool:
    """Act, and say what came of it: an exception in a widget's answer would be shown nowhere."""
    said.layout.display = None
    try:
        act()
    except UserError as error:
        said.value = f"Error: {error}"
        return False
    said.value = done
    return True


def _has_widgets() -> bool:
    return importlib.util.find_spec("ipywidgets") is not None
