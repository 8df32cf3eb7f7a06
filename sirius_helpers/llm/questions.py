"""Log-probabilities of a closed set of answers, one forward pass per batch and no generation: labels and verdicts.

The fixed beginning of the prompt is encoded once and shared by all texts. After it come the rest of each prompt and one
tree of all answers, under a mask that keeps the branches apart.

    question = ClosedQuestion(model, tokenizer, "<bos>Отзыв: ", "\\nТовар:", [" обувь", " посуда"], end="\\n")
    log_probs = question.log_probs(["Сапоги промокают"])                 # (texts, answers)
"""

from collections.abc import Sequence
from functools import singledispatch
from itertools import compress
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax, logsumexp
from torch.nn import Linear, functional
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from ..errors import UserError, not_finite
from ..kinds import LanguageModel, OnBatch, Prompt, Tokenizer
from ..models.batching import Batcher
from ..models.text_tokens import PromptTokens, encode
from ..prompts import Template, answer_end, split_prompt
from ..settings import ModelSpec, Settings

HEAD_POSITIONS = 256  # that meet the whole vocabulary at once: up to 262k logits each
TOLERANCE = 0.05  # of the largest score: bf16 rounding was seen to move scores by 0.004 of it


def closed_question(
    template: Template,
    spec: ModelSpec,
    answers: Sequence[str],
    model: LanguageModel,
    tokenizer: Tokenizer,
    settings: Settings,
    prior_texts: Sequence[str],
    **values: str,
) -> "ClosedQuestion":
    """A prompt, filled with `values`, and the answers as `spec` gives them: a base model's begin with a blank."""
    prefix, tail = split_prompt(template, tokenizer, spec.chat, **values)
    given = answers if spec.chat else [f" {answer}" for answer in answers]
    end, budget = answer_end(tokenizer, spec.chat), settings.tokens_per_batch
    return question_to(model, tokenizer, prefix, tail, given, end=end, prior_texts=prior_texts, token_budget=budget)


@singledispatch
def question_to(model: Any, *framed: Any, **options: Any) -> "ClosedQuestion":
    """A closed question to a model in memory; what holds a model elsewhere registers a kind of its own."""
    return ClosedQuestion(model, *framed, **options)


