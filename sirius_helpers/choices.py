"""Log-probabilities of a closed set of answers, one forward a batch and no generation: labels and verdicts alike.

The fixed beginning of the prompt is encoded once; its keys and values serve all texts. Behind it stand the
rest of each prompt and one tree of all answers, under a mask that keeps texts and branches apart. Knows tokens
and models; not what is asked.

    question = ClosedQuestion(model, tokenizer, "<bos>Отзыв: ", "\\nКатегория:", [" обувь", " посуда"], end="\\n")
    log_probs = question.log_probs(["Сапоги промокают"])                 # (texts, answers)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import Linear, functional
from transformers.cache_utils import Cache, DynamicLayer

from .batching import Batcher
from .errors import UserError

ROW = 256  # tokens: short prompts lie side by side in rows of this length
HEAD_POSITIONS = 256  # that meet the whole vocabulary at once: up to 262k logits each


class ClosedQuestion:
    """Log-probabilities of a closed set of answers to one question about many texts.

    A prompt is `prefix + text + tail`; an answer follows. Special tokens written out in prefix and tail are
    special tokens, and none are added; a text is data, and such markers in it are spelled out. The tokens are
    those of the whole prompt tokenised at once, wherever prefix and text meet: a text shares as many tokens of
    the encoded prefix as its prompt begins with. An answer with its `end` is tokenised by itself, so it begins
    with the blank, if any, that stands between it and the tail.

    `reading` says which probability; both are exact:
    - "constrained": that of constrained decoding, which at each step draws among the tokens that continue some
      answer. Sums to one over the answers.
    - "sequence": that of the model's writing the answer and then `end`, among everything it could write. Needs
      the whole vocabulary's logits at every inner node of the tree; sums to less than one.

    `end` ("\\n", "<|im_end|>") shows where an answer stops. Without it, "sequence" is the probability that what
    the model writes begins so, and "constrained" refuses an answer that another one begins with.
    """

    def __init__(
        self,
        model,
        tokenizer,
        prefix: str,
        tail: str,
        answers: Sequence[str],
        *,
        end: str | None = None,
        reading: str = "constrained",
        token_budget: int = 4096,
    ) -> None:
        if reading not in ("constrained", "sequence"):
            raise UserError(f"unknown reading {reading!r}; use 'constrained' or 'sequence'.")
        self.model, self.config = model, model.config.get_text_config()
        self.constrained = reading == "constrained"
        self.prompt = _Prompt(tokenizer, prefix, tail)
        encoded = [_encode(tokenizer, answer + (end or "")) for answer in answers]
        self.tree = _AnswerTree(answers, encoded, self.constrained)
        self.batcher = Batcher(token_budget)  # remembers what fitted
        self.prefix_cache: Cache | None = None

    @torch.inference_mode()
    def log_probs(
        self, texts: Sequence[str], on_batch: Callable[[list[int], np.ndarray], None] | None = None
    ) -> np.ndarray:
        """(texts, answers) float64 log-probabilities, rows in the order of `texts`.

        `on_batch(indices, rows)` is called after each finished batch, with the places of its texts and their rows.
        """
        prompts = [self.prompt.with_text(text) for text in texts]
        result = np.empty((len(texts), len(self.tree.paths)))

        def work(batch: list[int]) -> None:
            rows = self._score([prompts[i] for i in batch])
            if not np.isfinite(rows).all():
                raise UserError(
                    f"the model's scores are not finite in {self.model.dtype}: it overflows, as Qwen2 can in "
                    "fp16. Load it in bf16 or fp32 (nf4 weights: with that compute dtype)."
                )
            result[batch] = rows
            if on_batch:
                on_batch(batch, rows)

        self.batcher.run([len(ids) + len(self.tree.ids) for _, ids in prompts], work)
        return result

    def _score(self, prompts: list[tuple[int, list[int]]]) -> np.ndarray:
        """(shared tokens of the prefix, other tokens) of each prompt -> (prompts, answers)."""
        prefix = len(self.prompt.prefix_ids)
        if self.prefix_cache is None:
            cache = Cache(layer_class_to_replicate=_PrefixLayer)
            ids, positions = np.array([self.prompt.prefix_ids]), np.arange(prefix)[None]
            self._hidden(ids, positions, np.tri(prefix, dtype=bool)[None], cache)
            self.prefix_cache = cache
        ids, positions, visible, scored = _lay_out(prompts, self.tree, prefix)
        hidden = self._hidden(ids, positions, visible, self.prefix_cache).flatten(0, 1)
        logits = self._logits(hidden[torch.from_numpy(scored).to(hidden.device).flatten()])
        logits = logits.cpu().double().view(*scored.shape, -1)  # (prompts, scored nodes, tokens of the tree)
        if self.constrained:
            logits = logits.masked_fill(~torch.from_numpy(self.tree.allowed), -torch.inf).log_softmax(-1)
        return torch.stack([logits[:, nodes, tokens].sum(1) for nodes, tokens in self.tree.paths], 1).numpy()

    def _hidden(self, ids: np.ndarray, positions: np.ndarray, visible: np.ndarray, cache: Cache) -> torch.Tensor:
        """Last hidden states, (rows, tokens, width). `visible` is (rows, tokens, tokens in the cache + tokens)."""
        device, dtype = self.model.device, self.model.dtype
        ids, positions, visible = (torch.from_numpy(x).to(device) for x in (ids, positions, visible))

        def additive(seen: torch.Tensor) -> torch.Tensor:
            mask = torch.zeros(seen.shape, dtype=dtype, device=device)
            return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]

        masks = additive(visible)
        if "sliding_attention" in (getattr(self.config, "layer_types", None) or ()):
            before = torch.arange(visible.shape[2] - ids.shape[1], device=device).expand(len(ids), -1)
            distance = positions[:, :, None] - torch.cat([before, positions], dim=1)[:, None]
            near = additive(visible & (distance < self.config.sliding_window))
            masks = {"full_attention": masks, "sliding_attention": near}
        return self.model.get_decoder()(
            input_ids=ids, attention_mask=masks, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(positions, width) -> (positions, tokens of the tree), fp32.

        Normalised over the whole vocabulary, unless the tree's own rows of the head are enough.
        """
        head, tokens = self.model.get_output_embeddings(), torch.tensor(self.tree.tokens, device=hidden.device)
        if self.constrained and type(head) is Linear:  # no subclass: its weight may be packed or have an adapter
            bias = None if head.bias is None else head.bias[tokens].float()
            return self._capped(functional.linear(hidden.float(), head.weight[tokens].float(), bias))
        parts = []
        for part in hidden.split(HEAD_POSITIONS):
            logits = self._capped(head(part).float())
            parts.append(logits[:, tokens] - logits.logsumexp(-1, keepdim=True))
        return torch.cat(parts)

    def _capped(self, logits: torch.Tensor) -> torch.Tensor:
        cap = getattr(self.config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)


