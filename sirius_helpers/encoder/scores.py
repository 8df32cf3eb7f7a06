"""Weighted F1, macro F1 and accuracy with bootstrap intervals, F1 by category; the three views they are read in.

Knows labels and answers, not who gave them.

    result = scores_with_intervals(truth, predicted, sources, labels, settings)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy.sparse import coo_array

from ..kinds import Json
from ..settings import Settings

SCORES = {"weighted_f1": "weighted F1", "macro_f1": "macro F1", "accuracy": "accuracy"}
ALL, ORIGINAL, HUMAN = "all held-out", "held-out originals", "human labels"  # which rows


def scores_with_intervals(
    truth: Iterable[str],
    predicted: Iterable[str],
    sources: Iterable[str],
    labels: Sequence[str],
    settings: Settings,
) -> Json:
    """Weighted F1, macro F1 and accuracy, each with a 95 % percentile-bootstrap interval, and per-class scores.

    Rows of one source, a review and its paraphrases, are drawn together: they are right or wrong alike, and drawing
    them one by one would make the intervals too narrow (cluster bootstrap; Field & Welsh 2007, J. R. Stat. Soc. B 69,
    369-390). Macro F1 averages over the classes that occur in truth or prediction, as scikit-learn does. A class's
    interval leaves out the resamples without a row of it, where its F1 is undefined and 0 would only say that the
    class is rare (Forman & Scholz 2010, SIGKDD Explorations 12(1), 49-57).
    """
    index = {name: i for i, name in enumerate(labels)}
    pairs = np.array([index[t] * len(labels) + index[p] for t, p in zip(truth, predicted, strict=True)])
    rng = np.random.default_rng(settings.seed)
    group, names = pd.factorize(np.asarray(list(sources)))
    shape = (len(labels) ** 2, len(names))
    by_group = coo_array((np.ones(len(pairs)), (pairs, group)), shape=shape).tocsr()  # a confusion matrix a column
    times = (rng.integers(0, len(names), len(names)) for _ in range(settings.bootstrap))
    resampled = np.stack([by_group @ np.bincount(drawn, minlength=len(names)) for drawn in times])
    point, spread = _scores(by_group.sum(1)[None]), _scores(resampled)
    result: Json = {"rows": len(pairs)}
    for name in SCORES:
        low, high = np.percentile(spread[name], [2.5, 97.5])
        result[name] = {"value": float(point[name][0]), "low": float(low), "high": float(high)}
    result["per_class"] = {}
    for i in np.flatnonzero(point["support"][0]).tolist():
        f1, drawn = point["f1"][0, i], spread["support"][:, i] > 0
        low, high = np.percentile(spread["f1"][drawn, i] if drawn.any() else f1, [2.5, 97.5])
        found = {"f1": float(f1), "low": float(low), "high": float(high)}
        result["per_class"][labels[i]] = {"rows": int(point["support"][0, i]), **found}
    return result


def _scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of flattened confusion matrices, (samples, labels²), rows being truth."""
    width = int(np.sqrt(counts.shape[1]))
    matrix = counts.reshape(-1, width, width)
    hits = np.diagonal(matrix, axis1=1, axis2=2)
    support, guessed = matrix.sum(2), matrix.sum(1)
    seen = support + guessed
    f1 = np.divide(2 * hits, seen, out=np.zeros(hits.shape), where=seen > 0)
    return {
        "weighted_f1": (f1 * support).sum(1) / support.sum(1),
        "macro_f1": f1.sum(1) / (seen > 0).sum(1),
        "accuracy": hits.sum(1) / support.sum(1),
        "f1": f1,
        "support": support,
    }
