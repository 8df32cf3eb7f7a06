"""Execute the notebook from top to bottom: what `make run` calls.

Input is checked before a kernel starts, the notebook is saved after every cell, and what went wrong is said in
one line.

    python -m sirius_helpers --data data/sample --run sample
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat.reader import NotJSONError
from traitlets.config import Config

from .errors import UserError, command
from .extras.contest import data_folder
from .files.inputs import check_inputs
from .files.journal import write_atomically, writing
from .files.lock import run_lock
from .files.runs import pinned
from .settings import PROJECT, settings_for
from .show.console import Following
from .show.forms import fill_form

NOTEBOOK = PROJECT / "notebooks" / "sirius_pipeline.ipynb"


@command
def main(arguments: list[str] | None = None) -> None:
    """Check the input, then execute the notebook."""
    parser = argparse.ArgumentParser(prog="python -m sirius_helpers", description="Execute the notebook.")
    parser.add_argument("--data", default="", help="folder with train.csv, test.csv and the categories, or: contest")
    parser.add_argument("--run", default="", help="files go to checkpoints/<run>/")
    parser.add_argument("--profile", default="auto", help="auto, t4 or cpu")
    parser.add_argument("--labels", default="", help="CSV with ready-made labels: text and a category column")
    execute(**vars(parser.parse_args(arguments)))


def execute(data: str, run: str, profile: str, labels: str) -> None:
    """Run the notebook with these parameters; the executed copy lands in the run's folder."""
    settings = settings_for(profile, data=data_folder(data), run=run, labels=labels)
    check_inputs(settings)
    pinned(settings)
    target = settings.folder / "notebook.ipynb"
    fields = {
        "DATA": str(settings.data),
        "RUN": settings.run,
        "PROFILE": profile,
        "LABELS": str(settings.labels or ""),
    }
    print(f"Executing the notebook on {settings.data} with the {settings.profile} profile …", flush=True)
    start, following = time.monotonic(), Following(sys.stdout)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        # From the first cell to the last: another `make run` would overwrite the notebook between two stages.
        with run_lock(settings.folder, "notebook"), tidied(target), writing(target), socket_files() as config:
            papermill.execute_notebook(
                fill_form(nbformat.read(NOTEBOOK, as_version=4), fields),
                target,
                kernel_name="python3",
                cwd=PROJECT,
                progress_bar=False,  # it counts cells; the stages' own bars tell more
                stdout_file=following,
                stderr_file=following,
                on_cell_start=following.heading,
                config=config,
            )
    except DeadKernelError:
        raise UserError(
            "the notebook's process was killed, most likely for want of memory. Close what else uses memory, or "
            "lower tokens_per_batch, and run the same command again: finished batches are kept."
        ) from None
    except papermill.PapermillExecutionError as error:
        reason = error.evalue if error.ename == "UserError" else f"{error.ename}: {error.evalue}"
        raise UserError(f"{reason} (cell {error.exec_count} of {target})") from None
    finally:
        following.end_line()
    print(f"Done in {time.monotonic() - start:.0f} s. Notebook: {target}; submission: {settings.folder}/submission.csv")


@contextmanager
def socket_files() -> Iterator[Config]:
    """Settings of a kernel that is reached by socket files in a folder of its own, instead of open TCP ports."""
    with tempfile.TemporaryDirectory(prefix="sirius-") as folder:
        yield Config(KernelManager={"transport": "ipc", "ip": f"{folder}/kernel"})


@contextmanager
def tidied(path: Path) -> Iterator[None]:
    """Join in the end the pieces of each cell's output, so that a progress bar is one line in the saved notebook."""
    try:
        yield
    finally:
        with suppress(FileNotFoundError, NotJSONError):  # not saved at all, or cut short by a full disk
            notebook = nbformat.read(path, as_version=4)
            notebook, _ = CoalesceStreamsPreprocessor(enabled=True).preprocess(notebook, {})
            write_atomically(path, nbformat.writes(notebook).encode())


if __name__ == "__main__":
    sys.exit(main())
