"""The one exception meant for the person at the keyboard: what is wrong, where, and what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps


class UserError(Exception):
    """Bad input or a missing piece; the message names the file, the place in it and the remedy."""

    def _render_traceback_(self) -> list[str]:
        """IPython shows these lines in place of a traceback."""
        return [f"Error: {self}"]


def not_finite(model: object) -> UserError:
    """The error for scores that are no numbers; `loaders.causal_lm` leaves with the model what to do about it."""
    advice = getattr(model, "if_not_finite", lambda: "the model's scores are not finite. Load it in fp32.")
    return UserError(advice())


def command(main: Callable[[list[str] | None], None]) -> Callable[..., int]:
    """A command's `main`; returns the exit code: 0 when all is done, 2 with one line on stderr otherwise."""

    @wraps(main)
    def checked(arguments: list[str] | None = None) -> int:
        try:
            main(arguments)
        except UserError as error:
            print(f"Error: {error}", file=sys.stderr)
            return 2
        return 0

    return checked
