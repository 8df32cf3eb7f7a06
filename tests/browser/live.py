"""A person at work in JupyterLab: a label set right by a drop-down, a synthetic review rejected by its button.

    python tests/browser/live.py checkpoints/sample    # a finished run of data/sample; exit code 1 when one failed
    python tests/browser/live.py checkpoints/sample /tmp/pictures    # leaves screenshots there as well

Needs chromium or google-chrome on the PATH, and JupyterLab, which comes with `pip install -e .[notebook]`. Works on
copies of the notebook and of the run; the server listens on this machine only and ends with the script.
"""

import argparse
import csv
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from chrome import Page, chromium

from sirius_helpers.settings import PROJECT
from sirius_helpers.show.forms import fill_form

UNTIL = "## 4. Train"  # the cells before it are run
LAB = {
    "@jupyterlab/apputils-extension:themes": {"theme": "JupyterLab Dark"},
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},  # outputs are there without scrolling
}
RUN_ALL = "jupyterapp.commands.execute('notebook:run-all-cells')"
DONE = "![...document.querySelectorAll('.jp-InputPrompt')].some(p => p.textContent.includes('*'))"
# The widget's own line is found by its place; its note stands in the same line.
CHOOSE = """(() => {
  const list = document.querySelector('.widget-dropdown select')
  list.selectedIndex = 1
  list.dispatchEvent(new Event('change', { bubbles: true }))
  return list.selectedOptions[0].textContent.replaceAll('\\xa0', ' ')
})()"""
REJECT = "document.querySelector('.jp-OutputArea .widget-button').click()"
NOTES = "[...document.querySelectorAll('.widget-label')].map(e => e.textContent).filter(t => t)"
SHOWN = "[...document.querySelectorAll('.jp-OutputArea-output')].map(e => e.innerText).join('\\n')"


def main() -> int:
    """Prints a line a step; 1 when one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("pictures", type=Path, nargs="?", help="a folder for screenshots")
    run, pictures = vars(parser.parse_args()).values()
    if not (run / "split.csv").exists():
        parser.error(f"{run} is no finished run; make one with: make run")
    failed = 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the server and the browser end with the script
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, chromium() as page:
        folder = Path(name)
        mine = folder / "checkpoints" / run.name
        shutil.copytree(run, mine, ignore=shutil.ignore_patterns("*.lock"))
        write_notebook(folder / "live.ipynb", run.name)
        with jupyter_lab(folder) as address:
            for step, went_well in steps(page, address, mine, pictures):
                failed += not went_well
                print(f"{'ok' if went_well else 'FAILED'}: {step}", flush=True)
    return int(bool(failed))


def steps(page: Page, address: str, run: Path, pictures: Path | None) -> Iterator[tuple[str, bool]]:
    """What a person does and sees, and whether the files agree."""
    page.open(address, width=1280, height=1000)
    page.until("window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status == 'idle'")
    everything_run(page)
    yield "the cells ran", not page.run("document.querySelectorAll('[data-mime-type*=error]').length")
    photograph(page, pictures, "1-before")

    chosen = page.run(CHOOSE).rsplit("  ", 1)[0]
    page.until(f"{NOTES}.length == 1")
    notes = page.run(NOTES)
    rows = list(csv.DictReader((run / "corrections.csv").open(encoding="utf-8")))
    yield f"drop-down: {notes[-1]}; {rows}", [row["category"] for row in rows] == [chosen]

    page.run(REJECT)
    page.until(f"{NOTES}.length == 2")
    last = json.loads((run / "rejected.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    yield f"button: {page.run(NOTES)[-1]}; {last['text']!r}: {last['reason']}", last["reason"] == "by_hand"
    photograph(page, pictures, "2-chosen")

    everything_run(page)
    shown = page.run(SHOWN)
    photograph(page, pictures, "3-again")
    yield "review says that it took the correction", "Labels corrected by hand: 1" in shown
    kept = [json.loads(line) for line in (run / "synthetic.jsonl").read_text(encoding="utf-8").splitlines()]
    yield f"augment wrote another: {len(kept)} kept", last["text"] not in [record["text"] for record in kept]


def everything_run(page: Page) -> None:
    page.run(RUN_ALL)
    page.until(DONE, seconds=1200)


def photograph(page: Page, folder: Path | None, name: str) -> None:
    """The window with the drop-downs in its middle, and with the buttons."""
    for widget in ("dropdown", "button") if folder else ():
        folder.mkdir(parents=True, exist_ok=True)
        page.run(f"document.querySelectorAll('.jp-OutputArea .widget-{widget}')[3].scrollIntoView({{block: 'center'}})")
        page.run("new Promise(done => setTimeout(done, 500))")  # until it is drawn
        page.picture(folder / f"{name}-{widget}.png")


def write_notebook(path: Path, run: str) -> None:
    """The notebook up to the training, form fields filled in."""
    notebook = nbformat.read(PROJECT / "notebooks" / "sirius_pipeline.ipynb", as_version=4)
    last = next(n for n, cell in enumerate(notebook.cells) if cell.source.startswith(UNTIL))
    notebook.cells = notebook.cells[:last]
    filled = dict.fromkeys(("DROP_DOWNS", "BUTTONS"), True) | {"DATA": str(PROJECT / "data" / "sample"), "RUN": run}
    notebook = fill_form(notebook, filled)
    nbformat.write(notebook, path)


@contextmanager
def jupyter_lab(folder: Path) -> Iterator[str]:
    """The address of the notebook in a JupyterLab with settings of its own."""
    (folder / "settings").mkdir()
    (folder / "settings" / "overrides.json").write_text(json.dumps(LAB))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex()
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    places = {"SIRIUS_CHECKPOINTS": str(folder / "checkpoints"), "PYTHONPATH": str(PROJECT), "JUPYTER_TOKEN": token}
    options = [f"--ServerApp.root_dir={folder}", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    options += [f"--LabApp.app_settings_dir={folder / 'settings'}", "--expose-app-in-browser", "--no-browser"]
    options += [f"--LabApp.workspaces_dir={folder / 'workspaces'}", f"--LabApp.user_settings_dir={folder / 'user'}"]
    options += ["--allow-root", "--ServerApp.ip=127.0.0.1", "--KernelManager.transport=ipc"]
    with open(folder / "jupyter.log", "wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=os.environ | own | places, stdout=log, stderr=log
        )
        try:
            for _ in range(600):
                if server.poll() is not None:
                    sys.exit((folder / "jupyter.log").read_text()[-2000:])
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/doc/tree/live.ipynb?token={token}"
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    sys.exit(main())