class ClosedQuestion:
    """Log-probabilities of a closed set of answers to one question about many texts.

    A prompt is `prefix + text + tail`, as `PromptTokens` reads it. An answer and its `end` are tokenised together but
    apart from the prompt, so an answer begins with the blank, if any, that stands between it and the tail.

    The probability is that of constrained decoding, which at each step draws among the tokens that continue some
    answer. With `prior_texts` it is divided by the mean of what these texts get, which say nothing or speak for all
    answers alike: a weak model favours some answers whatever the text ("contextual calibration", Zhao et al. 2021,
    arXiv:2102.09690). Either way the answers sum to one.

    `end` ("\\n", "<|im_end|>") shows where an answer stops. Without it, one that another begins with is refused.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Tokenizer,
        prefix: str,
        tail: str,
        answers: Sequence[str],
        *,
        end: str | None = None,
        prior_texts: Sequence[str] = (),
        token_budget: int = 4096,
    ) -> None:
        self._attach(model)
        self.prompt = PromptTokens(tokenizer, prefix, tail)
        ids = [tuple(encode(tokenizer, answer + (end or ""))) for answer in answers]
        self.tree = AnswerTree(answers, ids)
        self.batcher = Batcher(token_budget)  # remembers what fitted
        self.prior: np.ndarray | None = None
        if prior_texts:
            self.prior = logsumexp(self.log_probs(prior_texts), axis=0) - np.log(len(prior_texts))

    def _attach(self, model: Any) -> None:
        self.model, self.config = model, model.config.get_text_config()
        self.prefix_cache: Cache | None = None

    @torch.inference_mode()
    def log_probs(self, texts: Sequence[str], on_batch: OnBatch | None = None) -> np.ndarray:
        """(texts, answers) float64 log-probabilities; `on_batch` gets the places and rows of each finished batch."""
        prompts = [self.prompt.with_text(text) for text in texts]
        result = np.empty((len(texts), len(self.tree.paths)))

        def work(batch: list[int]) -> None:
            rows = self._score([prompts[i] for i in batch])
            if self.prior is not None:
                rows = log_softmax(rows - self.prior, axis=1)
            result[batch] = rows
            if on_batch:
                on_batch(batch, rows)

        self.batcher.run([len(rest) + len(self.tree.ids) for _, rest in prompts], work)
        return result

    def _score(self, prompts: Sequence[Prompt]) -> np.ndarray:
        """Prompts as `PromptTokens.with_text` gives them -> (prompts, answers)."""
        if self.prefix_cache is None:
            self.prefix_cache = self._read_prefix()
        ids, positions, visible, scored = lay_out(prompts, self.tree, len(self.prompt.prefix_ids))
        hidden = self._hidden(ids, positions, visible, self.prefix_cache).flatten(0, 1)
        logits = self._logits(hidden[scored.flatten().to(hidden.device)]).cpu().double()
        logits = logits.view(*scored.shape, -1)  # (prompts, scored nodes, tokens of the tree)
        found = logits.masked_fill(~self.tree.allowed, -torch.inf).log_softmax(-1).numpy()
        rows = np.stack([found[:, nodes, tokens].sum(1) for nodes, tokens in self.tree.paths], axis=1)
        if not np.isfinite(rows).all():
            raise not_finite(self.model)
        return rows

    def _read_prefix(self) -> Cache:
        """Keys and values of the prefix, read in the model's own way; its last token is then read again as texts are.

        The scores must agree: there are models that scale their logits, or look back in a way not known here.
        """
        cache, ids = Cache(layer_class_to_replicate=_PrefixLayer), self.prompt.prefix_ids
        tokens = torch.tensor([ids], device=self.model.device)
        own = self.model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1].float()
        last, positions, visible, _ = lay_out([(len(ids) - 1, ids[-1:])], self.tree, len(ids))
        ours = self._logits(self._hidden(last, positions, visible, cache)[:, 0])
        if (ours - own[:, self.tree.tokens]).abs().max() > TOLERANCE * own.abs().max():
            raise UserError(
                f"{type(self.model).__name__} works in a way that closed questions do not know; choose another model."
            )
        return cache

    def _hidden(self, ids: torch.Tensor, positions: torch.Tensor, visible: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Last hidden states (rows, tokens, width); `visible` is (rows, tokens, tokens cached + tokens)."""
        ids, positions, visible = (x.to(self.model.device) for x in (ids, positions, visible))
        window = getattr(self.config, "sliding_window", None)
        kinds = getattr(self.config, "layer_types", None) or ["sliding_attention" if window else "full_attention"]
        seen = dict.fromkeys(kinds, visible)
        if window is not None and "sliding_attention" in seen:
            cached = torch.arange(visible.shape[2] - ids.shape[1], device=ids.device).expand(len(ids), -1)
            distance = positions[:, :, None] - torch.cat([cached, positions], dim=1)[:, None]
            seen["sliding_attention"] = visible & (distance < window)
        hide, dtype = torch.finfo(self.model.dtype).min, self.model.dtype
        masks = {kind: (~mask[:, None]).to(dtype).mul_(hide) for kind, mask in seen.items()}
        hidden: torch.Tensor = self.model.get_decoder()(
            input_ids=ids,
            attention_mask=masks if len(masks) > 1 else masks.popitem()[1],
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return hidden

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(positions, width) -> (positions, tokens of the tree), fp32."""
        head, cap = self.model.get_output_embeddings(), getattr(self.config, "final_logit_softcapping", None)
        tokens = torch.tensor(self.tree.tokens, device=hidden.device)
        if type(head) is Linear:  # neither packed nor with an adapter: the tree's own rows of it are enough
            bias = None if head.bias is None else head.bias[tokens].float()
            logits = functional.linear(hidden.float(), head.weight[tokens].float(), bias)
        else:
            logits = torch.cat([head(part)[:, tokens].float() for part in hidden.split(HEAD_POSITIONS)])
        return logits if cap is None else cap * torch.tanh(logits / cap)


class AnswerTree:
    """The answers' tokens as a tree. A node is the tuple of tokens that leads to it; the prompt is the root ().

    The forward needs the nodes at which a next token is scored, and those on the way there. Scored are the branching
    ones: a single possible token has probability one.
    """

    def __init__(self, answers: Sequence[str], paths: list[tuple[int, ...]]) -> None:
        children: dict[tuple[int, ...], set[int]] = {}
        for path in paths:
            for n, token in enumerate(path):
                children.setdefault(path[:n], set()).add(token)
        unclear = [not path or paths.count(path) > 1 or path in children for path in paths]
        if any(unclear) or len(paths) < 2:
            raise UserError(
                "a closed question needs two or more answers, none of them empty, doubled or (without `end`) the "
                f"beginning of another; given: {list(answers)}, at fault: {list(compress(answers, unclear))}."
            )
        scored = [node for node in children if len(children[node]) > 1]
        nodes = sorted({node[:n] for node in scored for n in range(1, len(node) + 1)}, key=len)
        self.ids = [node[-1] for node in nodes]
        self.depths = torch.tensor([len(node) for node in nodes], dtype=torch.long)
        self.visible = torch.tensor([[node[: len(other)] == other for other in nodes] for node in nodes])
        self.places = scored  # the tokens of an answer that lead to each scored node
        self.scored = torch.tensor([nodes.index(node) + 1 if node else 0 for node in scored])  # 0: the root
        self.tokens = sorted({token for node in scored for token in children[node]})
        self.allowed = torch.tensor([[token in children[node] for token in self.tokens] for node in scored])
        self.paths = []  # of each answer: its scored nodes, and which token it takes there
        for path in paths:
            steps = [(path[:n], token) for n, token in enumerate(path) if path[:n] in scored]
            self.paths.append(([scored.index(s) for s, _ in steps], [self.tokens.index(t) for _, t in steps]))


def lay_out(
    prompts: Sequence[Prompt], tree: AnswerTree, prefix: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """One prompt per row, the tree right after it, then padding.

    Returns ids and positions (rows, tokens), what each token sees (rows, tokens, prefix + tokens), and the
    scored places (rows, scored nodes) as indices into the flattened rows.
    """
    width = max(len(rest) for _, rest in prompts) + len(tree.ids)
    ids, positions = torch.zeros(2, len(prompts), width, dtype=torch.long)
    visible = torch.ones(width, prefix + width, dtype=torch.bool).tril(prefix).repeat(len(prompts), 1, 1)
    scored = []
    for row, (shared, rest) in enumerate(prompts):
        root, size = len(rest) - 1, len(rest) + len(tree.ids)
        ids[row, :size] = torch.tensor([*rest, *tree.ids])
        positions[row, :size] = shared + torch.cat([torch.arange(root + 1), root + tree.depths])
        visible[row, :, shared:prefix] = False
        visible[row, root + 1 : size, prefix + root + 1 : prefix + size] = tree.visible
        scored.append(row * width + root + tree.scored)
    return ids, positions, visible, torch.stack(scored)


class _PrefixLayer(DynamicLayer):
    """Keeps the first keys and values, the prefix's, before all later ones; a sliding window is in the mask alone."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.keys is None or self.values is None:
            return super().update(key_states, value_states)
        return _after(self.keys, key_states), _after(self.values, value_states)


def _after(kept: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """The new ones of each row after the ones that all rows share."""
    return torch.cat([kept.expand(len(new), -1, -1, -1), new], dim=-2)
