"""Sampled continuations in left-padded batches, each row with a seed of its own.

Knows how to sample; not what is asked or whether the answer is any good.

    sampler = Sampler(model, tokenizer, temperature=0.8, top_p=0.9, max_new_tokens=80, stop="\\n")
    texts = sampler(prompts, seeds)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper


class SeededGumbel(LogitsProcessor):
    """Adds Gumbel noise from a generator a row: taking the maximum is then sampling (the Gumbel-max trick).

    `do_sample` draws the whole batch from one stream, so a row's text depends on its neighbours; here it
    depends on its own seed, and a batch can be cut differently without changing what is sampled.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.float()
        for row, generator in enumerate(self.generators):
            allowed = scores[row].isfinite().nonzero().squeeze(-1)  # top-p left a few; noise only for those
            noise = torch.rand(len(allowed), generator=generator).clamp_(1e-20).to(scores.device)
            scores[row, allowed] -= torch.log(-torch.log(noise))
        return scores


class Sampler:
    """Continues prompts with temperature and top-p until an end token, `stop` or the token limit."""

    def __init__(
        self, model, tokenizer, *, temperature: float, top_p: float, max_new_tokens: int, stop: str | None = None
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.temperature, self.top_p, self.max_new_tokens = temperature, top_p, max_new_tokens
        self.stop = stop
        self.end_ids = sorted(_end_ids(model, tokenizer, stop))

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[str]:
        """Token ids of prompts in, continuations out, without special tokens and what follows `stop`."""
        inputs = self.tokenizer.pad({"input_ids": [list(ids) for ids in prompts]}, return_tensors="pt")
        inputs = inputs.to(self.model.device)
        out = self.model.generate(
            **inputs,
            do_sample=False,  # the maximum of noised scores is the sample
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=self.max_new_tokens,
            eos_token_id=self.end_ids,
            pad_token_id=self.tokenizer.pad_token_id,
            logits_processor=LogitsProcessorList(
                [TemperatureLogitsWarper(self.temperature), TopPLogitsWarper(self.top_p), SeededGumbel(seeds)]
            ),
        )
        texts = self.tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.split(self.stop)[0].strip() if self.stop else text.strip() for text in texts]


def _end_ids(model, tokenizer, stop: str | None) -> set[int]:
    """End tokens of the model and, with `stop`, every token that holds it."""
    configured = model.generation_config.eos_token_id
    ids = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    if stop:
        words = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
        ids |= {i for i, word in enumerate(words) if stop in word}
    return {i for i in ids if i is not None}
