"""The Trainer with our loss, scores, bar and choice of checkpoint, and a way on from where a kill came.

The `.pt` and `.pth` files of a checkpoint are pickles that torch reads with `weights_only`: tensors and plain values,
no code; they go with the folder when training ends.

    trainer = new_trainer(model, tokenizer, {"train": rows, "validation": rows}, weights, folder, settings)
    train_on(trainer)
    history = history_of(trainer.state)
"""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from datasets import Dataset
from peft import PeftModel
from sklearn.metrics import f1_score
from torch import nn
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from ..errors import UserError
from ..files.journal import write_atomically
from ..files.reviews import TRAIN, VALIDATION
from ..kinds import Json, Tokenizer
from ..models.batching import progress
from ..settings import Settings, compute_dtype

MIN_EPOCH_SHARE = 0.5  # of the epochs must be over before one is kept: until then scores jump with the learning rate
STATE = "trainer_state.json"  # the Trainer writes it last


def class_weights(categories: pd.Series, labels: list[str], power: float) -> torch.Tensor:
    """(labels,) weights: inverse frequency to a power, with a mean of 1 over the rows; 0 for an absent label."""
    counts = categories.value_counts().reindex(labels, fill_value=0).to_numpy(dtype=float)
    weights = np.where(counts > 0, 1 / np.maximum(counts, 1) ** power, 0)
    return torch.tensor(weights * counts.sum() / (weights * counts).sum(), dtype=torch.float32)


def weighted_loss(weights: torch.Tensor, label_smoothing: float) -> Callable[..., torch.Tensor]:
    """A batch's share of the mean cross-entropy over a step's rows, as the Trainer calls it.

    Targets are probabilities, (batch, labels). The Trainer counts each of them as an item, and adds up what the
    accumulated batches of a step give.
    """
    entropy = nn.CrossEntropyLoss(weight=weights, label_smoothing=label_smoothing, reduction="none")

    def loss(outputs: Any, target: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = entropy.to(outputs.logits.device)(outputs.logits, target)
        mean = rows.sum() / (target @ weights.to(target.device)).sum()
        return mean * target.numel() / num_items_in_batch

    return loss


def new_trainer(
    model: PeftModel,
    tokenizer: Tokenizer,
    sets: dict[str, Dataset],
    weights: torch.Tensor,
    work: Path,
    settings: Settings,
) -> Trainer:
    """A Trainer over both parts' `input_ids` and `labels`, which are probabilities; checkpoints go to `work`."""
    steps = math.ceil(len(sets[TRAIN]) / (settings.batch_size * settings.accumulation)) * settings.epochs
    dtype = compute_dtype(settings.device)
    processes = PartialState(cpu=settings.device == "cpu").num_processes  # 1, unless several were launched

    def scores(prediction: EvalPrediction) -> dict[str, float]:
        if not np.isfinite(np.asarray(prediction.predictions)).all():
            raise UserError(
                f"training broke down in epoch {trainer.state.epoch:.0f}: the model's scores are no numbers any more. "
                f"Lower learning_rate (it is {settings.learning_rate:g}), or choose another classifier."
            )
        guess, truth = (np.asarray(rows).argmax(-1) for rows in (prediction.predictions, prediction.label_ids))
        found = {f"{kind}_f1": f1_score(truth, guess, average=kind, zero_division=0) for kind in ("weighted", "macro")}
        done = trainer.state.epoch / settings.epochs
        # Until then the later epoch counts as the better one: it is not kept later, and patience is not used up.
        return found | {"choice": found["weighted_f1"] if done > MIN_EPOCH_SHARE else done - 1}

    arguments = TrainingArguments(
        output_dir=str(work),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size // processes,
        per_device_eval_batch_size=4 * settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        weight_decay=settings.weight_decay,
        warmup_steps=round(settings.warmup_share * steps),
        train_sampling_strategy="group_by_length",  # texts of like lengths share a batch
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        restore_callback_states_from_checkpoint=True,  # or patience would begin anew after a kill
        metric_for_best_model="choice",
        fp16=dtype == torch.float16,
        bf16=dtype == torch.bfloat16,
        use_cpu=settings.device == "cpu",
        seed=settings.seed,
        data_seed=settings.seed,
        dataloader_pin_memory=settings.device == "cuda",
        disable_tqdm=True,
        report_to="none",
    )
    arguments._n_gpu = 1  # this process's: the Trainer would split, and multiply, its batches over all that are visible
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=sets[TRAIN],
        eval_dataset=sets[VALIDATION],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_loss_func=weighted_loss(weights, settings.label_smoothing),
        compute_metrics=scores,
        callbacks=[EarlyStoppingCallback(settings.patience), _Bar()],
    )
    trainer.remove_callback(PrinterCallback)  # without the Trainer's own bar it prints a dictionary per log line
    return trainer


class _Bar(TrainerCallback):
    """Our own progress bar in place of the Trainer's log lines, and no pickle of its arguments, which nobody reads."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar = progress(state.max_steps, "train")
        self.bar.update(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar.update(1)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **found: Any) -> None:
        self.bar.set_postfix_str(f"weighted F1 {found['metrics']['eval_weighted_f1']:.3f}")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        Path(str(args.output_dir), f"checkpoint-{state.global_step}", "training_args.bin").unlink(missing_ok=True)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar.total = state.global_step  # early stopping leaves steps undone
        self.bar.refresh()
        self.bar.close()


def train_on(trainer: Trainer) -> None:
    """Train from the last whole checkpoint in the trainer's folder, and end where an unbroken training ends.

    The Trainer alone would go on from a half-written checkpoint, train an epoch more when patience had run out
    before the kill, and forget the best checkpoint when the folder was moved.
    """
    process = PartialState()
    with process.main_process_first():  # the others wait until it has cleared away what is not whole
        if last := last_whole_checkpoint(Path(str(trainer.args.output_dir))):
            state = _state(last)
            if state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]:
                trainer.args.num_train_epochs = round(state["epoch"])  # nothing is left to train
            state["best_model_checkpoint"] = str(_best(last))
            if process.is_main_process:
                write_atomically(last / STATE, json.dumps(state, indent=2).encode())
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    process.wait_for_everyone()  # each has read the best weights before anybody removes them


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end and has its best one beside it; others are removed."""
    while folder.exists() and (newest := get_last_checkpoint(str(folder))):
        checkpoint = Path(newest)
        if _is_whole(checkpoint) and _is_whole(_best(checkpoint)):
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def _is_whole(checkpoint: Path) -> bool:
    try:
        return bool(_state(checkpoint)) and all(path.stat().st_size for path in checkpoint.iterdir())
    except (FileNotFoundError, ValueError):
        return False


def _best(checkpoint: Path) -> Path:
    """The best checkpoint so far; the Trainer knows it by the path that it had then."""
    return checkpoint.with_name(Path(_state(checkpoint)["best_model_checkpoint"]).name)


def _state(checkpoint: Path) -> Json:
    return dict(json.loads((checkpoint / STATE).read_bytes()))


def history_of(state: TrainerState) -> pd.DataFrame:
    """A row per epoch: the training loss, the validation scores, and whether its weights were kept."""
    names = {"loss": "train_loss", "eval_loss": "validation_loss"}
    names |= {f"eval_{name}": name for name in ("weighted_f1", "macro_f1")}
    log = pd.DataFrame(state.log_history).groupby("epoch")[["step", *names]].first()
    kept = log.pop("step") == state.best_global_step
    return log.rename(columns=names).assign(kept=kept).reset_index()
