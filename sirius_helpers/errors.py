"""What is meant for the person at the keyboard: one exception that says what is wrong, where, and what to do."""

import errno
import os
import re
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path

_CAUSES = (  # what became of the file at work, where it is a matter of one; what to do; errno
    ("could not be written", "Free some space", "ENOSPC EDQUOT EFBIG"),
    ("could not be written", "Make the folder writable", "EROFS"),
    ("could not be read or written", "Give yourself the right to it", "EACCES EPERM"),
    ("could not be read or written", "Bring the folder back", "ENOENT ENOTDIR ENOTCONN EIO ENXIO ENODEV ESTALE"),
    ("", "Restart the kernel, which closes them, or allow more (ulimit -n)", "EMFILE ENFILE"),
    ("", "Close what else needs memory, or lower tokens_per_batch", "ENOMEM"),
    ("", "Check the network and the server", "ECONNREFUSED ECONNRESET ECONNABORTED EPIPE ENETUNREACH"),
    ("", "Check the network and the server", "EHOSTUNREACH ETIMEDOUT"),
)
_CAUSE = {getattr(errno, name): (what, remedy) for what, remedy, names in _CAUSES for name in names.split()}


class UserError(Exception):
    """Bad input or a missing piece; the message names the file, the place in it and the remedy."""

    def _render_traceback_(self) -> list[str]:
        """IPython shows these lines in place of a traceback."""
        return [f"Error: {self}"]


def not_finite(model: object) -> UserError:
    """The error for scores that are no numbers; `loaders.causal_lm` leaves with the model what to do about it."""
    advice = getattr(model, "if_not_finite", lambda: "the model's scores are not finite. Load it in fp32.")
    return UserError(advice())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the GPU or the host, however a library says it."""
    signs = ["out of memory", "can't allocate memory", "ALLOC_FAILED", f"os error {errno.ENOMEM}"]
    signs += ("could not create a primitive", "could not create a memory object")  # oneDNN, without a reason
    known = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
    return known or any(sign in str(error) for sign in signs)


def refusal(error: BaseException | None) -> tuple[str, str, str] | None:
    """What the system refused, however a library says it: what became of the file, the reason, what to do.

    The first is empty where it was no matter of a file; None where the system refused nothing that is known here.
    """
    while error and not isinstance(error, UserError):  # which has said it already
        if found := _CAUSE.get(number := _errno_of(error)):
            return found[0], os.strerror(number), found[1]
        error = error.__cause__  # what a library put its own words around
    return None


def _errno_of(error: BaseException) -> int:
    if isinstance(error, FileNotFoundError) and Path(error.filename or ".").parent.exists():
        return 0  # a file that was to be read
    if is_out_of_memory(error):
        return errno.ENOMEM
    if isinstance(error, OSError):
        return error.errno or 0
    said = str(error)
    if number := re.search(r"(?:\bOs error |\bOs { code: |\[Errno )(\d+)", said, re.IGNORECASE):  # safetensors, httpx
        return int(number[1])
    # PyTorch has two ways, by where in a file the room ended.
    stopped_short = ("inline_container" in said and "unexpected pos" in said) or "iostream error" in said
    return errno.ENOSPC if stopped_short else 0


def command(main: Callable[[list[str] | None], None]) -> Callable[..., int]:
    """A command's `main`; returns the exit code: 0, or after one line on stderr 2, and 130 after an interrupt."""

    @wraps(main)
    def checked(arguments: list[str] | None = None) -> int:
        try:
            main(arguments)
        except UserError as error:
            print(f"Error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("Interrupted. Run the same command again: what was finished is kept.", file=sys.stderr)
            return 130
        return 0

    return checked
