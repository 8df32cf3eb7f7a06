"""Scores with intervals, always beside the baseline; what leaks across the split; the worst errors.

Writes `metrics.json` and `report/*.png`. Three views: all held-out rows (comparable with the reference's
0.782), held-out originals only (what a user's data look like), and human labels where a human_labels.csv lies in
the data folder.

    result = evaluate(settings)            # stage "evaluate"
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from . import display
from .baseline import Linear, frozen_embeddings
from .categories import by_any_name, labels_of, read_categories
from .classifier import Classifier
from .journal import fingerprint, write_atomically
from .reviews import normalised, read_labelled, read_table, write_csv
from .runs import Run, digest
from .settings import Settings
from .splitting import TEST, near_duplicates, read_split
from .training import best_epoch

ALL, ORIGINAL, HUMAN = "all held-out", "held-out originals", "human labels"
SCORES = ("weighted_f1", "macro_f1", "accuracy")


def evaluate(settings: Settings) -> dict:
    """Stage "evaluate": score adapter and baseline on the same held-out rows; returns what metrics.json holds."""
    run = Run(settings.folder)
    human_path = settings.data / "human_labels.csv"
    names = by_any_name(read_categories(settings.data)) if human_path.exists() else None
    inputs = [digest(run.need("adapter")), digest(run.need("split.csv")), digest(human_path), names]
    mark = fingerprint("evaluate", inputs, settings.bootstrap, settings.seed, settings.near_duplicate)
    if not run.is_finished("evaluate", mark):
        with run.stage("evaluate", mark, ["metrics.json", "errors.csv", "report"]):
            _evaluate(settings, run)
    return json.loads(run.path("metrics.json").read_text(encoding="utf-8"))


def _evaluate(settings: Settings, run: Run) -> None:
    taxonomy = read_categories(settings.data)
    labels = labels_of(taxonomy)
    table = read_split(run)
    history = pd.read_csv(run.need("history.csv"))
    leaks = leak_report(table, settings.near_duplicate)
    human_path = settings.data / "human_labels.csv"
    human = (
        human_rows(table, read_table(human_path, ["text"]), read_labelled(human_path, taxonomy))
        if (human_path.exists())
        else None
    )
    test = table[table["part"] == TEST]
    texts = test["text"].tolist() + (human["text"].tolist() if human is not None else [])
    probabilities = {"baseline": Linear.load(run.path("adapter"))(frozen_embeddings(texts, settings))}
    with Classifier.load(run.path("adapter"), settings.device) as classifier:
        probabilities["adapter"] = classifier(texts, settings.tokens_per_batch, what="evaluate")
    original = (~test["synthetic"]).to_numpy()
    n = len(test)
    views = {ALL: (np.arange(n), test["category"]), ORIGINAL: (np.flatnonzero(original), test["category"][original])}
    if human is not None:
        views[HUMAN] = (np.arange(n, len(texts)), human["category"])
    metrics = {
        "training": best_epoch(history),
        "split": settings.split,
        "rows": table.groupby(["part", "synthetic"]).size().rename("rows").reset_index().to_dict("records"),
        "leaks": leaks,
        "scores": {
            view: {
                model: scores_with_intervals(truth, [labels[i] for i in p[rows].argmax(1)], labels, settings)
                for model, p in probabilities.items()
            }
            for view, (rows, truth) in views.items()
        },
    }
    if human is not None:
        given = read_table(run.need("labels.csv"), ["text", "category"])
        metrics["labels_against_human"] = _labels_against_human(given, read_labelled(human_path, taxonomy))
    guess = probabilities["adapter"][:n].argmax(1)
    errors = test.assign(predicted=[labels[i] for i in guess], confidence=probabilities["adapter"][:n].max(1))
    write_csv(run.path("errors.csv"), worst_errors(errors[original]))
    run.path("report").mkdir(exist_ok=True)
    display.save_report(run.path("report"), errors[original], labels, history)
    text = json.dumps(metrics, ensure_ascii=False, indent=2)
    write_atomically(run.path("metrics.json"), text.encode())


def scores_with_intervals(
    truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str], settings: Settings
) -> dict:
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
    result = {"rows": len(pairs)}
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


def leak_report(table: pd.DataFrame, near_duplicate: float) -> dict:
    """How many held-out rows have their source, or a near-duplicate, among the rows the model learns from."""
    held = (table["part"] == TEST).to_numpy()
    learned_sources = set(table["source_id"][~held])
    source = held & table["source_id"].isin(learned_sources).to_numpy()
    near = np.zeros(len(table), dtype=bool)
    for one, other in near_duplicates(table["text"].tolist(), near_duplicate):
        if held[one] != held[other]:
            near[one if held[one] else other] = True
    return {
        "held_out": int(held.sum()),
        "source_in_training": int(source.sum()),
        "near_duplicate_in_training": int(near.sum()),
        "either": int((source | near).sum()),
    }


def human_rows(table: pd.DataFrame, human: pd.DataFrame, categories: dict[str, str]) -> pd.DataFrame:
    """Human-labelled texts that the model has not learned from: columns text, category."""
    learned = set(table["text"][table["part"] != TEST].map(normalised))
    fresh = human[~human["text"].map(normalised).isin(learned)]
    return fresh.assign(category=fresh["text"].map(lambda text: categories[normalised(text)]))


def worst_errors(rows: pd.DataFrame) -> pd.DataFrame:
    """Wrong rows, the most confident first."""
    wrong = rows[rows["predicted"] != rows["category"]].sort_values("confidence", ascending=False)
    return wrong[["text", "category", "predicted", "confidence"]]


def _labels_against_human(labels: pd.DataFrame, human: dict[str, str]) -> dict:
    known = labels[labels["text"].map(normalised).isin(human)]
    right = [human[normalised(row.text)] == row.category for row in known.itertuples()]
    return {"rows": len(right), "accuracy": float(np.mean(right)) if right else None}
