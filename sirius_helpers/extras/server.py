"""A model on an inference server that the user already has: closed questions and samples over its OpenAI interface.

The interface `/completions` as llama.cpp's server and vLLM speak it, with prompts as the model's own token ids.

    with causal_lm(ModelSpec("google/gemma-3-270m", server="http://127.0.0.1:8080/v1"), "cpu") as (server, tokenizer):
        question = question_to(server, tokenizer, "<bos>Отзыв: ", "\\nТовар:", [" обувь", " посуда"], end="\\n")
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
from scipy.special import log_softmax

from ..errors import UserError
from ..kinds import Json, Prompt, Tokenizer
from ..llm.questions import ClosedQuestion, question_to
from ..llm.sampler import sampler_of
from ..settings import ModelSpec

KEY = "SIRIUS_SERVER_KEY"  # environment variable with the key that the server asks for; written nowhere
TIMEOUT = 120.0  # seconds for one answer, the time in the server's queue included
PAUSE = 0.5  # seconds before a request that found no server, or a busy one, is tried again; then twice as many, …


class Server:
    """Completions from a server, several at once."""

    def __init__(self, spec: ModelSpec) -> None:
        assert spec.server is not None, "the settings name no server"
        self.name, self.address, self.requests = spec.name, spec.server.rstrip("/"), spec.server_requests
        key = os.environ.get(KEY, "").strip()
        if not (key.isascii() and key.isprintable()):  # httpx would put it into its error
            raise UserError(f"{KEY} holds characters that no key has; copy the key again.")
        headers, limits = {"Authorization": f"Bearer {key}"} if key else {}, httpx.Limits(max_connections=self.requests)
        self.client = httpx.Client(timeout=TIMEOUT, limits=limits, trust_env=False, headers=headers)

    def complete(self, prompt: Sequence[int], **options: Any) -> Json:
        """The one choice behind a prompt of token ids. A server that is not there or busy is asked again."""
        # vLLM takes what a request leaves open from the model's own generation_config.json.
        body = {"model": self.name, "prompt": list(prompt), "repetition_penalty": 1.0, "top_k": -1, "min_p": 0.0}
        for pauses in (0, 1, 2, 4, 8):
            time.sleep(PAUSE * pauses)
            try:
                answer = self.client.post(f"{self.address}/completions", json=body | options)
            except httpx.TransportError as error:
                reason = str(error) or type(error).__name__
                continue
            if answer.status_code == 200:
                choice: Json = answer.json()["choices"][0]
                return choice
            if answer.status_code == 401:
                raise UserError(f"the inference server {self.address} wants its key in the environment: {KEY}=…")
            reason = f"status {answer.status_code}, {answer.text[:200]!r}"
            if answer.status_code != 429 and answer.status_code < 500:
                raise UserError(f"the inference server {self.address} refuses a request: {reason}")
        raise UserError(
            f"the inference server {self.address} does not answer ({reason}). Start it and run the stage again: what "
            "was finished is kept."
        )

    def map_concurrently(self, work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """`work` of every item, in order, so many at a time; the first failure cancels what has not begun."""
        with ThreadPoolExecutor(self.requests) as pool:
            return list(pool.map(work, items))


class ServerQuestion(ClosedQuestion):
    """A closed question, a request for each place where answers part: a bias leaves only tokens that continue one."""

    def _attach(self, model: Server) -> None:
        self.server = model

    def _score(self, prompts: Sequence[Prompt]) -> np.ndarray:
        begun = [[*self.prompt.prefix_ids[:shared], *rest] for shared, rest in prompts]
        asked = [([*ids, *path], n) for ids in begun for n, path in enumerate(self.tree.places)]
        rows = np.stack(self.server.map_concurrently(self._next, asked)).reshape(len(begun), -1, len(self.tree.tokens))
        return np.stack([rows[:, nodes, tokens].sum(1) for nodes, tokens in self.tree.paths], axis=1)

    def _next(self, asked: tuple[list[int], int]) -> np.ndarray:
        """Log-probabilities of the tree's tokens behind a prompt, -inf for those that continue no answer there."""
        ids, place = asked
        mask = self.tree.allowed[place].numpy()
        allowed = [token for token, may_come in zip(self.tree.tokens, mask, strict=True) if may_come]
        choice = self.server.complete(
            ids,
            max_tokens=1,
            temperature=1.0,
            top_p=1.0,
            logit_bias={str(token): 100.0 for token in allowed},  # OpenAI's largest leaves the others nothing
            logprobs=max(20, len(allowed)),  # so many vLLM reports unasked
            # llama.cpp: the probabilities that the bias leads to, and no other samplers in between
            post_sampling_probs=True,
            samplers=["temperature"],
            # vLLM: tokens by number, because texts do not always tell them apart
            return_tokens_as_token_ids=True,
        )
        found = token_log_probs(choice)
        if missing := [token for token in allowed if token not in found]:
            raise UserError(
                f"the inference server {self.server.address} gives no probability for {len(missing)} of {len(allowed)} "
                "tokens that may come. Start vLLM with --logprobs-mode processed_logprobs --max-logprobs 100, or use "
                "llama.cpp's server."
            )
        row = np.full(len(mask), -np.inf)
        row[mask] = log_softmax([found[token] for token in allowed])
        if not np.isfinite(row[mask]).all():
            raise UserError(
                f"the inference server {self.server.address} reports probabilities that are no numbers: its model "
                "overflows. Start it with bf16 or fp32 weights."
            )
        return row


class ServerSampler:
    """Sampled continuations from a served model, a seed for each; what `Sampler` is for a loaded one."""

    def __init__(
        self,
        server: Server,
        tokenizer: Tokenizer,
        prefix: Sequence[int],
        *,
        max_new_tokens: int,
        stop: str | None = None,
        **sampling: float,  # temperature, top_p
    ) -> None:
        self.server, self.prefix = server, list(prefix)
        self.options = {**sampling, "max_tokens": max_new_tokens, "samplers": ["top_p", "temperature"]}  # and no others
        self.options |= {"stop": [stop]} if stop else {}

    def __call__(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[str]:
        """Continuations, without what follows `stop`; a prompt is given as `PromptTokens.with_text` gives it."""

        def one(asked: tuple[Prompt, int]) -> str:
            (shared, rest), seed = asked
            prompt = [*self.prefix[:shared], *rest]
            text: str = self.server.complete(prompt, seed=seed % 2**31, **self.options)["text"]
            return text.strip()

        return self.server.map_concurrently(one, zip(prompts, seeds, strict=True))


question_to.register(Server, ServerQuestion)
sampler_of.register(Server, ServerSampler)


def token_log_probs(choice: Json) -> dict[int, float]:
    """Token -> log-probability at the first new place, from llama.cpp's answer or from vLLM's."""
    said = choice.get("logprobs") or {}
    if said.get("content"):
        first = said["content"][0]
        entries = first.get("top_probs") or first.get("top_logprobs") or []
        return {e["id"]: math.log(max(e["prob"], 1e-300)) if "prob" in e else e["logprob"] for e in entries}
    places = said.get("top_logprobs") or [{}]
    named = {name.removeprefix("token_id:"): value for name, value in places[0].items()}
    return {int(name): value for name, value in named.items() if name.isdigit()}
