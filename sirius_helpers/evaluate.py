"""Scores with intervals, always beside the baseline; calibration; what leaks across the split; the worst errors.

Three views: all held-out rows (comparable with the reference's 0.782), held-out originals only (what a user's data
look like), and human labels where a human_labels.csv lies in the data folder.

    result = evaluate(settings)            # stage "evaluate"
"""

import json

import numpy as np
import pandas as pd

from .encoder.classifier import Classifier
from .encoder.embedding import Linear, frozen_embeddings
from .encoder.label_noise import doubtful_labels
from .encoder.scores import (
    ALL,
    HUMAN,
    ORIGINAL,
    best_epoch,
    calibrated,
    calibration_error,
    calibration_rows,
    coverage,
    scores_with_intervals,
)
from .errors import UserError
from .files.categories import by_any_name, labels_of, read_categories
from .files.journal import write_atomically
from .files.reviews import PARTS, TEST, near_duplicates, normalised, read_csv, read_labelled, repeating, write_csv
from .files.runs import Run, pinned, stage_mark, told
from .files.tables import read_table
from .kinds import Json
from .models.batching import progress
from .settings import Settings
from .show import pictures
from .show.model_card import model_card


@told
def evaluate(settings: Settings) -> Json:
    """Stage "evaluate": score adapter and baseline on the same held-out rows; returns what metrics.json holds."""
    run, settings = Run(settings.folder, settings), pinned(settings, "classifier")
    for name in ("adapter", "split.csv", "history.csv", "labels.csv"):
        run.need(name)
    names = by_any_name(read_categories(settings.data)) if (settings.data / "human_labels.csv").exists() else None
    read = run.read_by("evaluate")
    mark = stage_mark("evaluate", read, names, settings.data.name, settings.classifier.revision)
    if not run.is_finished("evaluate", mark):
        with run.stage("evaluate", mark):
            _evaluate(settings, run)
    return dict(json.loads(run.path("metrics.json").read_bytes()))


def _evaluate(settings: Settings, run: Run) -> None:
    taxonomy, path = read_categories(settings.data), settings.data / "human_labels.csv"
    labels = labels_of(taxonomy)
    human = read_labelled(path, taxonomy) if path.exists() else None
    table = read_csv(run.need("split.csv"))
    leaked = leaked_rows(table, settings.near_duplicate)
    rows = table[~table["synthetic"] | (table["part"] == TEST)].assign(leaked=leaked["either"])
    if human is not None:  # a part of its own
        fresh = human_rows(table, read_table(path, ["text"]), human, settings.near_duplicate)
        fresh = fresh.assign(source_id=fresh.index, part=HUMAN, synthetic=False, leaked=False)
        rows = pd.concat([rows, fresh], ignore_index=True)
    vectors = frozen_embeddings(rows["text"].tolist(), settings)
    originals = (rows["part"].isin(PARTS) & ~rows["synthetic"]).to_numpy()
    doubtful = doubtful_labels(rows[originals], vectors[originals], labels, settings)
    unlearned = rows["part"].isin((TEST, HUMAN)).to_numpy()
    scored, temperature = _predicted(rows[unlearned], vectors[unlearned], labels, settings, run)
    history = pd.read_csv(run.need("history.csv"))
    metrics: Json = {
        "training": best_epoch(history),
        "split": settings.split,
        "rows": table.groupby(["part", "synthetic"]).size().rename("rows").reset_index().to_dict("records"),
        "leaks": leaked.sum().astype(int).to_dict(),
        "doubtful_labels": len(doubtful),
        **_metrics(scored, {"temperature": temperature, "fitted_on": len(calibration_rows(table))}, labels, settings),
    }
    if human is not None:
        given = read_csv(run.need("labels.csv"))
        known = given["text"].map(normalised).map(human).dropna()
        right = given["category"][known.index] == known
        metrics["labels_against_human"] = {"rows": len(right), "accuracy": float(right.mean()) if len(right) else None}
    test = scored[(scored["part"] == TEST) & ~scored["synthetic"]]
    write_csv(run.path("errors.csv"), worst_errors(test))
    write_csv(run.path("doubtful_labels.csv"), doubtful)
    pictures.save_report(run.path("report"), test, labels, history, metrics["scores"][ORIGINAL])
    write_atomically(run.path("metrics.json"), json.dumps(metrics, ensure_ascii=False, indent=2).encode())
    write_atomically(run.path("model_card.md"), model_card(settings, run, metrics, table).encode())


def read_findings(run: Run, name: str) -> pd.DataFrame:
    """`errors.csv` or `doubtful_labels.csv`, the worst row first; texts to the letter, the rest as numbers."""
    return read_csv(run.need(name))


