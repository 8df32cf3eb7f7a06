"""A closed question as tokens: what a batch of prompts with all their answers looks like before a model sees it.

Knows no model.

    prompt = PromptTokens(tokenizer, "<bos>Отзыв: ", "\\nТовар:")
    tree = AnswerTree(answers, [tuple(encode(tokenizer, answer)) for answer in answers])
    ids, positions, visible, scored = lay_out([prompt.with_text("Сапоги промокают")], tree, len(prompt.prefix_ids))
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

import torch

from ..errors import UserError
from ..kinds import Prompt


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
