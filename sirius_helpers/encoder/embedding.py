"""Texts through an encoder: mean-pooled, length-normalised embeddings in length-sorted batches.

Knows nothing of categories.

    vectors = embed(texts, model, tokenizer, prefix="query: ", batcher=Batcher(16_384))   # (texts, width)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional
from transformers import BatchEncoding, PreTrainedModel

from ..kinds import OnBatch, Tokenizer
from ..llm.text_tokens import TextTokens
from ..models.batching import Batcher, progress

MAX_TOKENS = 256  # of a text, where nothing else is said


def mean_pooled(hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Unit-length mean over the real tokens: (batch, tokens, width) -> (batch, width), in fp32."""
    mask = attention_mask.unsqueeze(-1).float()
    return functional.normalize((hidden.float() * mask).sum(1) / mask.sum(1), dim=-1)


def embed(
    texts: Sequence[str],
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    *,
    prefix: str,
    batcher: Batcher,
    max_tokens: int = MAX_TOKENS,
    what: str | None = None,
    on_batch: OnBatch | None = None,
) -> np.ndarray:
    """Embeddings of texts, (texts, width) float32; `on_batch` gets each batch's positions and embeddings at once."""

    def forward(inputs: BatchEncoding) -> torch.Tensor:
        return mean_pooled(model(**inputs).last_hidden_state, inputs["attention_mask"])

    return run_rows(
        forward,
        texts,
        tokenizer,
        model.device,
        prefix=prefix,
        batcher=batcher,
        max_tokens=max_tokens,
        what=what,
        on_batch=on_batch,
    )


@torch.inference_mode()
def run_rows(
    forward: Callable[[BatchEncoding], torch.Tensor],
    texts: Sequence[str],
    tokenizer: Tokenizer,
    device: str | torch.device,
    *,
    prefix: str,
    batcher: Batcher,
    max_tokens: int,
    what: str | None = None,
    dtype: torch.dtype | None = None,
    on_batch: OnBatch | None = None,
) -> np.ndarray:
    """`forward(inputs) -> (batch, columns)` over any number of texts; rows come back in the texts' order.

    `dtype` turns autocast on; `what` names a progress bar.
    """
    ids = TextTokens(tokenizer)([prefix + text for text in texts], truncation=True, max_length=max_tokens)
    rows: list[np.ndarray] = [np.empty(0)] * len(texts)
    bar = progress(len(texts), what) if what else None

    def work(batch: list[int]) -> None:
        inputs = tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt").to(device)
        with torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype is not None):
            out = forward(inputs).float().cpu().numpy()
        for i, row in zip(batch, out, strict=True):
            rows[i] = row
        if on_batch:
            on_batch(batch, out)
        if bar:
            bar.update(len(batch))

    batcher.run([len(x) for x in ids], work)
    if bar:
        bar.close()
    return np.stack(rows)
