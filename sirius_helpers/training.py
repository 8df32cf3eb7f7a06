"""LoRA fine-tuning with the best checkpoint by weighted F1, and the linear baseline it must beat.

Writes `adapter/` (safetensors, id2label), `history.csv` and the training part of `metrics.json`.

    train(settings)                        # stage "train"
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
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

from . import processes
from .baseline import Linear, fit_linear, frozen_embeddings
from .batching import is_out_of_memory, progress
from .categories import labels_of, read_categories
from .checkpoints import train_on
from .classifier import new_model, save
from .errors import UserError
from .journal import fingerprint, write_atomically
from .kinds import Json, Tokenizer
from .loaders import load_tokenizer, loaded_revision, quiet, release
from .reviews import write_csv
from .runs import Run, digest
from .settings import Settings, compute_dtype
from .splitting import TRAIN, VALIDATION, read_split
from .text_tokens import TextTokens

HISTORY = ["epoch", "train_loss", "validation_loss", "weighted_f1", "macro_f1", "kept"]
SETTLED = 0.5  # share of the epochs after which a checkpoint may be kept: before, scores jump with the learning rate


def train(settings: Settings) -> pd.DataFrame:
    """Stage "train": fit the baseline, start the head from it, train the adapters; returns the history."""
    run = Run(settings.folder)
    labels = labels_of(read_categories(settings.data))
    mark = fingerprint("train", digest(run.need("split.csv")), labels, _identity(settings))
    work = run.path(f"training-{mark}")  # a kill leaves checkpoints here; the next run goes on from the last
    if run.is_finished("train", mark):
        shutil.rmtree(work, ignore_errors=True)
        print("train: the adapter was trained earlier on these rows and settings; reused.")
        return pd.read_csv(run.path("history.csv"))
    table = read_split(run)
    if unknown := sorted(set(table["category"]) - set(labels)):
        raise UserError(
            f"{run.path('split.csv')} holds categories that {settings.data} does not name (any longer): "
            f"{', '.join(unknown)}. Run the stages from 'label' on again."
        )
    if not processes.is_first():  # the first process writes all files, and its weights are everybody's
        return _fit(table, labels, None, settings, run, work)[0]
    with run.stage("train", mark, ["adapter", "history.csv"]) as facts:
        rows = table[table["part"] == TRAIN]
        if rows["category"].nunique() < 2:
            raise UserError(
                f"all {len(rows)} training rows of {run.path('split.csv')} have the same category; there is nothing to "
                "learn. Look at the labels, correct some in corrections.csv, or add reviews to train.csv."
            )
        vectors = frozen_embeddings(rows["text"].tolist(), settings)
        linear = fit_linear(vectors, rows["category"], labels, settings.baseline_c)
        history, facts["revision"] = _fit(table, labels, linear, settings, run, work)
        write_csv(run.path("history.csv"), history)
        metrics = json.dumps({"training": best_epoch(history)}, ensure_ascii=False, indent=2)
        write_atomically(run.path("metrics.json"), metrics.encode())  # the evaluation adds the held-out scores
    shutil.rmtree(work)  # only now: until the stage is recorded a kill needs them
    return history


def best_epoch(history: pd.DataFrame) -> Json:
    """The row of the history whose weights were kept: the best weighted F1 on the validation part, once settled."""
    best = history[history["kept"]].iloc[0].drop("kept").to_dict()
    return {str(name): value for name, value in best.items()}


def class_weights(categories: pd.Series, labels: list[str], power: float) -> torch.Tensor:
    """(labels,) weights: inverse frequency to a power, with a mean of 1 over the rows; 0 for an absent label."""
    counts = categories.value_counts().reindex(labels, fill_value=0).to_numpy(dtype=float)
    weights = np.where(counts > 0, 1 / np.maximum(counts, 1) ** power, 0)
    return torch.tensor(weights * counts.sum() / (weights * counts).sum(), dtype=torch.float32)


def weighted_loss(weights: torch.Tensor, label_smoothing: float) -> Callable[..., torch.Tensor]:
    """The mean cross-entropy of a model's outputs, as the Trainer calls it, on the device where they lie."""
    entropy = nn.CrossEntropyLoss(weight=weights, label_smoothing=label_smoothing)

    def loss(outputs: Any, target: torch.Tensor, num_items_in_batch: object = None) -> torch.Tensor:
        mean: torch.Tensor = entropy.to(outputs.logits.device)(outputs.logits, target)
        return mean

    return loss


def start_head(head: nn.Linear, linear: Linear) -> None:
    """Copy the linear solution into the head, so that training starts from the baseline instead of from noise."""
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(linear.weight))
        head.bias.copy_(torch.from_numpy(linear.bias))


