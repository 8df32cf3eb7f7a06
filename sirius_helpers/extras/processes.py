"""Which of the processes that train together this one is; alone where nothing launched several.

`accelerate launch` says it by the environment variables of torch's own launcher.
"""

from __future__ import annotations

import os

from torch import distributed


def count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_first() -> bool:
    """Whether this is the one that writes files."""
    return int(os.environ.get("RANK", 0)) == 0


def place() -> int:
    """This process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


def wait_for_all() -> None:
    """Until every process is here."""
    if distributed.is_initialized():
        distributed.barrier()
