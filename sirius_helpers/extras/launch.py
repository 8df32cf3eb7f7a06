"""The stage "train" on several GPUs of a machine: the same settings, batches, steps and files as on one.

accelerate launch --multi_gpu --num_processes 2 -m sirius_helpers.extras.launch --run sample
"""

import argparse
import sys
from datetime import timedelta

import torch
from accelerate import PartialState

from ..errors import UserError, command
from ..files.runs import settings_of
from ..train import train


@command
def main(arguments: list[str] | None = None) -> None:
    """Train on the run's own settings, this process being one of several."""
    parser = argparse.ArgumentParser(prog="accelerate launch -m sirius_helpers.extras.launch", description=__doc__)
    parser.add_argument("--run", required=True, help="the run, by name or folder; its own settings are used")
    settings = settings_of(parser.parse_args(arguments).run)
    # Joins the others, and takes a GPU; they wait while the first one fits the baseline.
    state = PartialState(cpu=settings.device == "cpu", timeout=timedelta(hours=12))
    if settings.batch_size % state.num_processes:
        raise UserError(
            f"a batch of {settings.batch_size} texts cannot be shared by {state.num_processes} processes; choose a "
            "number that divides it."
        )
    if settings.device == "cuda" and state.local_process_index >= (visible := torch.cuda.device_count()):
        raise UserError(f"each process needs a GPU of its own, and {visible} are visible; start so many.")
    train(settings)


if __name__ == "__main__":
    sys.exit(main())
