"""Weighted F1, macro F1 and accuracy with bootstrap intervals, F1 by category; the three views they are read in.

Knows labels and answers, not who gave them.

    result = scores_with_intervals(truth, predicted, labels, settings)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from .kinds import Json
from .settings import Settings

SCORES = {"weighted_f1": "weighted F1", "macro_f1": "macro F1", "accuracy": "accuracy"}
ALL, ORIGINAL, HUMAN = "all held-out", "held-out originals", "human labels"  # which rows


def scores_with_intervals(
    truth: Iterable[str], predicted: Iterable[str], labels: Sequence[str], settings: Settings
) -> Json:
    """Weighted F1, macro F1 and accuracy, each with a 95 % percentile-bootstrap interval, and per-class scores.

    Macro F1 averages over the classes that occur in truth or prediction, as scikit-learn does.
    """
    index = {name: i for i, name in enumerate(labels)}
    pairs = np.array([index[t] * len(labels) + index[p] for t, p in zip(truth, predicted, strict=True)])
    rng = np.random.default_rng(settings.seed)
    draws = rng.integers(0, len(pairs), (settings.bootstrap, len(pairs)))
    size = len(labels) ** 2
    resampled = np.stack([np.bincount(pairs[row], minlength=size) for row in draws])
    point, spread = _scores(np.bincount(pairs, minlength=size)[None]), _scores(resampled)
    result: Json = {"rows": len(pairs)}
    for name in SCORES:
        low, high = np.percentile(spread[name], [2.5, 97.5])
        result[name] = {"value": float(point[name][0]), "low": float(low), "high": float(high)}
    result["per_class"] = {
        name: {
            "rows": int(point["support"][0, i]),
            "f1": float(point["f1"][0, i]),
            "low": float(np.percentile(spread["f1"][:, i], 2.5)),
            "high": float(np.percentile(spread["f1"][:, i], 97.5)),
        }
        for i, name in enumerate(labels)
        if point["support"][0, i]
    }
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
