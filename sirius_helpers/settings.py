"""Every setting of a run in one validated object, and the two profiles that fill it.

Knows names, numbers and folders; loads no model and reads no data.

    settings = settings_for("auto", data="data/sample", run="sample")
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .errors import UserError
from .model_files import model_content
from .prompts import read_prompts

PROJECT = Path(__file__).resolve().parent.parent
PROFILES = ("auto", "t4", "cpu")
ENCODER, CAUSAL_LM = "embedded:encoder", "embedded:causal-lm"  # resolved by embedded.py, without a network


@dataclass(frozen=True)
class ModelSpec:
    """A model by name and how to hold it in memory."""

    name: str  # hub id, local folder, or one of the embedded names above
    weights: str = "fp32"  # nf4 | fp16 | bf16 | fp32: how the weights lie in memory
    chat: bool = False  # prompts go through the tokenizer's chat template
    text_prefix: str = ""  # what the encoder wants before each text (e5: "query: ")
    revision: str | None = None  # hub commit to pin; the commit really used is recorded in run.json
    server: str | None = None  # address of an inference server that holds the model; `name` then gives the tokenizer
    server_requests: int = 16  # at once

    def __post_init__(self) -> None:
        _one_of("weights", self.weights, ("nf4", "fp16", "bf16", "fp32"))
        _at_least("server_requests", self.server_requests, 1)
        if self.server is not None and not self.server.startswith(("http://", "https://")):
            raise UserError(f"server={self.server!r} is no address; write one such as 'http://127.0.0.1:8080/v1'.")

    @property
    def identity(self) -> dict:
        """What the model's answers depend on; a server may move to another address."""
        return {**vars(self), "server": self.server is not None, "server_requests": None, **self.content}

    @property
    def content(self) -> dict:
        """What tells a local folder's model from another one at the same place; nothing for other models."""
        folder = Path(self.name)
        return {"content": model_content(folder)} if folder.is_dir() else {}


@dataclass(frozen=True)
class Settings:
    """One run. Fields without a default come from the profile."""

    profile: str  # t4 | cpu
    profile_reason: str
    device: str  # cuda | cpu
    labeler: ModelSpec
    labeler_kind: str  # llm | few-shot
    writer: ModelSpec  # paraphrases and judges
    classifier: ModelSpec
    lora_targets: tuple[str, ...]  # names of the linear layers that get an adapter

    data: Path = PROJECT / "data" / "sample"  # train.csv, test.csv, categories.toml or categories.txt
    run: str = "sample"  # files go to checkpoints/<run>/
    labels: Path | None = None  # ready-made labels: text and a category column
    checkpoints: Path = Path(os.environ.get("SIRIUS_CHECKPOINTS", PROJECT / "checkpoints"))
    seed: int = 42
    # Labels and verdicts divided by what a text without content gets: helps a weak model. A strong one would lose
    # "нет товара", which is the right label for a review without content.
    prior_correction: bool = False
    prompts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # replaces templates by name

    # Labels
    category_orders: int = 1  # rotations of the category list in the prompt, averaged; each costs one pass
    few_shot_c: float = 10.0  # inverse regularisation of the few-shot logistic regression
    max_review_chars: int = 2_000  # longer texts are cut before a model sees them

    # Synthetic reviews. Sampling values are the reference solution's.
    max_synthetic: int | None = None  # cap on the total, rarest categories first; None: the whole quota
    max_attempts: int = 100  # candidates per wanted review before it is given up
    temperature: float = 0.8
    top_p: float = 0.9
    max_new_tokens: int = 150
    judge_temperature: float = 0.7
    judge_draws: int = 2  # all must say yes
    category_check: bool = False  # the labeler must still find the original's category; it is loaded beside the writer
    min_chars: int = 3  # a shorter candidate is no review
    min_length_ratio: float = 0.3  # candidate to original, in characters
    max_length_ratio: float = 2.0
    length_slack: int = 60  # characters a candidate may have beyond its original whatever the ratio
    min_cyrillic: float = 0.5  # share of the letters, where the original has it too
    max_repeated: float = 0.2  # share of a candidate's three-word runs that were there before
    leak_words: int = 5  # so many words of the prompt in a row are a leak; four occur in real reviews
    max_copy_similarity: float = 90.0  # 0..100, rapidfuzz ratio; from it on a candidate repeats a known text
    tokens_per_batch: int = 16_384  # padded tokens in one generation or scoring batch; halves on out-of-memory

    # Split
    split: str = "grouped"  # grouped (leak-free) | seed (the reference's)
    test_share: float = 0.2
    validation_share: float = 0.1  # of the rest; picks the best checkpoint
    near_duplicate: float = 90.0  # 0..100, rapidfuzz ratio; from it on two reviews count as one

    # Training
    epochs: int = 12
    learning_rate: float = 5e-4
    batch_size: int = 16
    accumulation: int = 1
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.1
    weight_decay: float = 0.01
    warmup_share: float = 0.1  # of all steps
    class_weight_power: float = 0.5  # 0: no weights, 1: inverse frequency
    label_smoothing: float = 0.05
    patience: int = 4  # epochs without a better weighted F1 before training stops
    max_tokens: int = 256  # a longer text is cut
    baseline_c: float = 100.0  # inverse regularisation of the linear baseline

    # Evaluation
    bootstrap: int = 1_000  # resamples behind each 95 % interval

    def __post_init__(self) -> None:
        _one_of("profile", self.profile, PROFILES[1:])
        _one_of("device", self.device, ("cuda", "cpu"))
        _one_of("labeler_kind", self.labeler_kind, ("llm", "few-shot"))
        _one_of("split", self.split, ("grouped", "seed"))
        _between("test_share", self.test_share, 0.01, 0.9)
        _between("validation_share", self.validation_share, 0.01, 0.9)
        _between("top_p", self.top_p, 1e-6, 1)
        _between("temperature", self.temperature, 1e-3, 10)
        _between("judge_temperature", self.judge_temperature, 1e-3, 10)
        _between("lora_dropout", self.lora_dropout, 0, 0.99)
        _between("warmup_share", self.warmup_share, 0, 1)
        _between("label_smoothing", self.label_smoothing, 0, 0.99)
        _between("min_length_ratio", self.min_length_ratio, 0, 1)
        _between("max_length_ratio", self.max_length_ratio, 1, 1_000)
        _between("length_slack", self.length_slack, 0, 10_000)
        _between("min_cyrillic", self.min_cyrillic, 0, 1)
        _between("max_repeated", self.max_repeated, 0, 1)
        _between("max_copy_similarity", self.max_copy_similarity, 0, 100)
        for name in (
            "category_orders",
            "max_attempts",
            "max_new_tokens",
            "judge_draws",
            "tokens_per_batch",
            "epochs",
            "batch_size",
            "accumulation",
            "lora_rank",
            "lora_alpha",
            "patience",
            "max_tokens",
            "bootstrap",
            "max_review_chars",
            "min_chars",
            "leak_words",
        ):
            _at_least(name, getattr(self, name), 1)
        if self.max_synthetic is not None:
            _at_least("max_synthetic", self.max_synthetic, 0)
        if not self.run or Path(self.run).name != self.run or self.run.startswith("."):
            raise UserError(f"RUN={self.run!r} is not a plain folder name; choose one such as 'my_run'.")

    @property
    def folder(self) -> Path:
        """Where this run's files lie."""
        return self.checkpoints / self.run

    def as_dict(self) -> dict:
        """The settings as plain JSON values."""
        return {
            key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(self).items()
        }


