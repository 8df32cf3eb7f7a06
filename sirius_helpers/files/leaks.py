"""Rows that would leak across a split: near-duplicates, and paraphrases with their originals.

groups = leak_groups(table, threshold=90)      # a group stays on one side
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from rapidfuzz import fuzz, process
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .reviews import normalised

TRAIN, VALIDATION, TEST = PARTS = ("train", "validation", "test")  # column "part" of split.csv
EXAMPLE = "example"  # column "source_id" of a category's own phrase


def leak_groups(table: pd.DataFrame, threshold: float) -> np.ndarray:
    """A group number for each row: an original, its paraphrases, and all near-duplicates of any of them."""
    source = pd.factorize(table["source_id"])[0]
    first = pd.Series(range(len(table))).groupby(source).transform("first")
    links = [*enumerate(first), *near_duplicates(table["text"].tolist(), threshold)]
    rows, columns = np.array(links).T
    graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(len(table), len(table)))
    groups: np.ndarray = connected_components(graph, directed=False)[1]
    return groups


def near_duplicates(texts: Sequence[str], threshold: float, block: int = 1_000) -> Iterator[tuple[int, int]]:
    """Pairs of positions whose normalised texts have a rapidfuzz ratio (0..100) of `threshold` or more.

    The ratio is 2·m / (a + b) with m at most the shorter length, so only texts of similar length are compared:
    sorted by length, each block meets the rows up to the length where the threshold is out of reach.
    """
    order = sorted(range(len(texts)), key=lambda i: len(normalised(texts[i])))
    plain = [normalised(texts[i]) for i in order]
    lengths = np.array([len(text) for text in plain])
    reach = lengths * (200 - threshold) / threshold if threshold else np.full(len(plain), np.inf)
    for start in range(0, len(plain), block):
        rows = plain[start : start + block]
        others = plain[start : int(np.searchsorted(lengths, reach[start + len(rows) - 1], side="right"))]
        scores = process.cdist(rows, others, scorer=fuzz.ratio, score_cutoff=threshold, workers=-1)
        for one, other in zip(*np.nonzero(np.triu(scores >= threshold, k=1)), strict=True):
            yield order[start + one], order[start + other]


def repeating(texts: Sequence[str], others: Sequence[str], threshold: float) -> set[int]:
    """Positions of the texts that nearly repeat one of the others."""
    pairs = near_duplicates([*texts, *others], threshold)
    return {min(pair) for pair in pairs if min(pair) < len(texts) <= max(pair)}
