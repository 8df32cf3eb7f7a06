"""How good a classifier is: scores with intervals, whether its confidence is right, and what a threshold on it buys.

Also the scores as rows of text, for notebook and model card.

    result = scores_with_intervals(truth, predicted, sources, labels, settings)
    table = coverage(confidence, right)    # confidence 0.8: right in about 8 of 10 cases
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.sparse import coo_array
from scipy.special import log_softmax
from scipy.stats import binomtest

from ..files.reviews import VALIDATION
from ..files.tables import records_of
from ..kinds import Json
from ..settings import Settings

SCORES = {"weighted_f1": "weighted F1", "macro_f1": "macro F1", "accuracy": "accuracy"}
ALL, ORIGINAL, HUMAN = "all held-out", "held-out originals", "human labels"  # which rows
BINS = 10
SPREAD = 0.5  # prior deviation of the temperature's logarithm: a few rows outweigh it, a handful does not


def scores_with_intervals(
    truth: Iterable[str], predicted: Iterable[str], sources: Iterable[str], labels: Sequence[str], settings: Settings
) -> Json:
    """Weighted F1, macro F1 and accuracy, each with a 95 % percentile-bootstrap interval, and per-class scores.

    Rows of one source are drawn together, or the intervals would be too narrow (cluster bootstrap; Field & Welsh 2007,
    J. R. Stat. Soc. B 69, 369-390). Macro F1 averages over the classes that occur in truth or prediction. A class's
    interval leaves out the resamples without a row of it, where its F1 is undefined (Forman & Scholz 2010, SIGKDD
    Explorations 12(1), 49-57).
    """
    index = {name: i for i, name in enumerate(labels)}
    pairs = np.array([index[t] * len(labels) + index[p] for t, p in zip(truth, predicted, strict=True)])
    rng = np.random.default_rng(settings.seed)
    group, names = pd.factorize(np.asarray(list(sources)))
    # A confusion matrix per column.
    by_group = coo_array((np.ones(len(pairs)), (pairs, group)), shape=(len(labels) ** 2, len(names))).tocsr()
    times = (rng.integers(0, len(names), len(names)) for _ in range(settings.bootstrap))
    resampled = np.stack([by_group @ np.bincount(drawn, minlength=len(names)) for drawn in times])
    point, spread = _scores(by_group.sum(1)[None]), _scores(resampled)
    per_class: Json = {}
    for i in np.flatnonzero(point["support"][0]).tolist():
        f1, drawn = point["f1"][0, i], spread["support"][:, i] > 0
        found = _with_interval("f1", f1, spread["f1"][drawn, i] if drawn.any() else f1)
        per_class[labels[i]] = {"rows": int(point["support"][0, i]), **found}
    scores = {name: _with_interval("value", point[name][0], spread[name]) for name in SCORES}
    return {"rows": len(pairs), **scores, "per_class": per_class}


def _with_interval(name: str, value: float, resampled: np.ndarray) -> Json:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {name: float(value), "low": float(low), "high": float(high)}


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


def best_epoch(history: pd.DataFrame) -> Json:
    """The row of the history whose weights were kept: the best weighted F1 on the validation part, late enough."""
    return records_of(history[history["kept"]].drop(columns="kept"))[0]


def calibration_rows(table: pd.DataFrame) -> pd.DataFrame:
    """What the temperature is fitted on: originals, as a user has them, of the validation part."""
    return table[(table["part"] == VALIDATION) & ~table["synthetic"]]


def fit_temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The temperature under which the truth, column numbers, is most likely (Guo et al. 2017, arXiv:1706.04599).

    A weak prior around 1 keeps a handful of right answers from claiming certainty; without rows it is 1.
    """

    def loss(log_temperature: float) -> float:
        scaled = _log_scaled(probabilities, np.exp(log_temperature))
        return (log_temperature / SPREAD) ** 2 / 2 - float(scaled[np.arange(len(truth)), truth].sum())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def calibrated(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(logits / temperature), from probabilities: (rows, labels) -> (rows, labels)."""
    return np.asarray(np.exp(_log_scaled(probabilities, temperature)))


def _log_scaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    return np.asarray(log_softmax(np.log(np.maximum(probabilities, 1e-30)) / temperature, axis=1))


def reliability(confidence: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    """Mean confidence, accuracy and rows of each of ten equally wide bins of confidence that holds any rows."""
    bins = np.minimum((np.asarray(confidence) * BINS).astype(int), BINS - 1)
    rows = pd.DataFrame({"confidence": confidence, "accuracy": np.asarray(right, dtype=float), "rows": 1})
    return rows.groupby(bins).agg({"confidence": "mean", "accuracy": "mean", "rows": "sum"})


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error (ECE; Naeini et al. 2015): sum of rows_b / rows · |accuracy_b - confidence_b|.

    0 is perfect, but on a hundred rows of a perfect model chance alone makes about 0.08.
    """
    bins = reliability(confidence, right)
    return float(np.average((bins["accuracy"] - bins["confidence"]).abs(), weights=bins["rows"]))


def coverage(confidence: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    """What is answered, and how well, when answers below a threshold of confidence are left to a person.

    Columns threshold, rows, coverage (their share), accuracy, low, high (95 % Wilson interval). Thresholds that no row
    reaches are left out.
    """
    table = []
    for threshold in (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
        kept = right[confidence >= threshold]
        if len(kept):
            accuracy = binomtest(int(kept.sum()), len(kept))
            low, high = accuracy.proportion_ci(method="wilson")
            table.append((threshold, len(kept), len(kept) / len(right), accuracy.statistic, low, high))
    return pd.DataFrame(table, columns=["threshold", "rows", "coverage", "accuracy", "low", "high"])


def score_rows(views: Json) -> pd.DataFrame:
    """A row per view and model: its scores with their intervals, as text."""
    rows = [
        (view, model, found["rows"], *(interval(found[key]) for key in SCORES))
        for view, models in views.items()
        for model, found in sorted(models.items())
    ]
    return pd.DataFrame(rows, columns=["rows scored", "model", "rows", *SCORES.values()])


def class_rows(metrics: Json) -> pd.DataFrame:
    """A row per category: F1 of both models on held-out originals, as text."""
    adapter, baseline = (metrics["scores"][ORIGINAL][model]["per_class"] for model in ("adapter", "baseline"))
    rows = [(name, own["rows"], interval(own, "f1"), interval(baseline[name], "f1")) for name, own in adapter.items()]
    return pd.DataFrame(rows, columns=["category", "rows", "adapter", "baseline"])


def coverage_rows(metrics: Json) -> pd.DataFrame:
    """A row per threshold of the confidence, as text."""
    rows = [
        (f"{row['threshold']:g}", row["rows"], f"{row['coverage']:.0%}", interval(row, "accuracy"))
        for row in metrics["coverage"]
    ]
    return pd.DataFrame(rows, columns=["confidence at least", "reviews answered", "share", "accuracy of the answers"])


def interval(found: Json, key: str = "value") -> str:
    """A value with its interval's ends."""
    return f"{found[key]:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
