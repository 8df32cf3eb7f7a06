"""Every setting of a run in one validated object.

Knows names, numbers and folders; loads no model and reads no data.

    settings = settings_for("auto", data="data/sample", run="sample")
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from .errors import UserError
from .kinds import Json
from .models import ModelSpec
from .profiles import choose_profile
from .prompts import read_prompts
from .validation import (
    Count,
    Inverse,
    Number,
    Portion,
    PositiveShare,
    Rate,
    Seed,
    Share,
    Similarity,
    Temperature,
    validated,
)

PACKAGE = Path(str(files(__package__)))
BUNDLED = PACKAGE / "data"  # taxonomy and control texts for a data folder without its own
_NOTEBOOK = "notebooks/sirius_pipeline.ipynb"
# The checkout that the package stands in; the current folder where a wheel was installed elsewhere.
PROJECT = next((folder for folder in PACKAGE.resolve().parents if (folder / _NOTEBOOK).exists()), Path.cwd())
NOTEBOOK = PROJECT / _NOTEBOOK


@validated
class Settings:
    """One run. Fields without a default come from the profile."""

    profile: Literal["t4", "cpu"]
    profile_reason: str
    device: Literal["cuda", "cpu"]
    labeler: ModelSpec
    labeler_kind: Literal["llm", "few-shot"]
    writer: ModelSpec  # paraphrases and judges
    classifier: ModelSpec
    lora_targets: Annotated[tuple[str, ...], Field(min_length=1)]  # names of the linear layers that get an adapter

    data: Path = PROJECT / "data" / "sample"  # train.csv, test.csv, categories.toml or categories.txt
    run: str = "sample"  # files go to checkpoints/<run>/
    labels: Path | None = None  # ready-made labels: text and a category column
    checkpoints: Path = Path(os.environ.get("SIRIUS_CHECKPOINTS", PROJECT / "checkpoints"))
    seed: Seed = 42
    # Labels and verdicts divided by what a text without content gets: helps a weak model. A strong one would lose
    # "нет товара", which is the right label for a review without content.
    prior_correction: bool = False
    prompts: Mapping[str, Mapping[str, str]] = Field(default_factory=dict)  # replaces templates by name

    # Labels
    category_orders: Count = 1  # rotations of the category list in the prompt, averaged; each costs one pass
    few_shot_c: Inverse = 10.0  # inverse regularisation of the few-shot logistic regression
    max_review_chars: Count = 2_000  # longer texts are cut before a model sees them

    # Synthetic reviews. Sampling values are the reference solution's.
    max_synthetic: Number | None = None  # cap on the total, rarest categories first; None: the whole quota
    max_attempts: Count = 100  # candidates per wanted review before it is given up
    temperature: Temperature = 0.8
    top_p: PositiveShare = 0.9
    max_new_tokens: Count = 150
    judge_temperature: Temperature = 0.7
    judge_draws: Count = 2  # all must say yes
    category_check: bool = False  # the labeler must still find the original's category; it is loaded beside the writer
    min_chars: Count = 3  # letters; a candidate with fewer is no review
    min_length_ratio: Share = 0.5  # candidate to original, in characters
    max_length_ratio: Annotated[float, Field(ge=1)] = 2.0
    length_slack: Number = 60  # characters a candidate may have beyond its original whatever the ratio
    min_cyrillic: Share = 0.5  # share of the letters, where the original has it too
    max_repeated: Share = 0.2  # share of a candidate's three-word runs that were there before
    leak_words: Count = 5  # so many words of the prompt in a row are a leak; four occur in real reviews
    max_copy_similarity: Similarity = 90.0  # from it on a candidate repeats a known text
    tokens_per_batch: Count = 16_384  # padded tokens in one generation or scoring batch; halves on out-of-memory

    # Split
    split: Literal["grouped", "seed"] = "grouped"  # leak-free, or the reference's
    test_share: Portion = 0.2
    validation_share: Portion = 0.1  # of the rest; picks the best checkpoint
    near_duplicate: Similarity = 90.0  # from it on two reviews count as one

    # Training
    epochs: Count = 12
    learning_rate: PositiveShare = 5e-4
    batch_size: Count = 16
    accumulation: Count = 1
    lora_rank: Count = 16
    lora_alpha: Count = 32
    lora_dropout: Rate = 0.1
    weight_decay: Share = 0.01
    warmup_share: Share = 0.1  # of all steps
    class_weight_power: Share = 0.5  # 0: no weights, 1: inverse frequency
    label_smoothing: Rate = 0.05
    patience: Count = 4  # epochs without a better weighted F1 before training stops
    max_tokens: Count = 256  # a longer text is cut
    baseline_c: Inverse = 100.0  # inverse regularisation of the linear baseline

    # Evaluation
    bootstrap: Count = 1_000  # resamples behind each 95 % interval

    def __post_init__(self) -> None:
        if not self.run or Path(self.run).name != self.run or self.run.startswith("."):
            raise UserError(f"RUN={self.run!r} is not a plain folder name; choose one such as 'my_run'.")

    @property
    def folder(self) -> Path:
        """Where this run's files lie."""
        return self.checkpoints / self.run

    def as_dict(self) -> Json:
        """The settings as plain JSON values."""
        return {
            key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(self).items()
        }


def settings_for(
    profile: str = "auto", *, data: str | Path = "", run: str = "", labels: str | Path = "", **changes: Any
) -> Settings:
    """Settings of a profile with a user's changes on top.

    Empty `data`, `run` and `labels` mean the defaults; prompts come from the data folder's prompts.toml where there
    is one, and from `changes` before that. Relative paths are taken from the current folder and,
    where nothing is there, from the project's. An unknown name in `changes` is an error.
    """
    values, reason = choose_profile(profile)
    known = {f.name for f in dataclasses.fields(Settings)}
    unknown = sorted(set(changes) - known)
    if unknown:
        raise UserError(f"unknown setting {', '.join(unknown)}; the known ones are: {', '.join(sorted(known))}.")
    values |= {"profile_reason": reason} | changes
    if data:
        values["data"] = _find(data)
    if run:
        values["run"] = run
    if labels:
        values["labels"] = _find(labels)
    if "checkpoints" in changes:
        values["checkpoints"] = Path(changes["checkpoints"]).expanduser().resolve()
    settings = Settings(**values)
    return dataclasses.replace(settings, prompts=read_prompts(settings.data) | dict(settings.prompts))


def how_to_install(extra: str) -> str:
    """The command that brings one of the package's extras, to a checkout or to a wheel that was installed."""
    return f'pip install -e "{PROJECT}[{extra}]"' if NOTEBOOK.exists() else f'pip install "sirius-helpers[{extra}]"'


def compute_dtype(device: str) -> torch.dtype | None:
    """Autocast type for training and prediction; None where fp32 is best.

    A T4 reports bf16 as supported but emulates it slowly, so CUDA takes fp16.
    """
    if device == "cuda":
        return torch.float16
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else None


def _find(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if not path.is_absolute() and not path.exists() and (PROJECT / path).exists():
        path = PROJECT / path
    return path.resolve()
