"""Every setting of a run in one validated object: the profiles' values and the models by name among them.

settings = settings_for("auto", data="data/sample", run="sample")
ModelSpec("ai-forever/ruRoberta-large", revision="…")
"""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import wraps
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, dataclass_transform

import torch
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from .errors import UserError
from .kinds import Json

PACKAGE = Path(str(files(__package__)))
BUNDLED = PACKAGE / "data"  # taxonomy, prompts and control texts for a data folder without its own
_NOTEBOOK = "notebooks/sirius_pipeline.ipynb"
# The checkout that the package stands in; the current folder where a wheel was installed elsewhere.
PROJECT = next((folder for folder in PACKAGE.resolve().parents if (folder / _NOTEBOOK).exists()), Path.cwd())
NOTEBOOK = PROJECT / _NOTEBOOK

SAMPLES, SAMPLE = 16, 64 * 1024  # pieces of a file, bytes of each: a smaller file is read whole
# Resolved by embedded/, without a network.
ENCODER, CAUSAL_LM, CHAT_LM = EMBEDDED = ("embedded:encoder", "embedded:causal-lm", "embedded:chat-lm")

Kind = TypeVar("Kind")
Count = Annotated[int, Field(ge=1)]
Number = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what scikit-learn takes
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Portion = Annotated[float, Field(ge=0.01, le=0.9)]  # leaves something on either side
Rate = Annotated[float, Field(ge=0, lt=1)]
Similarity = Annotated[float, Field(ge=50, le=100)]  # rapidfuzz's ratio
Temperature = Annotated[float, Field(ge=1e-3, le=10)]
Inverse = Annotated[float, Field(ge=1e-6, le=1e6)]  # of a regularisation


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def validated(cls: type[Kind]) -> type[Kind]:
    """A frozen pydantic dataclass that raises UserError; a number may be given as text, a path as a string."""
    checked: Any = dataclass(frozen=True, config=ConfigDict(allow_inf_nan=False))(cls)
    create = checked.__init__

    @wraps(create)
    def create_or_explain(self: Kind, *args: Any, **values: Any) -> None:
        try:
            create(self, *args, **values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise UserError(f"{name}={first['input']!r}: {first['msg']}.") from None

    checked.__init__ = create_or_explain
    return cast(type[Kind], checked)


@validated
class ModelSpec:
    """A model by name and how to hold it in memory."""

    name: str  # hub id, local folder, or one of the embedded names above
    # nf4 is packed and computes in fp16 on a GPU, nf4-fp32 in fp32; bf16 is fp32 where a CPU would only emulate it.
    weights: Literal["nf4", "nf4-fp32", "fp16", "bf16", "fp32"] = "fp32"
    chat: bool = False  # prompts go through the tokenizer's chat template
    text_prefix: str = ""  # what the encoder wants before each text (e5: "query: ")
    revision: str | None = None  # hub commit to pin; a run fills in the one that it found, see runs.pinned
    server: str | None = None  # address of an inference server that holds the model; `name` then gives the tokenizer
    server_requests: Count = 16  # at once

    def __post_init__(self) -> None:
        if self.server is not None and not self.server.startswith(("http://", "https://")):
            raise UserError(f"server={self.server!r} is no address; write one such as 'http://127.0.0.1:8080/v1'.")

    def __str__(self) -> str:
        """As a table shows it."""
        return f"{self.name} ({self.weights})"

    @property
    def identity(self) -> Json:
        """What the model's answers depend on; a server may move to another address."""
        return {**vars(self), "server": self.server is not None, "server_requests": None, **self.content}

    @property
    def on_hub(self) -> bool:
        """Whether the name is one on the hub: neither an embedded model's nor a folder's."""
        return self.name not in EMBEDDED and not Path(self.name).exists()

    @property
    def content(self) -> Json:
        """What tells a local folder's model from another one at the same place; nothing for other models."""
        folder = Path(self.name)
        return {"content": model_content(folder)} if folder.is_dir() else {}


@validated
class Settings:
    """One run. Fields without a default come from the profile."""

    profile: Literal["t4", "cpu", "chat", "rehearsal"]
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
    # Verdicts divided by what a text without content gets: helps a weak judge.
    prior_correction: bool = False
    prompts: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)  # replaces templates by name

    # Labels
    second_labeler: ModelSpec | None = None  # an encoder that learns from the examples: a second opinion
    second_weight: Share = 0.0  # of that opinion in an LLM's labels, where the two are pooled
    few_shot_c: Inverse = 30.0  # inverse regularisation of the few-shot logistic regression
    max_review_chars: Count = 2_000  # longer texts are cut before a model sees them

    # Synthetic reviews. Sampling values are the reference solution's.
    multiply_contradicted: bool = False  # rare labels too that other opinions contradict and nobody confirmed
    max_synthetic: Number | None = None  # cap on the total, rarest categories first; None: the whole quota
    max_attempts: Count = 100  # candidates per wanted review before it is given up
    temperature: Temperature = 0.8
    top_p: PositiveShare = 0.9
    max_new_tokens: Count = 150
    judge_temperature: Temperature = 0.7
    judge_draws: Count = 2  # all must say yes
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
    soft_labels: bool = True  # learn from the labels' probabilities, where the labeler gives them
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


