"""The linear baseline: logistic regression on the frozen encoder's embeddings. Whatever is trained must beat it.

It is also where the trained head starts. Saved as safetensors beside the adapter.

    linear = fit_linear(vectors, categories, labels, c=100.0)
    probabilities = linear(vectors)                                   # (texts, labels)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression

from ..loaders import encoder
from ..models.batching import Batcher
from ..settings import Settings
from .embedding import embed

FILE = "linear.safetensors"


@dataclass(frozen=True)
class Linear:
    """A linear classifier over all labels; columns in the labels' order."""

    weight: np.ndarray  # (labels, width) float32
    bias: np.ndarray  # (labels,) float32

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Probabilities, (texts, labels)."""
        scores = vectors @ self.weight.T + self.bias
        rows: np.ndarray = np.exp(scores - scores.max(axis=1, keepdims=True))
        rows /= rows.sum(axis=1, keepdims=True)
        return rows

    def save(self, folder: Path) -> None:
        """Write weights and biases into a folder, as safetensors."""
        save_file({"weight": self.weight, "bias": self.bias}, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> Linear:
        """The model that `save` wrote into the folder."""
        return cls(**load_file(folder / FILE))


def fit_linear(vectors: np.ndarray, categories: Iterable[str], labels: Sequence[str], c: float) -> Linear:
    """Logistic regression with inverse regularisation `c`.

    A label without a row gets no weights and a bias below all others: it is possible, and never the answer.
    """
    model = LogisticRegression(C=c, max_iter=2_000).fit(vectors, list(categories))
    found, biases = model.coef_, model.intercept_
    if len(found) == 1:  # two classes: scikit-learn keeps one row, for the second
        found, biases = np.vstack([-found, found]) / 2, np.array([-biases[0], biases[0]]) / 2
    rows = [list(labels).index(name) for name in model.classes_]
    weight = np.zeros((len(labels), vectors.shape[1]), dtype=np.float32)
    bias = np.full(len(labels), biases.min() - 5, dtype=np.float32)
    weight[rows], bias[rows] = found, biases
    return Linear(weight, bias)


def frozen_embeddings(texts: Sequence[str], settings: Settings) -> np.ndarray:
    """Embeddings of the classifier's base model as it is before training, (texts, width)."""
    spec = settings.classifier
    with encoder(spec, settings.device) as (model, tokenizer):
        return embed(
            texts,
            model,
            tokenizer,
            prefix=spec.text_prefix,
            batcher=Batcher(settings.tokens_per_batch),
            max_tokens=settings.max_tokens,
            what="embed",
        )
