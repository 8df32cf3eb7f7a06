"""Texts to vectors through an encoder, and the linear models on such vectors.

The linear baseline, a logistic regression on the frozen encoder's embeddings, is what the trained head starts from.

    vectors = frozen_embeddings(texts, settings)                       # (texts, width)
    linear = fit_linear(vectors, categories, labels, c=100.0)
    probabilities = linear(vectors)                                    # (texts, labels)
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from torch.nn import functional
from tqdm.std import tqdm
from transformers import BatchEncoding, PreTrainedModel

from ..errors import UserError
from ..kinds import Json, OnBatch, Tokenizer
from ..loaders import encoder
from ..models.batching import Batcher, progress
from ..models.text_tokens import TextTokens
from ..settings import Settings

MAX_TOKENS = 256  # of a text, where nothing else is said
FILE = "linear.safetensors"


def mean_pooled(hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Unit-length mean over the real tokens: (batch, tokens, width) -> (batch, width), in fp32."""
    mask = attention_mask.unsqueeze(-1).float()
    return functional.normalize((hidden.float() * mask).sum(1) / mask.sum(1), dim=-1)


def embed(texts: Sequence[str], model: PreTrainedModel, tokenizer: Tokenizer, **options: Any) -> np.ndarray:
    """Embeddings of texts, (texts, width) float32; `options` are those of `run_rows`."""

    def forward(inputs: BatchEncoding) -> torch.Tensor:
        return mean_pooled(model(**inputs).last_hidden_state, inputs["attention_mask"])

    return run_rows(forward, texts, tokenizer, model.device, **options)


def frozen_embeddings(texts: Sequence[str], settings: Settings) -> np.ndarray:
    """Embeddings of the classifier's base model as it is before training, (texts, width)."""
    spec, batcher = settings.classifier, Batcher(settings.tokens_per_batch)
    with encoder(spec, settings.device) as loaded, progress(len(texts), "embed") as bar:
        options: Json = {"prefix": spec.text_prefix, "batcher": batcher, "max_tokens": settings.max_tokens}
        return embed(texts, *loaded, bar=bar, **options)


@torch.inference_mode()
def run_rows(
    forward: Callable[[BatchEncoding], torch.Tensor],
    texts: Sequence[str],
    tokenizer: Tokenizer,
    device: str | torch.device,
    *,
    prefix: str,
    batcher: Batcher,
    max_tokens: int = MAX_TOKENS,
    dtype: torch.dtype | None = None,
    on_batch: OnBatch | None = None,
    bar: "tqdm[NoReturn] | None" = None,
) -> np.ndarray:
    """`forward(inputs) -> (batch, columns)` over any number of texts; rows come back in the texts' order.

    `dtype` turns autocast on; `on_batch` gets each batch's positions and rows at once, `bar` the number of its texts.
    UserError where a row is not finite, without autocast either.
    """
    ids = token_ids(texts, tokenizer, prefix, max_tokens)
    rows: list[np.ndarray] = [np.empty(0)] * len(texts)

    def work(batch: list[int]) -> None:
        inputs = tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt").to(device)
        for arithmetic in (dtype, None):  # fp16 may overflow, and fp32 then does not
            with torch.autocast(torch.device(device).type, dtype=arithmetic, enabled=arithmetic is not None):
                out = forward(inputs).float().cpu().numpy()
            if np.isfinite(out).all():
                break
        else:
            raise UserError(
                f"{tokenizer.name_or_path}: what the encoder makes of texts are no numbers. Its weights are damaged or "
                "hold no trained model; load them again, or choose another model."
            )
        for i, row in zip(batch, out, strict=True):
            rows[i] = row
        if on_batch:
            on_batch(batch, out)
        if bar is not None:
            bar.update(len(batch))

    batcher.run([len(x) for x in ids], work)
    return np.stack(rows)


def token_ids(texts: Iterable[str], tokenizer: Tokenizer, prefix: str, max_tokens: int) -> list[list[int]]:
    """Each text with the encoder's prefix as token ids, cut to `max_tokens`."""
    return TextTokens(tokenizer)([prefix + text for text in texts], truncation=True, max_length=max_tokens)


@dataclass(frozen=True)
class Linear:
    """A linear classifier over all labels; columns in the labels' order. Saved as safetensors."""

    weight: np.ndarray  # (labels, width) float32
    bias: np.ndarray  # (labels,) float32

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Probabilities, (texts, labels)."""
        return np.asarray(softmax(vectors @ self.weight.T + self.bias, axis=1))

    def save(self, folder: Path) -> None:
        """Write weights and biases into a folder."""
        save_file(vars(self), folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> "Linear":
        """The model that `save` wrote into the folder."""
        return cls(**load_file(folder / FILE))


def logistic_regression(
    vectors: np.ndarray,
    categories: Iterable[str],
    c: float,
    class_weight: str | None = None,
    weights: np.ndarray | None = None,
) -> LogisticRegression:
    """scikit-learn's model of the categories, with inverse regularisation `c`; also the few-shot labeler's."""
    model = LogisticRegression(C=c, class_weight=class_weight, max_iter=2_000)
    return model.fit(vectors, list(categories), sample_weight=weights)


def fit_linear(
    vectors: np.ndarray, categories: Iterable[str], labels: Sequence[str], c: float, weights: np.ndarray | None = None
) -> Linear:
    """A logistic regression over all labels; `weights` (rows,) say how much each row counts.

    A label without a row gets no weights and a bias below all others: it is possible, and never the answer.
    """
    model = logistic_regression(vectors, categories, c, weights=weights)
    found, biases = model.coef_, model.intercept_
    if len(found) == 1:  # two classes: scikit-learn keeps one row, for the second
        found, biases = np.vstack([-found, found]) / 2, np.array([-biases[0], biases[0]]) / 2
    rows = [list(labels).index(name) for name in model.classes_]
    weight = np.zeros((len(labels), vectors.shape[1]), dtype=np.float32)
    bias = np.full(len(labels), biases.min() - 5, dtype=np.float32)
    weight[rows], bias[rows] = found, biases
    return Linear(weight, bias)
