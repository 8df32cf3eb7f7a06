"""Execute the notebook from top to bottom, the input checked before: what `make run` calls.

python -m sirius_helpers --data data/sample --run sample
"""

import argparse
import logging
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from .errors import UserError, command
from .extras.contest import data_folder
from .files.inputs import check_inputs
from .files.journal import writing
from .files.lock import run_lock
from .files.runs import pinned
from .settings import NOTEBOOK, PROJECT, how_to_install, settings_for
from .show.forms import fill_form

try:
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config
except ModuleNotFoundError as error:
    sys.exit(f"Error: the Python package {error.name!r} is missing; install it with: {how_to_install('notebook')}")


@command
def main(arguments: list[str] | None = None) -> None:
    """Check the input, then execute the notebook; the executed copy lands in the run's folder."""
    parser = argparse.ArgumentParser(prog="python -m sirius_helpers", description="Execute the notebook.")
    parser.add_argument("--data", default="", help="folder with train.csv, test.csv and the categories, or: contest")
    parser.add_argument("--run", default="", help="files go to checkpoints/<run>/")
    parser.add_argument("--profile", default="auto", help="auto, t4, cpu, chat or rehearsal")
    parser.add_argument("--labels", default="", help="CSV with ready-made labels: text and a category column")
    given = parser.parse_args(arguments)
    if not NOTEBOOK.exists():
        raise UserError(
            f"{NOTEBOOK} is missing: the wheel holds no notebook. Run this in a checkout, or the stages from Python."
        )
    settings = settings_for(given.profile, data=data_folder(given.data), run=given.run, labels=given.labels)
    check_inputs(settings)
    pinned(settings)
    target = settings.folder / "notebook.ipynb"
    data = settings.data.relative_to(PROJECT) if settings.data.is_relative_to(PROJECT) else settings.data
    fields = {"DATA": f"{data}", "RUN": settings.run, "PROFILE": given.profile, "LABELS": f"{settings.labels or ''}"}
    notebook = fill_form(nbformat.read(NOTEBOOK, as_version=4), fields)
    print(f"Executing the notebook on {settings.data} with the {settings.profile} profile …", flush=True)
    start, log = time.monotonic(), ConsoleLog(sys.stdout)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        # From the first cell to the last: another `make run` would overwrite the notebook between two stages.
        with run_lock(settings.folder, "notebook"), writing(target), socket_files() as config:
            papermill.execute_notebook(
                notebook,
                target,
                kernel_name="python3",
                cwd=PROJECT,
                progress_bar=False,  # it counts cells; the stages' own bars tell more
                stdout_file=log,
                stderr_file=log,
                on_cell_start=log.heading,
                config=config,
                coalesce_streams=True,  # a progress bar is one line in the saved notebook
            )
    except DeadKernelError:
        raise UserError(
            "the notebook's process was killed, most likely for want of memory. Close what else uses memory, or "
            "lower tokens_per_batch, and run the same command again: finished batches are kept."
        ) from None
    except papermill.PapermillExecutionError as error:
        reason = error.evalue if error.ename == "UserError" else f"{error.ename}: {error.evalue}".rstrip(": ")
        raise UserError(f"{reason} (cell {error.exec_count} of {target})") from None
    finally:
        log.end_line()
    print(f"Done in {time.monotonic() - start:.0f} s. Notebook: {target}; submission: {settings.folder}/submission.csv")


@contextmanager
def socket_files() -> Iterator[Config]:
    """Settings of a kernel that is reached by socket files in a folder of its own, instead of open TCP ports."""
    with tempfile.TemporaryDirectory(prefix="sirius-") as folder:
        yield Config(KernelManager={"transport": "ipc", "ip": f"{folder}/kernel"})


class ConsoleLog:
    """A stream for papermill. A terminal redraws a bar; a file gets its last state, and one per minute until then."""

    def __init__(self, out: TextIO) -> None:
        self.out, self.redraws = out, out.isatty()
        self.line = ""  # not ended yet; what follows its last carriage return
        self.told = time.monotonic()

    def heading(self, cell: nbformat.NotebookNode, **_: object) -> None:
        """Say which section begins, if one begins with this cell."""
        if cell.cell_type == "markdown" and (found := re.search("^##+ (.*)", cell.source, re.MULTILINE)):
            self.end_line()
            self.write(f"{found[1]}\n")

    def write(self, text: str) -> None:
        """Pass on what a cell printed."""
        *ended, rest = (self.line + text).split("\n")
        self.line = _last_state(rest)
        if self.redraws:
            print(text, end="", file=self.out, flush=True)
            return
        lines = [_last_state(line) for line in ended]
        if not lines and self.line.startswith("\r") and time.monotonic() - self.told > 60:
            lines = [self.line]
        for line in lines:
            print(line.strip("\r"), file=self.out, flush=True)
            self.told = time.monotonic()

    def end_line(self) -> None:
        """What comes next begins a line of its own, also where a bar was left unfinished."""
        if self.line:
            self.write("\n")

    def flush(self) -> None:
        """Show what was written."""
        self.out.flush()


def _last_state(line: str) -> str:
    """Of a redrawn line what is seen in the end, with its carriage return."""
    _, redrawn, state = line.rstrip("\r").rpartition("\r")
    return redrawn + state


if __name__ == "__main__":
    sys.exit(main())