def _predicted(
    rows: pd.DataFrame, vectors: np.ndarray, labels: list[str], settings: Settings, run: Run
) -> tuple[pd.DataFrame, float]:
    """`rows` with both models' answers and the adapter's confidence, as trained and calibrated; and its temperature."""
    adapter = run.path("adapter")
    linear = Linear.load(adapter)(vectors)
    loaded = Classifier.load(adapter, settings.device, settings.tokens_per_batch)
    with loaded as classifier, progress(len(rows), "evaluate") as bar:
        if sorted(labels) != sorted(classifier.labels):
            raise UserError(
                f"{adapter} was trained on other categories than those of {settings.data}: "
                f"{', '.join(classifier.labels)}. Run the stage 'train' again."
            )
        found = classifier(rows["text"].tolist(), bar)
    answers = rows.assign(
        baseline=[classifier.labels[i] for i in linear.argmax(1)],
        predicted=[classifier.labels[i] for i in found.argmax(1)],
        raw_confidence=calibrated(found, 1 / classifier.temperature).max(1),  # its temperature undone
        confidence=found.max(1),
    )
    return answers, classifier.temperature


def _metrics(rows: pd.DataFrame, fitted: Json, labels: list[str], settings: Settings) -> Json:
    """Everything measured on rows that the model has not learned from."""

    def scores(views: dict[str, pd.DataFrame]) -> Json:
        return {
            view: {
                name: scores_with_intervals(part["category"], part[answers], part["source_id"], labels, settings)
                for name, answers in (("baseline", "baseline"), ("adapter", "predicted"))
            }
            for view, part in views.items()
            if len(part)
        }

    test = rows[rows["part"] == TEST]
    originals = test[~test["synthetic"]]
    right = (originals["predicted"] == originals["category"]).to_numpy()
    raw, confidence = (originals[name].to_numpy() for name in ("raw_confidence", "confidence"))
    errors = {"error_before": calibration_error(raw, right), "error_after": calibration_error(confidence, right)}
    found: Json = {
        "scores": scores({ALL: test, ORIGINAL: originals, HUMAN: rows[rows["part"] == HUMAN]}),
        "calibration": {**fitted, "rows": len(originals), **errors},
        "coverage": coverage(confidence, right).to_dict("records"),
    }
    if test["leaked"].nunique() > 1:
        found["by_leak"] = scores({"leaked": test[test["leaked"]], "not leaked": test[~test["leaked"]]})
    return found


def leak_report(table: pd.DataFrame, near_duplicate: float) -> dict[str, int]:
    """How many held-out rows have their source, or a near-duplicate, among the rows the model learns from."""
    return {str(name): int(rows) for name, rows in leaked_rows(table, near_duplicate).sum().items()}


def leaked_rows(table: pd.DataFrame, near_duplicate: float) -> pd.DataFrame:
    """The leak report row by row: columns held_out, source_in_training, near_duplicate_in_training, either."""
    test = (table["part"] == TEST).to_numpy()
    source = test & table["source_id"].isin(set(table["source_id"][~test])).to_numpy()
    near = np.zeros(len(table), dtype=bool)
    for one, other in near_duplicates(table["text"].tolist(), near_duplicate):
        if test[one] != test[other]:
            near[one if test[one] else other] = True
    columns = {"held_out": test, "source_in_training": source, "near_duplicate_in_training": near}
    return pd.DataFrame(columns | {"either": source | near}, index=table.index)


def human_rows(
    table: pd.DataFrame, human: pd.DataFrame, categories: dict[str, str], near_duplicate: float
) -> pd.DataFrame:
    """Human-labelled texts that the model has not learned from, each once: columns text, category.

    Left out is what nearly repeats a row outside the test part, or a row of the same source as one.
    """
    keys = human["text"].map(normalised)
    fresh = human.assign(category=keys.map(categories))[keys.isin(categories) & ~keys.duplicated()]
    sources = set(table["source_id"][table["part"] != TEST])
    learned = table["text"][table["source_id"].isin(sources)].tolist()
    repeats = repeating(fresh["text"].tolist(), learned, near_duplicate)
    return fresh.reset_index(drop=True).drop(index=list(repeats))


def worst_errors(rows: pd.DataFrame) -> pd.DataFrame:
    """Wrong rows, the most confident first."""
    wrong = rows[rows["predicted"] != rows["category"]].sort_values("confidence", ascending=False)
    return wrong.rename(columns={"source_id": "id"})[["id", "text", "category", "predicted", "confidence"]]
