"""Prompts and answers as tokens, for closed questions: what a batch of them looks like before a model sees it.

Knows tokenizers; no model.

    prompt = PromptTokens(tokenizer, "<bos>Отзыв: ", "\\nТовар:")
    tree = AnswerTree(answers, [tuple(encode(tokenizer, answer)) for answer in answers], constrained=True)
    ids, positions, visible, scored = lay_out([prompt.with_text("Сапоги промокают")], tree, len(prompt.prefix_ids))
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

import torch

from .errors import UserError


class PromptTokens:
    """Prompts as tokens. Only the piece around the text, from the last special token of the prefix to the
    first one of the tail, is tokenised for each: special tokens keep their neighbours apart."""

    def __init__(self, tokenizer, prefix: str, tail: str) -> None:
        if not prefix:
            raise UserError("the prefix of a closed question is empty; put the fixed part of the prompt there.")
        start = max((stop for _, stop in _special_places(tokenizer, prefix)), default=0)
        stop = min((start for start, _ in _special_places(tokenizer, tail)), default=len(tail))
        self.tokenizer, self.before, self.behind = tokenizer, prefix[start:], tail[:stop]
        self.first_ids, self.last_ids = encode(tokenizer, prefix[:start]), encode(tokenizer, tail[stop:])
        self.prefix_ids = encode(tokenizer, prefix)
        for probe in ("а 1.\nA ", " а"):
            shared, rest = self.with_text(probe)
            if self.prefix_ids[:shared] + rest != encode(tokenizer, prefix + probe + tail):
                raise UserError(f"{type(tokenizer).__name__} joins text across special tokens: not supported here.")

    def with_text(self, text: str) -> tuple[int, list[int]]:
        """How many tokens of the prefix the prompt begins with, and its other tokens, at least one."""
        piece = encode(self.tokenizer, self.before + text + self.behind, split_special_tokens=True)
        ids = [*self.first_ids, *piece, *self.last_ids]
        same = [a == b for a, b in zip(self.prefix_ids, ids[:-1], strict=False)]
        shared = [*same, False].index(False)
        return shared, ids[shared:]


class AnswerTree:
    """The answers' tokens as a tree. A node is the tuple of tokens that leads to it; the prompt is the root ().

    The forward needs the nodes at which a next token is scored, and those on the way there. For the constrained
    reading these are the branching ones: a single possible token has probability one.
    """

    def __init__(self, answers: Sequence[str], paths: list[tuple[int, ...]], constrained: bool) -> None:
        children: dict[tuple[int, ...], set[int]] = {}
        for path in paths:
            for n, token in enumerate(path):
                children.setdefault(path[:n], set()).add(token)
        unclear = [not path or paths.count(path) > 1 or (constrained and path in children) for path in paths]
        if any(unclear) or len(paths) < 2:
            raise UserError(
                "a closed question needs two or more answers, none of them empty, doubled or (without `end`) the "
                f"beginning of another; given: {list(answers)}, at fault: {list(compress(answers, unclear))}."
            )
        scored = [node for node in children if not constrained or len(children[node]) > 1]
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


def lay_out(prompts: list[tuple[int, list[int]]], tree: AnswerTree, prefix: int) -> tuple[torch.Tensor, ...]:
    """One prompt a row, the tree right behind it, then padding.

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


def encode(tokenizer, text: str, **options) -> list[int]:
    return tokenizer(text, add_special_tokens=False, **options)["input_ids"]


def _special_places(tokenizer, text: str) -> list[tuple[int, int]]:
    """Where special tokens begin and end in a text."""
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    places = zip(found["input_ids"], found["offset_mapping"], strict=True)
    return [place for i, place in places if i in special]
