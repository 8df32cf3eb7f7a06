"""What `make run` says while the notebook runs: each section's heading, then what its cells print, bars among it.

following = Following(sys.stdout)
papermill.execute_notebook(…, stdout_file=following, on_cell_start=following.heading)
"""

from __future__ import annotations

import re
import time
from typing import TextIO

from nbformat import NotebookNode

HEADING = re.compile(r"^##+ (.*)", re.MULTILINE)
PAUSE = 60.0  # seconds between two states of a bar where none can be redrawn


class Following:
    """A file to write to. A terminal redraws a bar; a log gets its last state, and one a minute on the way there."""

    def __init__(self, out: TextIO) -> None:
        self.out, self.redraws = out, out.isatty()
        self.line = ""  # not ended yet; behind its last carriage return
        self.told = time.monotonic()

    def heading(self, cell: NotebookNode, **_: object) -> None:
        """Say which section begins, if one begins with this cell."""
        if cell.cell_type == "markdown" and (found := HEADING.search(cell.source)):
            self.end_line()
            self.write(f"{found[1]}\n")
            self.flush()

    def write(self, text: str) -> None:
        """Pass on what a cell printed."""
        if self.redraws:
            self.out.write(text)
        *ended, rest = (self.line + text).split("\n")
        self.line = _last_state(rest)
        if not self.redraws:
            self._log([_last_state(line) for line in ended])

    def _log(self, lines: list[str]) -> None:
        if not lines and self.line.startswith("\r") and time.monotonic() - self.told > PAUSE:
            lines = [self.line]
        for line in lines:
            print(line.strip("\r"), file=self.out)
            self.told = time.monotonic()

    def end_line(self) -> None:
        """What comes next begins a line of its own, also where a bar was left unfinished."""
        if self.line:
            self.write("\n")
            self.flush()

    def flush(self) -> None:
        """Show what was written."""
        self.out.flush()


def _last_state(line: str) -> str:
    """Of a redrawn line what is seen in the end, with its carriage return."""
    _, redrawn, state = line.rstrip("\r").rpartition("\r")
    return redrawn + state