class _Prompt:
    """Prompts as tokens. Text before and behind a special token is tokenised apart, so the piece that holds the
    text, from the last special token of the prefix to the first of the tail, is all that changes."""

    def __init__(self, tokenizer, prefix: str, tail: str) -> None:
        if not prefix:
            raise UserError("the prefix of a closed question is empty; move the beginning of the prompt there.")
        start = max((stop for _, stop in _special_places(tokenizer, prefix)), default=0)
        stop = min((start for start, _ in _special_places(tokenizer, tail)), default=len(tail))
        self.tokenizer, self.before, self.behind = tokenizer, prefix[start:], tail[:stop]
        self.first_ids, self.last_ids = _encode(tokenizer, prefix[:start]), _encode(tokenizer, tail[stop:])
        self.prefix_ids = _encode(tokenizer, prefix)
        shared, ids = self.with_text(probe := "а 1.\nA ")
        if self.prefix_ids[:shared] + ids != _encode(tokenizer, prefix + probe + tail):
            raise UserError(f"{type(tokenizer).__name__} is not supported: text changes beyond special tokens.")

    def with_text(self, text: str) -> tuple[int, list[int]]:
        """How many tokens of the prefix the prompt begins with, and its other tokens, at least one."""
        piece = _encode(self.tokenizer, self.before + text + self.behind, split_special_tokens=True)
        ids = [*self.first_ids, *piece, *self.last_ids]
        same = [a == b for a, b in zip(self.prefix_ids, ids[:-1], strict=False)]
        shared = same.index(False) if False in same else len(same)
        return shared, ids[shared:]


