"""The stage "train" on several GPUs of a machine: the same batches, steps and files as on one.

accelerate launch --multi_gpu --num_processes 2 -m sirius_helpers.launch --data data/sample --run sample
"""

from __future__ import annotations

import argparse
import sys

from . import processes
from .errors import UserError, command
from .settings import settings_for
from .training import train


@command
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="accelerate launch -m sirius_helpers.launch", description=__doc__)
    parser.add_argument("--data", default="", help="folder with the categories")
    parser.add_argument("--run", default="", help="the run whose split.csv is trained on")
    parser.add_argument("--profile", default="auto", help="auto, t4 or cpu")
    options = parser.parse_args(arguments)
    settings = settings_for(**vars(options))
    if settings.batch_size % processes.count():
        raise UserError(
            f"a batch of {settings.batch_size} texts cannot be shared by {processes.count()} processes; choose a "
            "number that divides it."
        )
    train(settings)


if __name__ == "__main__":
    sys.exit(main())
