"""The one exception meant for the person at the keyboard: what is wrong, where, and what to do."""


class UserError(Exception):
    """Bad input or a missing piece; the message names the file, the place in it and the remedy."""

    def _render_traceback_(self) -> list[str]:
        """IPython shows these lines in place of a traceback."""
        return [f"Error: {self}"]
