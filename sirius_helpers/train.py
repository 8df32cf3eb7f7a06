"""LoRA fine-tuning with the best checkpoint by weighted F1, and the linear baseline it must beat.

Writes `adapter/` (safetensors, id2label, temperature), `history.csv` and the training part of `metrics.json`.

    train(settings)                        # stage "train"
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from datasets import Dataset
from torch import nn

from .encoder.classifier import Classifier, config_of, new_model, save
from .encoder.embedding import Linear, fit_linear, frozen_embeddings, token_ids
from .encoder.scores import SPREAD, best_epoch, calibration_rows, fit_temperature
from .encoder.trainer import MIN_EPOCH_SHARE, class_weights, history_of, new_trainer, train_on
from .errors import UserError, is_out_of_memory
from .files.categories import labels_of, read_categories
from .files.journal import write_atomically
from .files.reviews import TRAIN, VALIDATION, read_csv, write_csv
from .files.runs import USES, Run, digest, pinned, stage_mark, told
from .loaders import load_tokenizer, quiet, release
from .settings import Settings


@told
def train(settings: Settings) -> pd.DataFrame:
    """Stage "train": fit the baseline, start the head from it, train the adapters; returns the history."""
    run, settings = Run(settings.folder, settings), pinned(settings, "classifier")
    labels = labels_of(read_categories(settings.data))
    content = digest(run.need("split.csv"))
    mark = stage_mark("train", content, labels, _identity(settings), SPREAD, MIN_EPOCH_SHARE)
    work = run.path(f"training-{mark}")  # a kill leaves checkpoints here; the next run goes on from the last
    if run.is_finished("train", mark):
        shutil.rmtree(work, ignore_errors=True)
        print("train: the adapter was trained earlier on these rows and settings; reused.")
        return pd.read_csv(run.path("history.csv"))
    table = read_csv(run.need("split.csv"))
    if unknown := sorted(set(table["category"]) - set(labels)):
        place = f"{run.path('split.csv')} holds categories that {settings.data} does not name (any longer)"
        raise UserError(f"{place}: {', '.join(unknown)}. Run the stages from 'label' on again.")
    if not PartialState(cpu=settings.device == "cpu").is_main_process:  # the first process writes, all have its weights
        return _fit(table, labels, None, settings, run, work)
    with run.stage("train", mark) as facts:
        rows = table[table["part"] == TRAIN]
        if rows["category"].nunique() < 2:
            raise UserError(
                f"all {len(rows)} training rows of {run.path('split.csv')} have the same category. Look at the labels, "
                "correct some in corrections.csv, or add reviews to train.csv."
            )
        vectors = frozen_embeddings(rows["text"].tolist(), settings)
        targets = targets_of(rows, labels)
        row, label = targets.nonzero()  # a review of two possible categories counts for both, as far as it may be each
        names = [labels[i] for i in label]
        linear = fit_linear(vectors[row], names, labels, settings.baseline_c, targets[row, label])
        history = _fit(table, labels, linear, settings, run, work)
        facts["revision"] = settings.classifier.revision
        write_csv(run.path("history.csv"), history)
        metrics = json.dumps({"training": best_epoch(history)}, ensure_ascii=False, indent=2)
        write_atomically(run.path("metrics.json"), metrics.encode())  # the evaluation adds the held-out scores
    shutil.rmtree(work)  # only now: until the stage is recorded a kill needs them
    return history


def targets_of(rows: pd.DataFrame, labels: list[str]) -> np.ndarray:
    """What each row of split.csv teaches, (rows, labels): its label's probabilities, or else its category alone."""
    found: np.ndarray = (rows["category"].to_numpy()[:, None] == np.array(labels, dtype=object)).astype(float)
    columns = [f"p_{name}" for name in labels]
    if set(columns) <= set(rows):
        given = rows[columns].to_numpy(dtype=float)
        known = given.sum(axis=1) > 0  # imported labels have none
        found[known] = given[known] / given[known].sum(axis=1, keepdims=True)
    return found


def start_head(head: nn.Module, linear: Linear) -> None:
    """Copy the linear solution into the head, so that training starts from the baseline instead of from noise."""
    head.load_state_dict({name: torch.from_numpy(values) for name, values in vars(linear).items()})


def _fit(
    table: pd.DataFrame, labels: list[str], linear: Linear | None, settings: Settings, run: Run, work: Path
) -> pd.DataFrame:
    """Writes the adapter; returns the history.

    Only the first of several processes has the linear solution, and only it writes.
    """
    parts = {part: table[table["part"] == part] for part in (TRAIN, VALIDATION)}
    if parts[VALIDATION].empty:
        raise UserError("the validation part of split.csv is empty; add reviews or raise validation_share.")
    torch.manual_seed(settings.seed)
    tokenizer, model = load_tokenizer(settings.classifier), new_model(settings, len(labels))
    if linear is not None:
        start_head(model.get_submodule("base_model.model.head.modules_to_save.default"), linear)
        for old in run.folder.glob("training-*"):
            if old != work:
                shutil.rmtree(old)
    sets = {}
    for part, rows in parts.items():
        ids = token_ids(rows["text"], tokenizer, settings.classifier.text_prefix, settings.max_tokens)
        sets[part] = Dataset.from_dict({"input_ids": ids, "labels": targets_of(rows, labels).tolist()})
    weights = class_weights(parts[TRAIN]["category"], labels, settings.class_weight_power)
    trainer = new_trainer(model, tokenizer, sets, weights, work, settings)
    try:
        with quiet():
            train_on(trainer)
        if linear is not None:
            config = config_of(settings, labels, temperature=1.0)
            raw = Classifier(model.eval(), tokenizer, config, settings.device, settings.tokens_per_batch)
            rows = calibration_rows(table)
            truth = rows["category"].map(labels.index).to_numpy(dtype=int)
            temperature = fit_temperature(raw(rows["text"].tolist()), truth)
            fresh, adapter = run.path("adapter.part"), run.path("adapter")
            shutil.rmtree(fresh, ignore_errors=True)
            save(model, tokenizer, fresh, settings, labels, temperature)
            linear.save(fresh)
            shutil.rmtree(adapter, ignore_errors=True)
            fresh.rename(adapter)
        return history_of(trainer.state)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory while training with batches of {settings.batch_size} texts. Halve batch_size and double "
            "accumulation in the settings (a step still learns from as many texts), or lower max_tokens, and run again."
        ) from error
    finally:
        release(model)


def _identity(settings: Settings) -> list[object]:
    """Everything the adapter depends on beside its rows."""
    model = vars(settings.classifier) | settings.classifier.content
    return [model, {name: getattr(settings, name) for name in USES["train"].split() if name != "classifier"}]
