"""Hostile texts in everything the notebook shows, and a browser that says whether any of it ran.

    python tests/browser/hostile.py    # needs chromium or google-chrome on the PATH; exit code 1 when something ran

A notebook with a cell for each of `SHOWN` is executed, exported to HTML and opened. A page with the same texts
unescaped comes first: there the browser must report that they ran.
"""

import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path
from unittest.mock import patch

import nbformat
import pandas as pd
from chrome import Page, chromium
from matplotlib.figure import Figure

from sirius_helpers.encoder.scores import ORIGINAL
from sirius_helpers.files.reviews import BY_HAND
from sirius_helpers.files.runs import Run
from sirius_helpers.settings import ModelSpec, Settings, settings_for
from sirius_helpers.show import evidence, html, tables

# Each sets an attribute of the page when it runs: data-ran-0, data-ran-1, …
_RUN = "document.documentElement.setAttribute('data-ran-{}',1)"
_WAYS = (
    "<script>{}</script>",
    '<img src=x onerror="{}">',
    "<svg onload={}>",
    "</td></tr></table></div><script>{}</script>",
    '" autofocus onfocus="{}" x="',
    '<iframe srcdoc="<script>parent.{}</script>"></iframe>',
    "<details open ontoggle={}>",
    "<style>@keyframes a{{}}*{{animation:a 1s}}</style><b onanimationstart={}>",
    "--><script>{}</script><!--",
    "]]></script><script>{}</script>",
    '<a href="javascript:{}">цена $5, потом $7</a>',
    "&lt;script&gt;{}&lt;/script&gt;",
)
HOSTILE = [way.format(_RUN.format(n)) for n, way in enumerate(_WAYS)]


def _rows() -> pd.DataFrame:
    """A row for each hostile text, with every column that a display reads; texts stand in all of them."""
    names = ("id", "text", "original", "category", "reason", "suggested", "labeler", "part")
    rows = pd.DataFrame(dict.fromkeys(names, HOSTILE))
    probabilities = [{text: 0.6, text + " ": 0.4} for text in HOSTILE]
    return rows.assign(p_yes=0.5, attempt=0, margin=0.1, probabilities=probabilities, synthetic=False, confidence=0.5)


def _scored() -> dict:
    interval = {"value": 0.5, "low": 0.4, "high": 0.6}
    found = dict.fromkeys(("weighted_f1", "macro_f1", "accuracy"), interval) | {"rows": 3}
    return found | {"per_class": {text: {"rows": 3, "f1": 0.5, "low": 0.4, "high": 0.6} for text in HOSTILE}}


ROWS, VIEWS = _rows(), {text: {text: _scored()} for text in HOSTILE}
MODELS = {"adapter": _scored(), "baseline": _scored()}
CALIBRATION = {"error_before": 0.2, "error_after": 0.1, "temperature": 0.7, "rows": 50}
COVERAGE = [{"threshold": 0.7, "rows": 30, "coverage": 0.6, "accuracy": 0.9, "low": 0.7, "high": 0.9}]
JUDGED = pd.DataFrame({"is_review": [True, False], "p_yes": 0.5})
INPUTS = pd.DataFrame({"file": ["train.csv", "test.csv"], "rows": 1})
LEAKS = dict.fromkeys(("held_out", "source_in_training", "near_duplicate_in_training", "either"), 1)


class HostileRun(Run):
    """A run whose folder and files have hostile names."""

    def __init__(self) -> None:
        super().__init__(Path(HOSTILE[0]) / HOSTILE[3])

    @property
    def memory(self) -> dict:
        entry = {"seconds": 1.0, "finished": HOSTILE[0], "peak_memory": 1.0, "files": dict.fromkeys(HOSTILE)}
        return {"stages": dict.fromkeys(HOSTILE, entry)}


def hostile_settings() -> Settings:
    models = [ModelSpec(text) for text in HOSTILE[:3]]
    settings = settings_for("cpu", **dict(zip(("labeler", "writer", "classifier"), models, strict=True)))
    return replace(settings, profile_reason=HOSTILE[4])


def hostile_facts() -> html.Html:
    with patch.object(evidence, "hub_models", lambda settings: dict.fromkeys(HOSTILE, HOSTILE[0])):  # no hub has them
        return evidence.this_run(hostile_settings(), HostileRun())


