"""Drop-downs to correct labels inside the notebook; without ipywidgets, the words for a plain call.

Works in Colab, JupyterLab and VS Code. A choice is written to `corrections.csv` at once.

    drop_downs(settings, labels.head(8))
"""

from __future__ import annotations

import importlib.util
from html import escape
from typing import TYPE_CHECKING

import pandas as pd

from .categories import labels_of, read_categories
from .corrections import FILE, correct, read_corrections
from .errors import UserError
from .hypertext import Html, note
from .kinds import JsonView
from .runs import Run
from .settings import Settings
from .tables import records_of

if TYPE_CHECKING:
    from ipywidgets import HBox, VBox

PLAIN = (
    'Drop-downs need the package ipywidgets. Without it, correct a label in a cell: correct(settings, "its id", '
    '"the right category"), after from sirius_helpers.corrections import correct.'
)


def drop_downs(settings: Settings, rows: pd.DataFrame) -> VBox | Html:
    """A widget with a line for each row: its text and a drop-down of the categories, set to what holds now.

    `rows` have id, text, category and, where known, probabilities (a dictionary), which then stand beside the names.
    """
    if importlib.util.find_spec("ipywidgets") is None or rows.empty:
        return note(PLAIN) if len(rows) else Html("<p>There is nothing to correct.</p>")
    from ipywidgets import VBox

    labels = labels_of(read_categories(settings.data))
    given = read_corrections(Run(settings.folder).path(FILE))
    return VBox([_line(row, labels, given, settings) for row in records_of(rows)])


def _line(row: JsonView, labels: list[str], given: dict[str, str], settings: Settings) -> HBox:
    from ipywidgets import HTML, Dropdown, HBox, Label, Layout

    chances = row.get("probabilities") or {}
    options = [(f"{name}  {chances[name]:.2f}" if name in chances else name, name) for name in labels]
    options.sort(key=lambda option: -chances.get(option[1], 0))
    now = given.get(row["id"], given.get(row["text"], row["category"]))
    choice = Dropdown(options=options, value=now, layout=Layout(width="18em", flex="0 0 auto"))
    said = Label(layout=Layout(width="12em", flex="0 0 auto"))

    def keep(change: JsonView) -> None:
        try:
            correct(settings, row["id"], change["new"])
            said.value = f"kept in {FILE}"
        except UserError as error:  # an exception in a widget's answer is shown nowhere
            said.value = f"Error: {error}"

    choice.observe(keep, names="value")
    text = HTML(escape(row["text"]), layout=Layout(flex="1 1 auto"))
    return HBox([choice, said, text], layout=Layout(align_items="center", flex_flow="row wrap"))