def t4() -> Json:
    """Profile for a 16 GB T4: the hub models, in fp16 and NF4: the card has no bf16. Known commits are pinned."""
    return {
        "profile": "t4",
        "device": "cuda",
        "labeler": ModelSpec("t-tech/T-lite-it-1.0", weights="nf4", chat=True),
        "labeler_kind": "llm",
        "second_labeler": ModelSpec("intfloat/multilingual-e5-small", text_prefix="query: "),
        # NF4 would halve the decoding rate of a 1.5B model and saves memory that is not short here.
        "writer": ModelSpec(
            "Vikhrmodels/Vikhr-Qwen-2.5-1.5B-Instruct",
            weights="fp16",
            chat=True,
            revision="c9f763e5097587066e602ebabed4d93ea29bb60c",
        ),
        # fp32 under fp16 autocast: an adapter in fp16 cannot be unscaled. Main has no safetensors, this commit has.
        "classifier": ModelSpec("ai-forever/ruRoberta-large", revision="cc30a74bcda300cab3dacede42fd995094203403"),
        "lora_targets": ("query", "key", "value", "dense"),
        "learning_rate": 2e-4,
        "batch_size": 32,
    }


def cpu() -> Json:
    """Profile for a machine without a GPU: embedded weights, a capped number of synthetic reviews."""
    from .prompts import FOR_A_BASE_MODEL

    return {
        "profile": "cpu",
        "device": "cpu",
        "labeler": ModelSpec(ENCODER, text_prefix="query: "),
        "labeler_kind": "few-shot",
        "second_labeler": ModelSpec(ENCODER, text_prefix="query: "),
        # The base model's verdicts on the control texts: 47 of 60 right with it, all 30 reviews among them.
        "prior_correction": True,
        "writer": ModelSpec(CAUSAL_LM, weights="bf16"),
        "prompts": FOR_A_BASE_MODEL,
        "classifier": ModelSpec(ENCODER, text_prefix="query: "),
        "lora_targets": ("query", "key", "value", "dense"),
        # Chosen on inner folds of training rows; adapter dropout costs a quarter of the time and gained nothing.
        "learning_rate": 1e-3,
        "lora_dropout": 0.0,
        "epochs": 10,
        # A base model of 270M wanders off at the reference's 0.8, and about one candidate in four is accepted.
        "temperature": 0.6,
        "max_synthetic": 16,
        "max_attempts": 6,
        "max_new_tokens": 80,
        "tokens_per_batch": 4_096,  # a batch is what a kill can cost; here it takes seconds
    }


def chat() -> Json:
    """The CPU profile with an instruction-tuned model of 1.5B: slower, and its texts and labels are worth a look."""
    return cpu() | {
        "profile": "chat",
        "labeler": ModelSpec(CHAT_LM, weights="bf16", chat=True),
        "labeler_kind": "llm",
        "second_weight": 0.6,  # chosen on 150 reviews, with this regularisation: docs/quality.md
        "few_shot_c": 10.0,
        "writer": ModelSpec(CHAT_LM, weights="bf16", chat=True),
        "prompts": {},
        "prior_correction": False,
        "max_synthetic": 32,
        # Above it the model wanders off, below it copies; what is 85 % alike is refused.
        "temperature": 0.65,
        "max_copy_similarity": 85.0,
    }