SHOWN: dict[str, Callable[[], html.Html]] = {
    "table": lambda: html.table(ROWS.rename(columns={"id": HOSTILE[0]}), "".join(HOSTILE)),
    "facts": lambda: html.facts({text: text for text in HOSTILE} | {"list": HOSTILE}, HOSTILE[1]),
    "note": lambda: html.note("".join(HOSTILE)),
    "picture": lambda: html.picture(Figure(), alt="".join(HOSTILE)),
    "class_counts": lambda: tables.class_counts(ROWS["category"], HOSTILE[0]),
    "least_certain": lambda: tables.least_certain(ROWS, n=99),
    "rare": lambda: tables.rare(
        ROWS.assign(probability=0.5, other=HOSTILE, nearest=HOSTILE, phrase=HOSTILE), ROWS.assign(labeler=BY_HAND)
    ),
    "corrected": lambda: tables.corrected(ROWS.assign(labeler=BY_HAND)),
    "quotas": lambda: tables.quotas(ROWS, [], ROWS, ROWS),
    "refusals": lambda: tables.refusals(ROWS),
    "judge": lambda: tables.judge(JUDGED, draws=2),
    "pairs": lambda: (
        tables.pairs(ROWS.assign(original=HOSTILE[::-1]), n=99) + tables.pairs(ROWS.drop(columns="reason"), n=99)
    ),
    "likeness": lambda: tables.likeness(ROWS, ROWS),
    "parts": lambda: tables.parts(ROWS.assign(part="train")),
    "leaks": lambda: tables.leaks(LEAKS),
    "scores": lambda: tables.scores({"scores": VIEWS, "by_leak": VIEWS}),
    "per_class": lambda: tables.per_class({"scores": {ORIGINAL: MODELS}}),
    "coverage": lambda: tables.coverage({"calibration": CALIBRATION, "coverage": COVERAGE}),
    "training": lambda: tables.training(pd.DataFrame({"epoch": [1.0], HOSTILE[0]: [0.5], "kept": [True]})),
    "worst": lambda: tables.worst(ROWS, HOSTILE[0], n=99),
    "this_run": hostile_facts,
    "stage": lambda: evidence.stage(HostileRun(), HOSTILE[0]),
    "stage_times": lambda: evidence.stage_times(HostileRun(), INPUTS),
}
# Beside the displays: what a cell prints, a bare table, and an error's message.
OTHERS = {"print": "print(*HOSTILE)", "table of pandas": "ROWS", "error": "raise UserError(HOSTILE[0] + HOSTILE[1])"}


def main() -> int:
    """Says of both pages what ran; 1 when it is anything on the notebook's, or nothing on the other."""
    with tempfile.TemporaryDirectory() as folder:
        bare, shown = Path(folder, "bare.html"), Path(folder, "notebook.html")
        bare.write_text("<meta charset=utf-8><table><tr><td>" + "</td><td>".join(HOSTILE), encoding="utf-8")
        shown.write_text(executed_page(), encoding="utf-8")
        with chromium() as page:
            unescaped, dom = ran(opened(page, bare)), opened(page, shown)
        notebook, texts = ran(dom), dom.count(escape(HOSTILE[0], quote=False))
    print(f"unescaped: {len(unescaped)} of {len(HOSTILE)} ways ran ({', '.join(unescaped)})")
    print(f"notebook: {len(notebook)} ran; the first text is shown {texts} times as text, in {len(SHOWN)} displays")
    return int(bool(notebook) or not unescaped or not texts)


def executed_page() -> str:
    """The HTML of an executed notebook that shows everything."""
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter

    from sirius_helpers.__main__ import socket_files

    codes = [f"SHOWN[{name!r}]()" for name in SHOWN] + list(OTHERS.values())
    start = "from hostile import HOSTILE, ROWS, SHOWN\nfrom sirius_helpers.errors import UserError"
    cells = [nbformat.v4.new_code_cell(code) for code in (start, *codes)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    here = {"metadata": {"path": str(Path(__file__).parent)}}
    with socket_files() as config:
        NotebookClient(notebook, kernel_name="python3", resources=here, allow_errors=True, config=config).execute()
    failed = [cell.source for cell in notebook.cells[:-1] for output in cell.outputs if output.output_type == "error"]
    assert not failed, failed
    return HTMLExporter().from_notebook_node(notebook)[0]


def opened(page: Page, path: Path) -> str:
    """The page as it stands after it was loaded and its scripts had five seconds."""
    page.open(path.as_uri())
    time.sleep(5)
    return page.run("document.documentElement.outerHTML")


def ran(dom: str) -> list[str]:
    """Numbers of the texts that ran."""
    opening = re.search(r"<html[^>]*>", dom)
    return re.findall(r"data-ran-(\d+)", opening[0]) if opening else []


if __name__ == "__main__":
    sys.exit(main())
