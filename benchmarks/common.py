"""What the benchmarks share: the sample's reviews, the machine's matrix rate, paired rounds, the closing line.

A benchmark compares the reference solution's way with ours on the same model and reviews in the same run. The
two take turns, and the ratio is the median over the rounds, because machines are noisy.
"""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch
from scipy.stats import t

from sirius_helpers.files.reviews import read_reviews
from sirius_helpers.files.runs import begin
from sirius_helpers.label import label
from sirius_helpers.review import review
from sirius_helpers.settings import PROJECT, ModelSpec, Settings, settings_for


def bench_settings() -> Settings:
    """The profile that this machine would take, on the bundled sample; MODEL names a chat model to ask instead."""
    settings = settings_for("auto", data=PROJECT / "data" / "sample", run="bench")
    if not (name := os.environ.get("MODEL")):
        return settings
    spec = ModelSpec(name, weights="bf16", chat=True)
    return replace(settings, labeler=spec, labeler_kind="llm", writer=spec)


def sample_reviews(count: int) -> list[str]:
    """The first reviews of the sample's training file."""
    return read_reviews(PROJECT / "data" / "sample" / "train.csv")["text"].tolist()[:count]


def labelled(settings: Settings) -> pd.DataFrame:
    """The originals with their labels, as the stages leave them: id, text, category."""
    begin(settings)
    label(settings)
    return review(settings)


def half_width(values: np.ndarray | pd.Series) -> np.ndarray | float:
    """Half of Student's 95 % interval of the mean over the first axis."""
    n = len(values)
    return t.ppf(0.975, n - 1) * np.std(values, axis=0, ddof=1) / n**0.5 if n > 1 else float("nan")


def spent() -> float:
    """Processor seconds so far, of this process and the server beside it."""
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (own, *own.children(recursive=True)))


def timed(work: Callable[..., Any], *given: Any) -> tuple[Any, float]:
    """What a call returns, and the processor seconds it took."""
    start = spent()
    return work(*given), spent() - start


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def take_turns(
    ours: Callable[[int], object], reference: Callable[[list[str]], object], texts: list[str], rounds: int, part: int
) -> list[tuple[float, float]]:
    """Seconds per text of each round: ours on all of them, the reference's way on the next `part` of them."""
    found = []
    for n in range(rounds):
        theirs = seconds(partial(reference, texts[n * part : (n + 1) * part])) / part
        found.append((seconds(partial(ours, n)) / len(texts), theirs))
    return found


def matmul_rate(dtype: torch.dtype, device: str, size: int = 2048) -> float:
    """FLOP/s of a large square matrix product: the best of several, as a machine's ceiling for this type."""
    one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    one @ other
    return 2 * size**3 / min(seconds(lambda: one @ other) for _ in range(8))


def forward_flops(model, tokens: int, pairs: int) -> float:
    """FLOPs of a forward through the decoder's layers, without embeddings and head.

    `tokens` go through every weight matrix; `pairs` are (query, key) places that attention really compares.
    """
    config = model.config.get_text_config()
    matrices = sum(m.in_features * m.out_features for m in model.get_decoder().modules() if hasattr(m, "in_features"))
    width = config.num_attention_heads * getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    return 2 * matrices * tokens + 4 * width * config.num_hidden_layers * pairs


class ReferenceWay:
    """One prompt at a time through `generate`, with the whole prompt read anew at each call."""

    def __init__(self, model, tokenizer, chat: bool) -> None:
        self.model, self.tokenizer = model, tokenizer
        # A chat model ends its answer itself; a base model's answer ends with the line.
        self.end = tokenizer.eos_token_id if chat else tokenizer("\n", add_special_tokens=False)["input_ids"][-1]

    @torch.inference_mode()
    def __call__(self, prompt: str, **options) -> str:
        inputs = self.tokenizer(prompt, add_special_tokens=False, return_tensors="pt").to(self.model.device)
        ends = {"eos_token_id": self.end, "pad_token_id": self.tokenizer.pad_token_id}
        out = self.model.generate(**inputs, **ends, **options)
        return self.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def report(name: str, rounds: list[tuple[float, float]], unit: str) -> None:
    """The closing line; `rounds` hold (ours, reference), both in seconds for one `unit`."""
    ours, reference = (median(column) for column in zip(*rounds, strict=True))
    ratio = median(other / own for own, other in rounds)
    print(f"{name} ratio={ratio:.1f} ours={ours:.4f} reference={reference:.4f} unit={unit}")