def rehearsal() -> Json:
    """The t4 profile's own path on a CPU: its prompts, NF4 for the labeler, its quotas up to a cap, its training."""
    of_chat = ("device", "second_labeler", "writer", "classifier", "max_new_tokens", "tokens_per_batch")
    return {**t4(), **{name: chat()[name] for name in of_chat}} | {
        "profile": "rehearsal",
        "labeler": ModelSpec(CHAT_LM, weights="nf4", chat=True),
        "max_synthetic": 96,
        "max_attempts": 10,
    }


PROFILES = {profile.__name__: profile for profile in (t4, cpu, chat, rehearsal)}


def choose_profile(profile: str) -> tuple[Json, str]:
    """Profile values and the reason for them. `auto` takes t4 where CUDA works, otherwise cpu."""
    if profile not in ("auto", *PROFILES):
        raise UserError(f"PROFILE={profile!r} is not one of: auto, {', '.join(PROFILES)}.")
    cuda = torch.cuda.is_available()
    if profile == "t4" and not cuda:
        raise UserError("PROFILE='t4' needs a CUDA device and none is visible; use PROFILE='auto', 'cpu' or 'chat'.")
    if profile != "auto":
        return PROFILES[profile](), "asked for"
    return (t4(), f"CUDA device found: {torch.cuda.get_device_name(0)}") if cuda else (cpu(), "no CUDA device found")


def settings_for(
    profile: str = "auto", *, data: str | Path = "", run: str = "", labels: str | Path = "", **changes: Any
) -> Settings:
    """Settings of a profile with a user's changes on top; empty `data`, `run` and `labels` mean the defaults.

    A prompt is that of `changes`, of the data folder's prompts.toml or of the profile, whichever has one first.
    Relative paths are taken from the current folder and, where nothing is there, from the project's.
    """
    from .prompts import read_prompts  # most stages need no prompts

    values, reason = choose_profile(profile)
    known = {f.name for f in dataclasses.fields(Settings)}
    if unknown := sorted(set(changes) - known):
        raise UserError(f"unknown setting {', '.join(unknown)}; the known ones are: {', '.join(sorted(known))}.")
    given = {"data": data and _find(data), "run": run, "labels": labels and _find(labels)}
    if "checkpoints" in changes:
        given["checkpoints"] = Path(changes["checkpoints"]).expanduser().resolve()
    chosen = {"profile_reason": reason} | changes | {name: value for name, value in given.items() if value}
    settings = Settings(**values | chosen)
    prompts = values.get("prompts", {}) | read_prompts(settings.data) | changes.get("prompts", {})
    return dataclasses.replace(settings, prompts=prompts)


def how_to_install(extra: str) -> str:
    """The command that brings one of the package's extras, to a checkout or to a wheel that was installed."""
    return f'pip install -e "{PROJECT}[{extra}]"' if NOTEBOOK.exists() else f'pip install "sirius-helpers[{extra}]"'


def compute_dtype(device: str) -> torch.dtype | None:
    """The 16-bit type that the device computes in; None where fp32 is best."""
    if device == "cuda":
        return torch.float16  # a T4 says that it has bf16, but emulates it slowly
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else None


def _find(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if not path.is_absolute() and not path.exists() and (PROJECT / path).exists():
        path = PROJECT / path
    return path.resolve()


def model_content(folder: Path) -> str:
    """Short sha256 of the names, sizes and samples of a folder's files, wherever the folder lies.

    The samples are spread over each file, so that weights which were trained on differ in some of them.
    """
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = path.stat().st_size
        whole.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        starts: Sequence[int] = range(0, size, SAMPLE)
        if len(starts) > SAMPLES:
            starts = [(size - SAMPLE) * n // (SAMPLES - 1) for n in range(SAMPLES)]
        with open(path, "rb") as file:
            for start in starts:
                file.seek(start)
                whole.update(file.read(SAMPLE))
    return whole.hexdigest()[:16]
