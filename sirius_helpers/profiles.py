"""The two profiles, t4 and cpu, as values of settings, and which of them a machine takes.

values, reason = choose_profile("auto")
"""

from __future__ import annotations

import torch

from .errors import UserError
from .kinds import Json
from .models import CAUSAL_LM, ENCODER, ModelSpec

PROFILES = ("auto", "t4", "cpu")


def t4() -> Json:
    """Profile for a 16 GB T4: the hub models, in fp16 and NF4: the card has no bf16.

    Pinned are the commits that are known; the others are found when a run begins, and recorded.
    """
    return {
        "profile": "t4",
        "device": "cuda",
        "labeler": ModelSpec("t-tech/T-lite-it-1.0", weights="nf4", chat=True),
        "labeler_kind": "llm",
        # NF4 would halve the decoding rate of a 1.5B model and saves memory that is not short here.
        "writer": ModelSpec(
            "Vikhrmodels/Vikhr-Qwen-2.5-1.5B-Instruct",
            weights="fp16",
            chat=True,
            revision="c9f763e5097587066e602ebabed4d93ea29bb60c",
        ),
        # fp32 weights under fp16 autocast: an adapter in fp16 cannot be unscaled.
        # The commit is the conversion bot's pull request: main has no safetensors.
        "classifier": ModelSpec("ai-forever/ruRoberta-large", revision="cc30a74bcda300cab3dacede42fd995094203403"),
        "lora_targets": ("query", "key", "value", "dense"),
        "learning_rate": 2e-4,
        "batch_size": 32,
    }


def cpu() -> Json:
    """Profile for a machine without a GPU: embedded weights, a capped number of synthetic reviews."""
    return {
        "profile": "cpu",
        "device": "cpu",
        "labeler": ModelSpec(ENCODER, text_prefix="query: "),
        "labeler_kind": "few-shot",
        # The base model's verdicts on the control texts: 47 of 60 right with it, all 30 reviews among them.
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


def choose_profile(profile: str) -> tuple[Json, str]:
    """Profile values and the reason for them. `auto` takes t4 where CUDA works, otherwise cpu."""
    if profile not in PROFILES:
        raise UserError(f"PROFILE={profile!r} is not one of: {', '.join(PROFILES)}.")
    cuda = torch.cuda.is_available()
    if profile == "t4" and not cuda:
        raise UserError("PROFILE='t4' needs a CUDA device and none is visible; use PROFILE='auto' or 'cpu'.")
    if profile != "auto":
        return (t4() if profile == "t4" else cpu()), "asked for"
    if cuda:
        return t4(), f"CUDA device found: {torch.cuda.get_device_name(0)}"
    return cpu(), "no CUDA device found"
