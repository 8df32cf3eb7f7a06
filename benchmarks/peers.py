"""Beside the peers, on the same rows, machine and number of threads, in one run; versions are printed.

`classifier`: our adapter, the linear model, TF-IDF with logistic regression, and SetFit on the same encoder. All learn
from the same rows of the splits of quality.py; the validation part picks our epoch and TF-IDF's regularisation.
`labels`: closed questions, outlines' choice and llama.cpp's grammar on the weights of the embedded chat model, with the
same prompt, one after another; a time is the median over four rounds. `doubt`: our doubtful labels and cleanlab's, on
the same embeddings, where labels were exchanged at random.

Seconds are the processor's, of all threads together, so that what else the machine does counts little; with one thread
(OMP_NUM_THREADS=1) none is lost in waiting for another. ± is Student's 95 % interval of the mean over splits or draws.
Every single figure goes to the JSON file.

    make peers ARGS="--part doubt"                          # on the sample's reviews, which people labelled
    OMP_NUM_THREADS=1 make peers ARGS="--part classifier --data FOLDER --labels CSV --reviews 600 --splits 3"
"""

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import half_width, labelled, timed
from peer_labels import Found, Texts, labels
from quality import write_split
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline, make_union

from sirius_helpers.embedded.folders import model_folder
from sirius_helpers.encoder.classifier import Classifier
from sirius_helpers.encoder.embedding import fit_linear, frozen_embeddings
from sirius_helpers.encoder.label_noise import doubtful_labels
from sirius_helpers.files.categories import labels_of, read_categories
from sirius_helpers.settings import CAUSAL_LM, CHAT_LM, PROJECT, Settings, compute_dtype, settings_for
from sirius_helpers.split import TEST, TRAIN, VALIDATION
from sirius_helpers.train import train

PACKAGES = ["cleanlab", "outlines", "peft", "scikit-learn", "sentence-transformers", "setfit", "torch", "transformers"]
PLANTED, FIRST = 0.05, 20
Predict = Callable[[Texts], list[str]]
Parts = dict[str, pd.DataFrame]


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--part", choices=PARTS, nargs="*", default=[*PARTS], help="which comparisons; all")
    ask.add_argument("--data", default=PROJECT / "data" / "sample")
    ask.add_argument("--labels", default="", help="CSV; none: the folder's human_labels.csv")
    ask.add_argument("--reviews", type=int, help="how many, drawn by category; none: all, for `labels` 32")
    ask.add_argument("--splits", type=int, default=5, help="splits, or draws of planted errors")
    ask.add_argument("--ways", nargs="*", default=[*CLASSIFIERS], help="which classifiers; all")
    ask.add_argument("--model", choices=[CHAT_LM, CAUSAL_LM], default=CHAT_LM, help="whom `labels` asks")
    ask.add_argument("--out", type=Path, default=PROJECT / "checkpoints" / "peers", help="folder for PART.json")
    given = ask.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    about = {name: version(name) for name in [*PACKAGES, "xllamacpp"]}
    about |= {"python": platform.python_version(), "threads": torch.get_num_threads()}
    print(*(f"{name} {value}" for name, value in about.items()), sep=", ")
    known = given.labels or Path(given.data) / "human_labels.csv"
    with tempfile.TemporaryDirectory() as scratch:  # nothing of an earlier run is reused, so all is timed
        settings = settings_for("cpu", data=given.data, labels=known, run="peers", checkpoints=scratch)
        originals = labelled(settings)
        for part in given.part:
            count = min(given.reviews or (32 if part == "labels" else len(originals)), len(originals))
            rows = originals.sample(count, random_state=0) if part == "labels" else drawn(originals, count)
            given.out.mkdir(parents=True, exist_ok=True)
            for found, table in PARTS[part](rows, settings, given):
                facts = {"part": part, "about": about, "reviews": len(rows), "rows": found}
                said = json.dumps(facts, ensure_ascii=False, indent=1)
                (given.out / f"{part}.json").write_text(f"{said}\n", encoding="utf-8")
                print(f"\n{part}, {len(rows)} reviews\n{table.to_string()}", flush=True)


