"""The notebook on tiny random models: all of it once, then each stage alone, each in an interpreter of its own.

Prints a JSON line a stage: the files it changed, its problem if it had one, what its cells showed. Everything heavy is
imported once; each interpreter is a fork of this process, which itself runs no cell and computes nothing. One stage is
rerun in a Jupyter kernel instead.

    cd tests; python -m soak.reruns
"""

import ast
import csv
import json
import re
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from soak.lives import DONE, in_fork, save_models, settings_on, write_data

from sirius_helpers.__main__ import socket_files
from sirius_helpers.files.runs import digest
from sirius_helpers.settings import PROJECT, Settings
from sirius_helpers.show import evidence, forms, tables, widgets  # noqa: F401  imported once

NOTEBOOK = PROJECT / "notebooks" / "sirius_pipeline.ipynb"
HEADING = re.compile(r"^##+ (.*)", re.MULTILINE)
# Each stage's section, and a change of its own that gives it something to do.
STAGES = {
    "label": ("1. Label", {"max_review_chars": 9}),
    "review": ("1b. Review", {}),
    "augment": ("2. Augment", {"max_synthetic": 8}),
    "split": ("3. Split", {"test_share": 0.3}),
    "train": ("4. Train", {"epochs": 2}),
    "evaluate": ("5. Evaluate", {}),
    "predict": ("6. Predict", {}),
}
IN_A_KERNEL = "split"  # one is enough: it takes seconds to start
CORRECTION = ["split", "train"]  # what a corrected label needs
GONE = {"evaluate": "errors.csv", "predict": "submission.csv"}  # or a file that is missing
CHANGED = ("profile", "profile_reason", "data", "run", "labels", "seed")  # not for CHANGES, or as they are


def sections() -> dict[str, list[str]]:
    """The notebook's code cells under each heading."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            title = HEADING.search(text)
            current = found.setdefault(title[1], []) if title else current
        else:
            current.append(text)
    return found


def run_cells(cells: list[str], names: dict, fields: dict | None = None) -> str:
    """Run cells as a notebook does, form fields filled in; returns the HTML of their last lines' values."""
    shown = []
    for text in cells:
        tree = ast.parse(text)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "cell", "exec"), names)
        names |= {key: value for key, value in (fields or {}).items() if key in text}
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None
        shown.append(value._repr_html_() if hasattr(value, "_repr_html_") else "")
    return "".join(shown)


def alone(settings: Settings, stages: list[str], changes: dict, target: Path) -> None:
    """The cells under Settings, then those of the stages; what they showed goes to a file."""
    found, names = sections(), {}
    html = run_cells(found["Settings"], names, form(settings, changes))
    for stage in stages:
        html += run_cells(found[STAGES[stage][0]], names)
    target.write_text(html, encoding="utf-8")


def alone_in_a_kernel(settings: Settings, stages: list[str], changes: dict, target: Path) -> None:
    """The same in a Jupyter kernel."""
    found, fields = sections(), form(settings, changes)
    codes = ["from pathlib import PosixPath\nfrom sirius_helpers.settings import ModelSpec"]
    for text in found["Settings"]:
        filled = [f"{key} = {value!r}" for key, value in fields.items() if key in text]
        codes.append("\n".join([text, *filled]))
    codes += [text for stage in stages for text in found[STAGES[stage][0]]]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in codes])
    with socket_files() as config:
        NotebookClient(notebook, kernel_name="python3", config=config).execute()
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.outputs]
    target.write_text("".join(data.get("text/html", "") for data in shown), encoding="utf-8")


def form(settings: Settings, changes: dict) -> dict:
    """What a user would put into the form fields for these settings."""
    values = {key: value for key, value in vars(settings).items() if key not in CHANGED} | changes
    return {"DATA": str(settings.data), "RUN": settings.run, "PROFILE": "cpu", "CHANGES": values}


def content(folder: Path) -> dict[str, str | None]:
    """Every file or folder of a run but its memory, with its hash."""
    return {path.name: digest(path) for path in folder.iterdir() if path.name != "run.json"}


def rerun(settings: Settings, stage: str, folder: Path) -> dict:
    """One stage on a copy of the finished run, after something of its own has changed; or what a correction needs."""
    runs = folder / stage
    shutil.copytree(settings.checkpoints, runs)
    mine = runs / settings.run
    source = correct_label(mine) if stage in ("review", "correction") else ""
    if stage in GONE:
        (mine / GONE[stage]).unlink()
    before, times = content(mine), stage_times(mine)
    log, page = folder / f"{stage}.txt", folder / f"{stage}.html"
    stages, own = (CORRECTION, {}) if stage == "correction" else ([stage], STAGES[stage][1])
    execute = alone_in_a_kernel if stage == IN_A_KERNEL else alone
    code = in_fork(lambda: execute(settings, stages, {"checkpoints": runs} | own, page), log)
    after = content(mine)
    return {
        "stage": stage,
        "changed": sorted(name for name in before | after if before.get(name) != after.get(name)),
        "recorded": [name for name, entry in stage_times(mine).items() if entry != times.get(name)],
        "of_the_review": [row for row in rows(mine / "split.csv") if row["source_id"] == source],
        "before": [row for row in rows(settings.folder / "split.csv") if row["source_id"] == source],
    } | outcome(code, log, page)


def correct_label(run: Path) -> str:
    """Write the other category down for a review that is trained on and has synthetic reviews; returns its id."""
    table = rows(run / "split.csv")
    sources = [row["source_id"] for row in table if row["synthetic"] == "True" and row["source_id"] != "example"]
    trained_on = (row for row in table if row["source_id"] in sources and row["part"] == "train")
    row = next(row for row in trained_on if row["synthetic"] == "False")
    other = "посуда" if row["category"] == "обувь" else "обувь"
    (run / "corrections.csv").write_text(f"id,category\n{row['source_id']},{other}\n", encoding="utf-8")
    return row["source_id"]


def rows(path: Path) -> list[dict]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def stage_times(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))["stages"]


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder / "data")
        assert in_fork(lambda: save_models(folder), folder / "models.txt") == DONE
        settings = replace(settings_on(folder), checkpoints=folder / "runs", run="tiny")
        log, page = folder / "whole.txt", folder / "whole.html"
        code = in_fork(lambda: alone(settings, list(STAGES), {}, page), log)
        print(json.dumps({"stage": "all"} | outcome(code, log, page)), flush=True)
        for stage in [*STAGES, "correction"] if code == DONE else ():
            print(json.dumps(rerun(settings, stage, folder)), flush=True)
    return 0


def outcome(code: int, log: Path, page: Path) -> dict:
    """What went wrong, or what was shown."""
    if code != DONE:
        return {"problem": log.read_text(encoding="utf-8"), "shown": ""}
    return {"problem": "", "shown": page.read_text(encoding="utf-8")}


if __name__ == "__main__":
    sys.exit(main())
