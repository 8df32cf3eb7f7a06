"""Which labels are doubtful: models that never saw a review are asked whether they agree with its label.

rows = doubtful_labels(originals, vectors, labels, settings)     # the most doubtful first
rows = second_opinions(labels, phrases(taxonomy), settings)      # what the example phrases say
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from ..files.reviews import leak_groups
from ..loaders import encoder, quiet
from ..models.batching import Batcher
from ..settings import Settings
from .embedding import embed, fit_linear, logistic_regression

OPINIONS = ["id", "text", "category", "probability", "other", "nearest", "phrase"]
FOLDS = 5


def doubtful_labels(
    originals: pd.DataFrame, vectors: np.ndarray, labels: Sequence[str], settings: Settings
) -> pd.DataFrame:
    """Reviews whose label is likely wrong, the most doubtful first.

    `originals` have text, category and source_id, `vectors` are their embeddings. Returns id, text, category,
    suggested and doubt: the probability, 0 to 1, that the model leaves to other categories than the given one.

    Of 1,818 labels, 5 % exchanged at random, 92 % of the exchanged are listed and make up 89 % of the first 20 rows. A
    labeler's systematic errors are harder to find: the model learns them too.
    """
    groups = leak_groups(originals, settings.near_duplicate)
    rows = out_of_fold(vectors, originals["category"], groups, labels, settings.baseline_c, settings.seed)
    given = np.array([list(labels).index(name) for name in originals["category"]])
    suggested = confident_suggestions(rows, given)
    table = originals.rename(columns={"source_id": "id"}).assign(
        suggested=[labels[i] for i in suggested], doubt=1 - rows[np.arange(len(rows)), given]
    )
    doubtful: pd.DataFrame = table[suggested != given].sort_values(["doubt", "id"], ascending=[False, True])
    return doubtful[["id", "text", "category", "suggested", "doubt"]].round(3)


def second_opinions(rows: pd.DataFrame, known: Sequence[tuple[str, str]], settings: Settings) -> pd.DataFrame:
    """What else says of which category a review is: columns as in OPINIONS, the first four those of the labeler.

    `other` is the answer of the labeler that learns from the categories' phrases, `known` (text, category); empty where
    it had a say in the labels. `nearest` is the category of the most similar phrase, `phrase` its text. No rows where
    there is no such labeler, and of a category without a phrase.
    """
    texts, names = [text for text, _ in known], [name for _, name in known]
    spec, rows = settings.second_labeler, rows[rows["category"].isin(names)]
    if spec is None or rows.empty or len(set(names)) < 2:
        return pd.DataFrame(columns=OPINIONS)
    batcher = Batcher(settings.tokens_per_batch)
    with encoder(spec, settings.device) as loaded:
        vectors = embed([*texts, *rows["text"]], *loaded, prefix=spec.text_prefix, batcher=batcher)
    phrases, reviews = np.split(vectors, [len(texts)])
    heard = not settings.labels and (settings.labeler_kind == "few-shot" or settings.second_weight > 0)
    head = logistic_regression(phrases, names, settings.few_shot_c, class_weight="balanced")
    nearest = (reviews @ phrases.T).argmax(axis=1)
    chances = [(row or {}).get(name) for row, name in zip(rows["probabilities"], rows["category"], strict=True)]
    return rows[["id", "text", "category"]].assign(
        probability=pd.Series(chances, index=rows.index, dtype=float),
        other="" if heard else head.predict(reviews),
        nearest=[names[i] for i in nearest],
        phrase=[texts[i] for i in nearest],
    )


def out_of_fold(
    vectors: np.ndarray, categories: Iterable[str], groups: np.ndarray, labels: Sequence[str], c: float, seed: int
) -> np.ndarray:
    """Probabilities, (rows, labels), of the linear baseline fitted on the other folds.

    Folds keep groups whole, so that no near-duplicate vouches for a label. Where no other fold holds a row's category
    there is nothing to ask: its label gets probability 1.
    """
    given = np.array([*categories], dtype=object)
    rows: np.ndarray = (given[:, None] == np.array([*labels], dtype=object)).astype(float)
    fold = _folds(given, groups, seed)
    for number in range(FOLDS):
        learned = fold != number
        asked = ~learned & np.isin(given, given[learned])
        if asked.any() and len(set(given[learned])) > 1:
            rows[asked] = fit_linear(vectors[learned], given[learned], labels, c)(vectors[asked])
    return rows


def _folds(categories: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """A fold for each row: the groups of a category, in random order, are dealt out in turn."""
    names, first, member = np.unique(groups, return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(categories[first][order].astype(str), kind="stable")]
    fold = np.empty(len(names), dtype=int)
    fold[order] = np.arange(len(names)) % FOLDS
    return fold[member]


def confident_suggestions(probabilities: np.ndarray, given: np.ndarray) -> np.ndarray:
    """For each row the category it probably belongs to: another than the given one only with confidence.

    Confident learning (Northcutt, Jiang and Chuang 2021, arXiv:1911.00068) by its authors' library: each category has a
    threshold of its own, which makes up for categories the model is never sure of.
    """
    if len(set(given.tolist())) < 2:  # which the library refuses
        return given
    from cleanlab.filter import find_label_issues  # seconds to import, and most who import this need it not

    with quiet():  # it says of which rare categories it cannot tell every doubt
        doubted = find_label_issues(given, probabilities, n_jobs=1)
    return np.where(doubted, probabilities.argmax(axis=1), given)