def drawn(originals: pd.DataFrame, count: int) -> pd.DataFrame:
    """So many reviews, by category; a category that keeps a single one cannot be split and goes."""
    if count < len(originals):
        originals, _ = train_test_split(originals, train_size=count, random_state=0, stratify=originals["category"])
    several = originals.groupby("category")["id"].transform("size") > 1
    return originals[several].reset_index(drop=True)


def summary(rows: list[dict], by: str) -> pd.DataFrame:
    """The mean of each figure with the interval's half width, a line per `by`."""
    groups = pd.DataFrame(rows).groupby(by, sort=False)
    figures = [name for name in rows[0] if name not in (by, "repeat")]

    def shown(values: pd.Series) -> str:
        digits = 3 if values.max() <= 1 else 1
        return f"{values.mean():.{digits}f} ± {half_width(values):.{digits}f}"

    return groups[figures].agg(shown)


# Classifiers: each learns and returns what predicts.


def adapter(_: Parts, settings: Settings) -> Predict:
    train(settings)  # from split.csv, which holds the same parts
    classifier = Classifier.load(settings.folder / "adapter", "cpu", settings.tokens_per_batch)
    return lambda texts: [classifier.labels[i] for i in classifier(texts).argmax(1)]


def linear(parts: Parts, settings: Settings) -> Predict:
    names, rows = labels_of(read_categories(settings.data)), parts[TRAIN]
    vectors = frozen_embeddings(rows["text"].tolist(), settings)
    fitted = fit_linear(vectors, rows["category"], names, settings.baseline_c)
    return lambda texts: [names[i] for i in fitted(frozen_embeddings(texts, settings)).argmax(1)]


def tfidf(parts: Parts, settings: Settings) -> Predict:
    def fitted(c: float, weight: str | None):
        grams = [TfidfVectorizer(sublinear_tf=True, analyzer=kind, ngram_range=sizes) for kind, sizes in GRAMS.items()]
        model = LogisticRegression(C=c, class_weight=weight, max_iter=2_000)
        return make_pipeline(make_union(*grams), model).fit(parts[TRAIN]["text"], parts[TRAIN]["category"])

    def score(model) -> float:
        return weighted_and_macro(parts[VALIDATION]["category"], model.predict(parts[VALIDATION]["text"]))[0]

    best = max((fitted(c, weight) for c in (1, 10, 100) for weight in (None, "balanced")), key=score)
    return lambda texts: best.predict(texts).tolist()


def setfit(parts: Parts, settings: Settings) -> Predict:
    """As many texts go through the encoder as in twelve epochs; our adapter has ten.

    The word vectors stay as they are, as in our adapter: on a CPU their optimiser steps would take most of the time.
    """
    import setfit as library
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

    def prefixed(texts: Texts) -> list[str]:
        return [settings.classifier.text_prefix + text for text in texts]

    body = SentenceTransformer(str(model_folder(settings.classifier.name)), device="cpu")
    body[0].auto_model.embeddings.requires_grad_(False)
    model = library.SetFitModel(body, LogisticRegression(max_iter=2_000))
    rows = Dataset.from_dict({"text": prefixed(parts[TRAIN]["text"]), "label": parts[TRAIN]["category"].tolist()})
    quiet = {"report_to": "none", "save_strategy": "no", "logging_strategy": "no", "show_progress_bar": False}
    with tempfile.TemporaryDirectory() as folder:
        options = library.TrainingArguments(folder, num_iterations=PAIRS, seed=settings.seed, **quiet)
        dtype = compute_dtype("cpu")  # the arithmetic that our training has
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            library.Trainer(model, options, train_dataset=rows).train()
    return lambda texts: list(model.predict(prefixed(texts)))


PAIRS = 3  # SetFit's num_iterations: for each text so many pairs within its category and so many with others
GRAMS = {"word": (1, 2), "char_wb": (2, 5)}
CLASSIFIERS = {"linear": linear, "tf-idf": tfidf, "setfit": setfit, "adapter": adapter}


