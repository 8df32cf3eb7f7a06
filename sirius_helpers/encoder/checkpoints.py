"""A killed training goes on from its last whole checkpoint, and ends where an unbroken one ends.

Knows what the Trainer leaves in a folder; not what is trained. The `.pt` and `.pth` files there are pickles that
torch reads with `weights_only`: tensors and plain values, no code; they go with the folder when training ends. The
pickled `training_args.bin` is read by nobody and is removed at once.

    train_on(trainer, folder)
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from ..files.journal import write_atomically
from ..kinds import Json

STATE = "trainer_state.json"  # the Trainer writes it last


def train_on(trainer: Trainer, folder: Path) -> None:
    """Train from the folder's last whole checkpoint, or from the beginning where there is none.

    The Trainer alone would go on from a half-written checkpoint, train an epoch more when patience had run out
    before the kill, and forget the best checkpoint when the folder was moved.
    """
    process = PartialState()
    with process.main_process_first():  # the others wait until it has cleared away what is not whole
        last = last_whole_checkpoint(folder)
        if last is not None:
            state = _state(last)
            if state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]:
                trainer.args.num_train_epochs = round(state["epoch"])  # nothing is left to train
            state["best_model_checkpoint"] = str(_best(last, state))
            if process.is_main_process:
                write_atomically(last / STATE, json.dumps(state, indent=2).encode())
    trainer.add_callback(_WithoutArguments())
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    process.wait_for_everyone()  # each has read the best weights before anybody removes them


class _WithoutArguments(TrainerCallback):
    """Removes the pickle of the training's arguments, which the Trainer leaves in each checkpoint."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Right after the checkpoint was written."""
        Path(str(args.output_dir), f"checkpoint-{state.global_step}", "training_args.bin").unlink(missing_ok=True)


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end and has its best one beside it; others are removed."""
    while folder.exists() and (newest := get_last_checkpoint(str(folder))):
        checkpoint = Path(newest)
        if _is_whole(checkpoint) and _is_whole(_best(checkpoint, _state(checkpoint))):
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def _is_whole(checkpoint: Path) -> bool:
    try:
        _state(checkpoint)
    except (FileNotFoundError, ValueError):
        return False
    return all(path.stat().st_size for path in checkpoint.iterdir())


def _state(checkpoint: Path) -> Json:
    state: Json = json.loads((checkpoint / STATE).read_bytes())
    return state


def _best(checkpoint: Path, state: Json) -> Path:
    """The best checkpoint so far; the Trainer knows it by the path that it had then."""
    return checkpoint.with_name(Path(state["best_model_checkpoint"]).name)
