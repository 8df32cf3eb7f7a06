"""How many synthetic reviews are wanted of which originals.

wanted = plan(labels, max_synthetic=None)              # labels: columns id, text, category
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

MOST_COPIES = 9  # the reference's figure for the rarest of its nine categories


@dataclass(frozen=True)
class Wanted:
    """One synthetic review to be made: the n-th paraphrase of an original."""

    source_id: str
    copy: int  # from 1
    category: str
    original: str

    @property
    def key(self) -> tuple[str, int]:
        """What tells one wanted review from another."""
        return self.source_id, self.copy


def copies_per_category(categories: Sequence[str]) -> dict[str, int]:
    """Paraphrases for each original, by rarity: the most frequent category 1, the next 2, … (the reference's quota)."""
    counts = Counter(categories)
    by_frequency = sorted(counts, key=lambda name: (-counts[name], name))
    return {name: min(rank, MOST_COPIES) for rank, name in enumerate(by_frequency, start=1)}


def most_multiplied(categories: Sequence[str]) -> set[str]:
    """The rarer half of the categories, in which an error is multiplied by most."""
    by_frequency = list(copies_per_category(categories))
    return set(by_frequency[(len(by_frequency) + 1) // 2 :])


def plan(labels: pd.DataFrame, max_synthetic: int | None) -> list[Wanted]:
    """Everything to be made, rarest categories first, in each the first paraphrases of all before the second."""
    copies = copies_per_category(labels["category"].tolist())
    wanted = [
        Wanted(row["id"], copy, row["category"], row["text"])
        for row in labels.to_dict("records")
        for copy in range(1, copies[row["category"]] + 1)
    ]
    wanted.sort(key=lambda item: (-copies[item.category], item.category, item.copy))
    return wanted[:max_synthetic]
