"""How sure is sure: the temperature of the probabilities, their calibration error, and what a threshold buys.

Knows probabilities and truths, not where they come from.

    temperature = fit_temperature(probabilities, truth)               # on the validation part
    confidence = calibrated(probabilities, temperature).max(axis=1)   # 0.8: right in about 8 of 10 cases
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
BINS = 10
SPREAD = 0.5  # prior deviation of the temperature's logarithm: a few rows outweigh it, a handful does not


def calibrated(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(logits / temperature), from probabilities: (rows, labels) -> (rows, labels)."""
    scaled: np.ndarray = np.exp(_log_scaled(probabilities, temperature))
    return scaled


def fit_temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The temperature under which the truth is most likely (Guo et al. 2017, arXiv:1706.04599).

    `truth` holds column numbers. A weak prior around 1 keeps a handful of right answers from claiming certainty;
    without any rows the temperature is 1. Which label is the most probable never changes.
    """

    def loss(log_temperature: float) -> float:
        scaled = _log_scaled(probabilities, np.exp(log_temperature))
        return (log_temperature / SPREAD) ** 2 / 2 - float(scaled[np.arange(len(truth)), truth].sum())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def reliability(confidence: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    """Mean confidence, accuracy and rows of each of ten equally wide bins of confidence that holds any rows."""
    bins = np.minimum((np.asarray(confidence) * BINS).astype(int), BINS - 1)
    rows = pd.DataFrame({"confidence": confidence, "accuracy": np.asarray(right, dtype=float), "rows": 1})
    return rows.groupby(bins).agg({"confidence": "mean", "accuracy": "mean", "rows": "sum"})


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error (ECE; Naeini et al. 2015): 0 is perfect.

    The gap between mean confidence and accuracy in each of ten equally wide bins, averaged over the rows:
    sum of rows_b / rows · |accuracy_b - confidence_b|. With few rows chance alone makes gaps: on a hundred rows
    of a perfect model it is about 0.08.
    """
    bins = reliability(confidence, right)
    return float(np.average((bins["accuracy"] - bins["confidence"]).abs(), weights=bins["rows"]))


def coverage(confidence: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    """What is answered, and how well, when answers below a threshold of confidence are left to a person.

    Columns threshold, rows, coverage (their share), accuracy, low, high (95 % Wilson interval, which stays honest
    where all of a few answers are right). Thresholds that no row reaches are left out.
    """
    confidence, right = np.asarray(confidence), np.asarray(right)
    table = []
    for threshold in THRESHOLDS:
        kept = right[confidence >= threshold]
        if len(kept):
            low, high = wilson(int(kept.sum()), len(kept))
            table.append((threshold, len(kept), len(kept) / len(right), float(kept.mean()), low, high))
    return pd.DataFrame(table, columns=["threshold", "rows", "coverage", "accuracy", "low", "high"])


def wilson(hits: int, rows: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a share (1927)."""
    share, weight = hits / rows, z * z / rows
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * np.sqrt(share * (1 - share) / rows + weight / rows / 4)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def _log_scaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    scaled: np.ndarray = log_softmax(np.log(np.maximum(probabilities, 1e-30)) / temperature, axis=1)
    return scaled
