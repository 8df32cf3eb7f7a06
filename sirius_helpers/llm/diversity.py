"""How synthetic reviews compare with real ones: variety, length, distance from their originals, and whether a simple
model can tell the two apart.

    table = diversity(pairs)               # pairs: columns category, original, text
    auc = discriminability(pairs, seed=0)        # 0.5: nobody can tell, 1: everybody can
"""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import chain, islice

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from .filters import bare, word_runs


def diversity(pairs: pd.DataFrame) -> pd.DataFrame:
    """A row for each category and one for all.

    Columns: category, texts, distinct-1 and distinct-2 (share of different words and word pairs among 50), chrF to
    the original (0..1, mean), characters (median), length ratio (median of synthetic to original).
    """
    groups = [*pairs.groupby("category", sort=True), ("all", pairs)] if len(pairs) else []
    rows = [
        {
            "category": name,
            "texts": len(group),
            "distinct-1": distinct(group["text"], 1),
            "distinct-2": distinct(group["text"], 2),
            "chrF to original": float(np.mean([chrf(row.text, row.original) for row in group.itertuples()])),
            "characters": float(group["text"].str.len().median()),
            "length ratio": float((group["text"].str.len() / group["original"].str.len()).median()),
        }
        for name, group in groups
    ]
    return pd.DataFrame(rows)


def distinct(texts: Sequence[str], length: int, size: int = 50, draws: int = 20, seed: int = 0) -> float:
    """Share of different runs of `length` words (Li et al. 2016, arXiv:1510.03055) among `size` of them.

    It falls with the number of runs, hence always so many, in seeded draws of texts. NaN where there are fewer.
    """
    runs, source = [word_runs(text, length) for text in texts], random.Random(seed)
    if sum(map(len, runs)) < size:
        return float("nan")
    shares = []
    for _ in range(draws):
        source.shuffle(runs)
        shares.append(len(set(islice(chain.from_iterable(runs), size))) / size)
    return float(np.mean(shares))


def chrf(text: str, original: str, longest: int = 6, beta: float = 2.0) -> float:
    """Character n-gram F-score, 0..1, averaged over n = 1 to 6 (Popović 2015); 1 for equal words."""
    letters, scores = [bare(x).replace(" ", "") for x in (text, original)], []
    for n in range(1, longest + 1):
        one, other = (Counter(plain[i : i + n] for i in range(len(plain) - n + 1)) for plain in letters)
        if one and other:
            scores.append((1 + beta**2) * (one & other).total() / (one.total() + beta**2 * other.total()))
    return float(np.mean(scores)) if scores else 0.0


def discriminability(pairs: pd.DataFrame, seed: int, folds: int = 5) -> float | None:
    """AUC of a logistic regression on character n-grams that tells synthetic texts from their originals.

    An original and its paraphrases are in one fold, so no text is recognised by its twin. None for fewer than 20 texts.
    """
    originals = pairs["original"].drop_duplicates()
    if len(pairs) < 20 or len(originals) < 2:
        return None
    texts = [*originals, *pairs["text"]]
    synthetic = np.repeat([0, 1], [len(originals), len(pairs)])
    _, groups = np.unique([*originals, *pairs["original"]], return_inverse=True)
    model = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True, max_features=50_000),
        LogisticRegression(C=10, class_weight="balanced", max_iter=1_000, random_state=seed),
    )
    split = GroupKFold(min(folds, len(originals)), shuffle=True, random_state=seed)
    scores = cross_val_predict(model, texts, synthetic, groups=groups, cv=split, method="decision_function")
    return float(roc_auc_score(synthetic, scores))
