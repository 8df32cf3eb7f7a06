import io

import nbformat
import pytest

from sirius_helpers import __main__
from sirius_helpers.__main__ import ConsoleLog

BAR = ["\rlabel:   0%", "\rlabel:  40%", "\rlabel:  80%\rlabel: 100%", "\n", "label: done\n"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that go by only where a test says so."""
    now = [0.0]
    monkeypatch.setattr(__main__.time, "monotonic", lambda: now[0])
    return now


def written(out, pieces, clock, pause):
    log = ConsoleLog(out)
    for piece in pieces:
        clock[0] += pause
        log.write(piece)
    log.end_line()
    return out.getvalue()


def test_a_terminal_gets_every_state_of_a_bar_to_redraw(clock):
    assert written(Terminal(), BAR, clock, pause=1) == "".join(BAR)


def test_a_log_gets_a_bars_last_state_alone(clock):
    assert written(io.StringIO(), BAR, clock, pause=1) == "label: 100%\nlabel: done\n"


def test_a_log_is_told_of_a_slow_bar_once_a_minute(clock):
    slow = [f"\rtrain: {percent:3}%" for percent in range(100)]
    lines = written(io.StringIO(), [*slow, "\n"], clock, pause=7).splitlines()
    assert lines == ["train:   8%", *(f"train: {percent:3}%" for percent in range(17, 100, 9)), "train:  99%"]


@pytest.mark.parametrize("out", [Terminal, io.StringIO])
def test_a_line_that_was_left_unfinished_is_ended_before_a_heading(out, clock):
    target = out()
    log = ConsoleLog(target)
    log.write("\rlabel:  40%")
    log.heading(nbformat.v4.new_code_cell("## no heading, a comment"))
    log.heading(nbformat.v4.new_markdown_cell("### 1b. Review\n\nSet labels right."))
    assert target.getvalue().lstrip("\r") == "label:  40%\n1b. Review\n"