def _fit(
    table: pd.DataFrame, labels: list[str], linear: Linear | None, settings: Settings, run: Run, work: Path
) -> tuple[pd.DataFrame, str | None]:
    """Writes the adapter; returns the history and the commit of the base model, None where it is from no hub.

    Only the first of several processes has the linear solution, and only it writes.
    """
    parts = {part: table[table["part"] == part] for part in (TRAIN, VALIDATION)}
    if parts[VALIDATION].empty:
        raise UserError("the validation part of split.csv is empty; add reviews or raise validation_share.")
    torch.manual_seed(settings.seed)
    tokenizer = load_tokenizer(settings.classifier)
    model = new_model(settings, len(labels))
    if linear is not None:
        head = model.get_submodule("base_model.model.head.modules_to_save.default")
        assert isinstance(head, nn.Linear)
        start_head(head, linear)
        for old in run.folder.glob("training-*"):
            if old != work:
                shutil.rmtree(old)
    trainer = _trainer(
        model,
        tokenizer,
        {k: _tokens(v, tokenizer, labels, settings) for k, v in parts.items()},
        class_weights(parts[TRAIN]["category"], labels, settings.class_weight_power),
        work,
        settings,
    )
    try:
        with quiet():
            train_on(trainer, work)
        if linear is not None:
            fresh = run.path("adapter.part")
            shutil.rmtree(fresh, ignore_errors=True)
            save(model, tokenizer, fresh, settings, labels)
            linear.save(fresh)
            shutil.rmtree(run.path("adapter"), ignore_errors=True)
            fresh.rename(run.path("adapter"))
        return _history(trainer.state), loaded_revision(settings.classifier)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory while training with batches of {settings.batch_size} texts. Halve batch_size and double "
            "accumulation in the settings (a step then still learns from as many texts), or lower max_tokens, and run "
            "the stage again."
        ) from error
    finally:
        release(model)


def _tokens(rows: pd.DataFrame, tokenizer: Tokenizer, labels: list[str], settings: Settings) -> list[Json]:
    prefix = settings.classifier.text_prefix
    texts = [prefix + text for text in rows["text"]]
    ids = TextTokens(tokenizer)(texts, truncation=True, max_length=settings.max_tokens)
    return [{"input_ids": x, "labels": labels.index(name)} for x, name in zip(ids, rows["category"], strict=True)]


def _trainer(
    model: PeftModel,
    tokenizer: Tokenizer,
    sets: dict[str, list[Json]],
    weights: torch.Tensor,
    work: Path,
    settings: Settings,
) -> Trainer:
    steps = math.ceil(len(sets[TRAIN]) / (settings.batch_size * settings.accumulation)) * settings.epochs
    dtype = compute_dtype(settings.device)

    def scores(prediction: EvalPrediction) -> dict[str, float]:
        guess = np.asarray(prediction.predictions).argmax(-1)
        found = {
            f"{kind}_f1": f1_score(prediction.label_ids, guess, average=kind, zero_division=0)
            for kind in ("weighted", "macro")
        }
        done = trainer.state.epoch / settings.epochs
        # Until settled the later epoch counts as the better one: it is not kept later, and patience is not used up.
        return found | {"choice": found["weighted_f1"] if done > SETTLED else done - 1}

    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(work),
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            per_device_train_batch_size=settings.batch_size // processes.count(),
            per_device_eval_batch_size=4 * settings.batch_size,
            gradient_accumulation_steps=settings.accumulation,
            average_tokens_across_devices=False,  # our loss is the mean of a process's batch, not a share of a sum
            weight_decay=settings.weight_decay,
            warmup_steps=round(settings.warmup_share * steps),
            train_sampling_strategy="group_by_length",
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
        ),
        train_dataset=sets[TRAIN],
        eval_dataset=sets[VALIDATION],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_loss_func=weighted_loss(weights, settings.label_smoothing),
        compute_metrics=scores,
        callbacks=[EarlyStoppingCallback(settings.patience), _Bar(steps)],
    )
    trainer.loss_is_scaled_for_ga = False  # ours is a mean over its batch: accumulated ones are to be averaged
    trainer.remove_callback(PrinterCallback)  # without the Trainer's own bar it prints a dictionary a log line
    return trainer


class _Bar(TrainerCallback):
    """Our own progress bar in place of the Trainer's log lines."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar = progress(self.steps, "train")
        self.bar.update(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar.update(1)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **found: Any) -> None:
        self.bar.set_postfix_str(f"weighted F1 {found['metrics']['eval_weighted_f1']:.3f}")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar.total = state.global_step  # early stopping leaves steps undone
        self.bar.refresh()
        self.bar.close()


def _history(state: TrainerState) -> pd.DataFrame:
    """A row an epoch: the training loss, the validation scores, and whether its weights were kept."""
    rows: dict[float, Json] = {}
    for entry in state.log_history:
        row = rows.setdefault(round(entry["epoch"], 3), {})
        row |= {"train_loss": entry["loss"]} if "loss" in entry else {}
        if "eval_loss" in entry:
            row |= {"validation_loss": entry["eval_loss"], "kept": entry["step"] == state.best_global_step}
            row |= {name: entry[f"eval_{name}"] for name in ("weighted_f1", "macro_f1")}
    return pd.DataFrame([{"epoch": epoch} | row for epoch, row in sorted(rows.items())], columns=HISTORY)


def _identity(settings: Settings) -> list[object]:
    """Everything the adapter depends on beside its rows."""
    names = (
        "seed",
        "epochs",
        "learning_rate",
        "batch_size",
        "accumulation",
        "lora_targets",
        "lora_rank",
        "lora_alpha",
        "lora_dropout",
        "weight_decay",
        "warmup_share",
        "class_weight_power",
        "label_smoothing",
        "patience",
        "max_tokens",
        "baseline_c",
    )
    return [vars(settings.classifier) | settings.classifier.content, {name: getattr(settings, name) for name in names}]
