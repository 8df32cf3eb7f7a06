"""Drop-downs to correct labels and buttons to reject synthetic reviews; a choice is kept at once.

drop_downs(settings, labels.head(8))
"""

from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from typing import Any, TypeAlias

import pandas as pd

from ..errors import UserError
from ..files.categories import labels_of, read_categories
from ..files.reviews import CORRECTIONS, correct, correct_new, corrected, read_labels
from ..files.runs import Run
from ..files.tables import records_of
from ..kinds import JsonView
from ..review import contradicted, opinions, review
from ..settings import Settings
from .html import Html, note, text_block
from .tables import NO_MARGINS, least_certain_rows, marked, pairs

try:
    import ipywidgets
except ImportError:
    ipywidgets = None

Widget: TypeAlias = Any  # one of ipywidgets, which may not be there
PLAIN = "This needs the package ipywidgets. Without it, call in a cell {}, after from sirius_helpers.{}."


def correct_labels(settings: Settings, right: Mapping[str, str], n: int) -> Widget | Html | None:
    """Corrections by id; then drop-downs for `n` labels: the contradicted ones, then the least certain."""
    correct_new(settings, right)
    if not n:
        return None
    labels = read_labels(Run(settings.folder))
    against = contradicted(opinions(settings), review(settings))
    rows = pd.concat([labels[labels["id"].isin(against)], least_certain_rows(labels, n)])
    return drop_downs(settings, rows.drop_duplicates("id").head(n))


def drop_downs(settings: Settings, rows: pd.DataFrame) -> Widget | Html:
    """A drop-down of categories, set to a person's choice so far, and the text for each row (id, text, category)."""
    if rows.empty:
        return Html(f"<p>There is nothing to correct here. {NO_MARGINS}</p>")
    if ipywidgets is None:
        call = 'correct(settings, "its id", "the right category")'
        return note(PLAIN.format(call, "files.reviews import correct"))
    labels, given = labels_of(read_categories(settings.data)), corrected(settings)

    def line(row: JsonView) -> Widget:
        chances, chosen = row.get("probabilities") or {}, given.get(row["id"])
        options = [(f"{name}  {chances[name]:.2f}" if name in chances else name, name) for name in labels]
        options = [(f"{shown} (now)" if name == row["category"] else shown, name) for shown, name in options]
        options.sort(key=lambda option: -chances.get(option[1], 0))
        choice = ipywidgets.Dropdown(
            options=options,
            value=chosen if chosen in labels else None,  # a category may have been taken off the list since
            layout={"width": "18em", "flex": "0 0 auto"},
        )
        box, attempt = _line(choice, escape(row["text"]))

        def choose(change: JsonView) -> None:
            attempt(partial(correct, settings, row["id"], change["new"]), f"kept in {CORRECTIONS}")

        choice.observe(choose, names="value")
        return box

    return ipywidgets.VBox(list(map(line, records_of(rows))))


def reject_buttons(
    settings: Settings, rows: pd.DataFrame, reject: Callable[..., object], keep: Callable[..., object]
) -> Widget | Html:
    """A line for each synthetic review: a button that rejects it, or keeps it after all, and both texts."""
    if rows.empty:
        return Html("<p>There is nothing to reject.</p>")
    if ipywidgets is None:
        return pairs(rows, n=len(rows)) + note(PLAIN.format('reject(settings, "its id")', "augment import reject"))
    choices = {"reject": (reject, "rejected", "keep"), "keep": (keep, "kept", "reject")}

    def line(row: JsonView, original: Html, text: Html) -> Widget:
        button = ipywidgets.Button(description="reject", tooltip=row["id"], layout={"width": "7em", "flex": "0 0 auto"})
        box, attempt = _line(button, f"{escape(row['category'])}: {original.html}<br>→ {text.html}")

        def choose(_: Widget) -> None:
            act, done, other = choices[button.description]
            if attempt(partial(act, settings, row["id"]), done):
                button.description = other

        button.on_click(choose)
        return box

    texts = marked(rows["original"], rows["text"]), marked(rows["text"], rows["original"])
    return ipywidgets.VBox(list(map(line, records_of(rows), *texts)))


def _line(control: Widget, html: str) -> tuple[Widget, Callable[[Callable[[], object], str], bool]]:
    """A control, the text beside it and room for an outcome; and a function that acts and shows it, errors too."""
    text = ipywidgets.HTML(text_block(Html(html)).html, layout={"flex": "0 1 38em", "min_width": "15em"})
    said = ipywidgets.Label(layout={"display": "none"})  # takes no room until something is said

    def attempt(act: Callable[[], object], done: str) -> bool:
        try:
            act()
            said.value = done
        except UserError as error:
            said.value = f"Error: {error}"
        said.layout.display = None
        return bool(said.value == done)

    row = {"align_items": "center", "flex_flow": "row wrap", "margin": "0 0 6px"}  # on a phone one below the other
    return ipywidgets.HBox([control, text, said], layout=row), attempt