class _AnswerTree:
    """The answers' tokens as a tree. A node is the tuple of tokens that leads to it; the root () is the prompt.

    Only nodes where a choice is scored, and those on the way there, stand in the forward.
    """

    def __init__(self, answers: Sequence[str], encoded: list[list[int]], constrained: bool) -> None:
        children: dict[tuple[int, ...], set[int]] = {}
        for ids in encoded:
            for n, token in enumerate(ids):
                children.setdefault(tuple(ids[:n]), set()).add(token)
        unclear = [
            answer
            for answer, ids in zip(answers, encoded, strict=True)
            if not ids or encoded.count(ids) > 1 or (constrained and tuple(ids) in children)
        ]
        if unclear or len(answers) < 2:
            raise UserError(
                f"a closed question needs at least two answers, none of them empty, doubled or (without `end`) the "
                f"beginning of another; given are {list(answers)}, of which {unclear} are such."
            )
        scored = [node for node in children if not constrained or len(children[node]) > 1]
        nodes = sorted({node[:n] for node in scored for n in range(1, len(node) + 1)}, key=len)
        self.ids = [node[-1] for node in nodes]
        self.depths = np.array([len(node) - 1 for node in nodes], dtype=int)
        self.visible = np.array([[node[: len(other)] == other for other in nodes] for node in nodes], dtype=bool)
        self.scored = np.array([nodes.index(node) if node else -1 for node in scored])  # -1: before the first node
        self.tokens = sorted({token for node in scored for token in children[node]})
        self.allowed = np.array([[token in children[node] for token in self.tokens] for node in scored])
        self.paths = []  # of each answer: its scored nodes and the tokens chosen there
        for ids in encoded:
            steps = [(tuple(ids[:n]), token) for n, token in enumerate(ids) if tuple(ids[:n]) in scored]
            self.paths.append(([scored.index(s) for s, _ in steps], [self.tokens.index(t) for _, t in steps]))


class _PrefixLayer(DynamicLayer):
    """Keeps the first keys and values it gets, the prefix's, and puts them before all later ones, which it forgets.

    Sliding-window layers keep the whole prefix too: the window is in the mask.
    """

    def update(self, keys: torch.Tensor, values: torch.Tensor, *args, **kwargs) -> tuple[torch.Tensor, ...]:
        if not self.is_initialized:
            return super().update(keys, values)
        pairs = ((self.keys, keys), (self.values, values))
        return tuple(torch.cat([kept.expand(len(new), -1, -1, -1), new], dim=-2) for kept, new in pairs)


def _lay_out(prompts: list[tuple[int, list[int]]], tree: _AnswerTree, prefix: int) -> tuple[np.ndarray, ...]:
    """Prompts with a tree behind each, side by side in rows.

    Returns ids and positions (rows, tokens), what each token sees (rows, tokens, prefix + tokens), and the scored
    places (prompts, scored nodes) as indices into the flattened rows.
    """
    sizes = [len(ids) + len(tree.ids) for _, ids in prompts]
    width = max(*sizes, min(ROW, sum(sizes)))
    starts, free = [], 0
    for size in sizes:
        if free % width + size > width:  # a prompt stays within one row
            free += width - free % width
        starts.append(free)
        free += size
    rows = -(-free // width)
    ids, positions = np.zeros((2, rows * width), dtype=np.int64)
    visible = np.zeros((rows * width, prefix + width), dtype=bool)
    here = np.arange(rows * width)
    visible[here, prefix + here % width] = True  # padding sees itself: a softmax over nothing is not a number
    for start, size, (shared, rest) in zip(starts, sizes, prompts, strict=True):
        ids[start : start + size] = [*rest, *tree.ids]
        positions[start : start + size] = shared + np.append(np.arange(len(rest)), len(rest) + tree.depths)
        own = np.tri(size, dtype=bool)
        own[len(rest) :, len(rest) :] = tree.visible
        visible[start : start + size, :shared] = True
        visible[start : start + size, prefix + start % width :][:, :size] = own
    roots = np.array([start + len(rest) for start, (_, rest) in zip(starts, prompts, strict=True)])
    ids, positions, visible = (x.reshape(rows, width, *x.shape[1:]) for x in (ids, positions, visible))
    return ids, positions, visible, roots[:, None] + tree.scored


def _encode(tokenizer, text: str, **options) -> list[int]:
    return tokenizer(text, add_special_tokens=False, **options)["input_ids"]


def _special_places(tokenizer, text: str) -> list[tuple[int, int]]:
    """Where special tokens begin and end in a text."""
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return [place for i, place in zip(found["input_ids"], found["offset_mapping"], strict=True) if i in special]
