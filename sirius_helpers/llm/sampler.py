"""Sampled continuations in left-padded batches, each row with a seed of its own.

sampler = Sampler(model, tokenizer, prompt.prefix_ids, temperature=0.8, top_p=0.9, max_new_tokens=80)
texts = sampler([prompt.with_text(review) for review in reviews], seeds)
"""

import copy
from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from ..errors import not_finite
from ..kinds import Json, Prompt, Tokenizer

LIKELIEST = 1024  # tokens looked at before all of them are


class SeededTopP(LogitsProcessor):
    """Draws each row's next token by temperature and top-p (Holtzman et al. 2020) with a generator of its own.

    `do_sample` draws the whole batch from one stream, so a row's text would depend on its neighbours. The drawn token
    is left as the only finite score: the maximum of scores with Gumbel noise is a sample (the Gumbel-max trick).

    The noise follows from the row, the step and the token, not from the token's rank: scores rounded differently, as
    16-bit models give them in batches of another shape, then seldom lead to another token. Of 24 texts of the 270M
    model in bf16, 15 were the same alone and in one batch; with noise by rank 4.

    Sorting 262,144 scores a row took most of the time of a step, so a few are looked at first, which nearly always
    hold the whole nucleus. Scores that are not finite are a UserError, but not behind one of the `ends`, where a row's
    text is over.
    """

    def __init__(
        self, temperature: float, top_p: float, seeds: Sequence[int], ends: Sequence[int] = (), model: object = None
    ) -> None:
        self.temperature, self.top_p, self.model = temperature, top_p, model
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.ends, self.over = torch.tensor(ends, dtype=torch.long), torch.zeros(len(seeds), dtype=torch.bool)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores, (rows, vocabulary), where all but the drawn token are minus infinity."""
        log_probs = (scores.float() / self.temperature).log_softmax(-1)
        likeliest, tokens = log_probs.topk(min(LIKELIEST, log_probs.shape[1]))
        if not likeliest[:, 0].cpu()[~self.over].isfinite().all():
            raise not_finite(self.model)
        keys = torch.stack([torch.randint(2**62, (1,), generator=generator) for generator in self.generators])
        keys = keys.to(scores.device)  # of each row, anew at each step
        drawn = self._draw(likeliest, tokens, keys)
        wide = likeliest.exp().sum(-1) < self.top_p
        if wide.any():
            drawn[wide] = self._draw(*log_probs[wide].sort(descending=True), keys[wide])
        self.over |= torch.isin(drawn[:, 0].cpu(), self.ends)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0)

    def _draw(self, log_probs: torch.Tensor, tokens: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """A token of each row, (rows, 1), among the first ones that make up top-p; `log_probs` come in order."""
        before = log_probs.exp().cumsum(-1) - log_probs.exp()  # probability of all likelier tokens
        gumbel = -torch.log(-torch.log(_uniform(keys + tokens)))
        return tokens.gather(1, log_probs.where(before < self.top_p, -torch.inf).add(gumbel).argmax(-1, keepdim=True))


def _uniform(numbers: torch.Tensor) -> torch.Tensor:
    """A number between 0 and 1 for each whole number, always the same: splitmix64's mixing (Steele et al. 2014)."""
    mixed = numbers * -0x61C8864680B583EB
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        mixed = (mixed ^ (mixed >> shift)) * factor
    return ((mixed ^ (mixed >> 31)) & (2**23 - 1)).add(0.5) / 2**23  # exact in fp32, and never 0 or 1


class Sampler:
    """Continues prompts until an end token, `stop` or the token limit; the `prefix` they begin with is read once."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Tokenizer,
        prefix: Sequence[int] = (),
        *,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        stop: str | None = None,
    ) -> None:
        self.model, self.tokenizer, self.prefix, self.stop = model, tokenizer, list(prefix), stop
        self.temperature, self.top_p, self.max_new_tokens = temperature, top_p, max_new_tokens
        self.end_ids = sorted(_end_ids(model, tokenizer, stop))
        ends: Json = {"eos_token_id": self.end_ids, "pad_token_id": tokenizer.pad_token_id}
        # The only finite score is the sample.
        self.generation = GenerationConfig(do_sample=False, max_new_tokens=max_new_tokens, **ends)
        # `generate` fills in from here whatever it isn't told, be it a penalty, forced tokens or a kind of cache:
        # of the model's own file only the end tokens stay in force.
        model.generation_config = GenerationConfig(eos_token_id=model.generation_config.eos_token_id)
        self.window = getattr(model.config.get_text_config(), "sliding_window", None)
        self.prefix_cache: DynamicCache | None = None

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[str]:
        """Continuations of prompts from `PromptTokens.with_text`, without special tokens and what follows `stop`."""
        shared = self._shared(prompts)
        rests = [[*self.prefix[shared:count], *rest] for count, rest in prompts]
        inputs = self.tokenizer.pad({"input_ids": rests}, return_tensors="pt").to(self.model.device)
        before = torch.tensor([self.prefix[:shared]] * len(rests), dtype=torch.long, device=self.model.device)
        ids = torch.cat([before, inputs["input_ids"]], dim=1)  # the padding stands behind the prefix
        seen = torch.cat([torch.ones_like(before), inputs["attention_mask"]], dim=1)
        process = SeededTopP(self.temperature, self.top_p, seeds, self.end_ids, self.model)
        out = self.model.generate(  # type: ignore[operator]  # only the classes that inherit from it declare it
            ids,
            attention_mask=seen,
            past_key_values=self._copies_of_prefix(shared, len(rests)) if shared else None,
            generation_config=self.generation,
            logits_processor=LogitsProcessorList([process]),
        )
        texts = self.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
        return [text.split(self.stop)[0].strip() if self.stop else text.strip() for text in texts]

    def _shared(self, prompts: Sequence[Prompt]) -> int:
        """How many tokens of the prefix all rows can share.

        Padding stands behind them, and a sliding window counts it as tokens: one that does not hold the whole row would
        lose some that it should see. Then nothing is shared.
        """
        shared = min(count for count, _ in prompts)
        width = max(count + len(rest) for count, rest in prompts) + self.max_new_tokens
        return 0 if self.window and width > self.window else shared

    def _copies_of_prefix(self, shared: int, rows: int) -> DynamicCache:
        """Keys and values of the prefix's first tokens, for each row."""
        if self.prefix_cache is None:
            self.prefix_cache = DynamicCache(config=self.model.config)
            tokens = torch.tensor([self.prefix], device=self.model.device)
            self.model(tokens, past_key_values=self.prefix_cache, use_cache=True, logits_to_keep=1)
        cache = copy.deepcopy(self.prefix_cache)
        cache.crop(shared - len(self.prefix))  # 0 leaves all of it
        cache.batch_repeat_interleave(rows)
        return cache


@singledispatch
def sampler_of(model: Any, *prompt: Any, **options: Any) -> Callable[[Sequence[Prompt], Sequence[int]], list[str]]:
    """A sampler of a model in memory; what holds a model elsewhere registers a kind of its own."""
    return Sampler(model, *prompt, **options)


def _end_ids(model: PreTrainedModel, tokenizer: Tokenizer, stop: str | None) -> set[int]:
    """End tokens of the model and, with `stop`, every token that holds it."""
    configured = model.generation_config.eos_token_id
    ids = {*(configured if isinstance(configured, list) else [configured]), tokenizer.eos_token_id}
    if stop:
        words = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
        ids |= {i for i, word in enumerate(words) if stop in word}
    return ids - {None}