def t4() -> dict:
    """Profile for a 16 GB T4: the hub models; fp16 where the card has no bf16."""
    return {
        "profile": "t4",
        "device": "cuda",
        "labeler": ModelSpec("t-tech/T-lite-it-1.0", weights="nf4", chat=True),
        "labeler_kind": "llm",
        # NF4 would halve the decoding rate of a 1.5B model and saves memory that is not short here.
        "writer": ModelSpec("Vikhrmodels/Vikhr-Qwen-2.5-1.5B-Instruct", weights="fp16", chat=True),
        # fp32 weights under fp16 autocast: an adapter in fp16 cannot be unscaled.
        "classifier": ModelSpec("ai-forever/ruRoberta-large"),
        "lora_targets": ("query", "key", "value", "dense"),
        "learning_rate": 2e-4,
        "batch_size": 32,
    }


def cpu() -> dict:
    """Profile for a machine without a GPU: embedded weights, a capped number of synthetic reviews."""
    return {
        "profile": "cpu",
        "device": "cpu",
        "labeler": ModelSpec(ENCODER, text_prefix="query: "),
        "labeler_kind": "few-shot",
        # The base model's verdicts on known reviews and refusals: right in 68 % without it, 99 % with it.
        "prior_correction": True,
        "writer": ModelSpec(CAUSAL_LM, weights="bf16"),
        "classifier": ModelSpec(ENCODER, text_prefix="query: "),
        "lora_targets": ("query", "key", "value", "dense"),
        # Chosen on inner folds of training rows; adapter dropout costs a quarter of the time and gained nothing.
        "learning_rate": 1e-3,
        "lora_dropout": 0.0,
        "epochs": 10,
        # A base model of 270M wanders off at the reference's 0.8, and about one candidate in four is accepted.
        "temperature": 0.6,
        "max_synthetic": 32,
        "max_attempts": 6,
        "max_new_tokens": 80,
        "tokens_per_batch": 4_096,  # a batch is what a kill can cost; here it takes seconds
    }


def choose_profile(profile: str) -> tuple[dict, str]:
    """Profile values and the reason for them. `auto` takes t4 where CUDA works, otherwise cpu."""
    _one_of("PROFILE", profile, PROFILES)
    cuda = torch.cuda.is_available()
    if profile == "t4" and not cuda:
        raise UserError("PROFILE='t4' needs a CUDA device and none is visible; use PROFILE='auto' or 'cpu'.")
    if profile != "auto":
        return (t4() if profile == "t4" else cpu()), "asked for"
    if cuda:
        return t4(), f"CUDA device found: {torch.cuda.get_device_name(0)}"
    return cpu(), "no CUDA device found"


def settings_for(
    profile: str = "auto", *, data: str | Path = "", run: str = "", labels: str | Path = "", **changes
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
    settings = Settings(**values)
    return dataclasses.replace(settings, prompts=read_prompts(settings.data) | dict(settings.prompts))


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


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"{name}={value!r} is not one of: {', '.join(allowed)}.")


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UserError(f"{name}={value!r} must lie between {low} and {high}.")


def _at_least(name: str, value: int, low: int) -> None:
    if value < low:
        raise UserError(f"{name}={value!r} must be at least {low}.")