def weighted_and_macro(truth: Sequence[str], guess: Sequence[str]) -> tuple[float, float]:
    weighted, macro = (f1_score(truth, guess, average=kind, zero_division=0) for kind in ("weighted", "macro"))
    return weighted, macro


def classifiers(originals: pd.DataFrame, settings: Settings, given: argparse.Namespace) -> Found:
    frozen_embeddings(originals["text"].tolist()[:32], settings)  # warm-up
    rows = []
    for repeat in range(given.splits):
        table = write_split(originals, settings, None, repeat)
        parts = {name: table[table["part"] == name] for name in (TRAIN, VALIDATION, TEST)}
        texts = parts[TEST]["text"].tolist()
        for name in given.ways:
            predict, fit = timed(CLASSIFIERS[name], parts, settings)
            guess, took = timed(predict, texts)
            weighted, macro = weighted_and_macro(parts[TEST]["category"], guess)
            figures = {"weighted F1": weighted, "macro F1": macro, "fit s": fit, "predict ms": 1000 * took / len(texts)}
            rows.append({"classifier": name, "repeat": repeat, **figures})
        yield rows, summary(rows, "classifier")


# Doubtful labels


def planted(categories: pd.Series, share: float, seed: int) -> pd.Series:
    """The labels with a share of them exchanged for other categories, drawn at random."""
    rng, names, found = np.random.default_rng(seed), sorted(set(categories)), categories.copy()
    for row in rng.choice(len(found), round(share * len(found)), replace=False):
        found.iloc[row] = rng.choice([name for name in names if name != found.iloc[row]])
    return found


def ranking(score: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """How well a score finds wrong labels; rows of the score 0 are not listed."""
    order, listed = np.argsort(-score, kind="stable"), score > 0
    at = {k: (wrong & listed)[order[:k]].sum() / k for k in (FIRST, int(wrong.sum()))}
    return {
        "listed": int(listed.sum()),
        "found": (wrong & listed).sum() / wrong.sum(),
        f"precision at {FIRST}": at[FIRST],
        "precision at all planted": at[int(wrong.sum())],
        "average precision": average_precision_score(wrong, score),
    }


def our_list(table: pd.DataFrame, vectors: np.ndarray, names: list[str], settings: Settings) -> np.ndarray:
    listed = doubtful_labels(table, vectors, names, settings)["id"]
    ranks = pd.Series(range(len(listed), 0, -1), index=listed)
    return table["source_id"].map(ranks).fillna(0).to_numpy()


def cleanlab_alone(table: pd.DataFrame, vectors: np.ndarray, names: list[str], settings: Settings) -> np.ndarray:
    """cleanlab as its pages show it, with our linear model and its own folds: its issues by label quality."""
    from cleanlab.classification import CleanLearning

    model = LogisticRegression(C=settings.baseline_c, max_iter=2_000)
    cleaner = CleanLearning(model, seed=settings.seed, find_label_issues_kwargs={"n_jobs": 1})
    found = cleaner.find_label_issues(vectors, table["category"].map(names.index).to_numpy())
    return np.where(found["is_label_issue"], 1 - found["label_quality"], 0)


LISTS = {"ours": our_list, "cleanlab": cleanlab_alone}


def doubt(originals: pd.DataFrame, settings: Settings, given: argparse.Namespace) -> Found:
    vectors = frozen_embeddings(originals["text"].tolist(), settings)
    rows = []
    for seed in range(given.splits):
        table = originals.rename(columns={"id": "source_id"})
        table["category"] = planted(originals["category"], PLANTED, seed)
        names, wrong = sorted(set(table["category"])), (table["category"] != originals["category"]).to_numpy()
        for name, way in LISTS.items():
            score, took = timed(way, table, vectors, names, settings)
            rows.append({"list": name, "repeat": seed, **ranking(score, wrong), "s": took})
    yield rows, summary(rows, "list")


PARTS = {"classifier": classifiers, "labels": labels, "doubt": doubt}

if __name__ == "__main__":
    main()
