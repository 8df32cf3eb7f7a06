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

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import llama_server
import numpy as np
import pandas as pd
import psutil
import torch
from common import half_width, labelled
from quality import write_split
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline, make_union

from sirius_helpers.embedded.folders import model_folder
from sirius_helpers.encoder.classifier import Classifier
from sirius_helpers.encoder.embedding import embed, fit_linear, frozen_embeddings
from sirius_helpers.encoder.label_noise import doubtful_labels, out_of_fold
from sirius_helpers.extras.server import Server
from sirius_helpers.files.categories import described, labels_of, read_categories
from sirius_helpers.files.reviews import leak_groups
from sirius_helpers.llm.labelers import label_prompt, label_question
from sirius_helpers.loaders import causal_lm, encoder
from sirius_helpers.models.batching import Batcher
from sirius_helpers.prompts import one_line, split_prompt
from sirius_helpers.settings import CHAT_LM, PROJECT, ModelSpec, Settings, compute_dtype, settings_for
from sirius_helpers.split import TEST, TRAIN, VALIDATION
from sirius_helpers.train import train

PACKAGES = ["cleanlab", "outlines", "peft", "scikit-learn", "sentence-transformers", "setfit", "torch", "transformers"]
ROUNDS, PLANTED, FIRST = 4, 0.05, 20
Texts = Sequence[str]
Predict = Callable[[Texts], list[str]]
Parts = dict[str, pd.DataFrame]


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--part", choices=PARTS, nargs="*", default=[*PARTS], help="which comparisons; all")
    ask.add_argument("--data", default=PROJECT / "data" / "sample")
    ask.add_argument("--labels", default="", help="CSV; none: the folder's human_labels.csv")
    ask.add_argument("--reviews", type=int, help="how many, drawn by category; none: all, for `labels` 32")
    ask.add_argument("--splits", type=int, default=5, help="splits, or draws of planted errors")
    ask.add_argument("--json", type=Path, help="none: checkpoints/peers/PART.json")
    given = ask.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    about = {name: version(name) for name in [*PACKAGES, "xllamacpp"]}
    about |= {"python": platform.python_version(), "threads": torch.get_num_threads()}
    print(*(f"{name} {value}" for name, value in about.items()), sep=", ")
    labels = given.labels or Path(given.data) / "human_labels.csv"
    with tempfile.TemporaryDirectory() as scratch:  # nothing of an earlier run is reused, so all is timed
        settings = settings_for("cpu", data=given.data, labels=labels, run="peers", checkpoints=scratch)
        originals = labelled(settings)
        for part in given.part:
            rows = drawn(originals, given.reviews or (32 if part == "labels" else len(originals)))
            path = given.json or PROJECT / "checkpoints" / "peers" / f"{part}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            for found, table in PARTS[part](rows, settings, given.splits):
                facts = {"part": part, "about": about, "reviews": len(rows), "rows": found}
                path.write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
                print(f"\n{part}, {len(rows)} reviews\n{table.to_string()}", flush=True)


def spent() -> float:
    """Processor seconds so far, of this process and the server beside it."""
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (own, *own.children(recursive=True)))


def timed(work: Callable[..., Any], *given: Any) -> tuple[Any, float]:
    """What a call returns, and the processor seconds it took."""
    start = spent()
    return work(*given), spent() - start


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


# Classifiers: each is fitted when it is entered, and predicts until it is left.


@contextmanager
def adapter(_: Parts, settings: Settings) -> Iterator[Predict]:
    train(settings)  # from split.csv, which holds the same parts
    classifier = Classifier.load(settings.folder / "adapter", "cpu", settings.tokens_per_batch)
    yield lambda texts: [classifier.labels[i] for i in classifier(list(texts)).argmax(1)]


@contextmanager
def linear(parts: Parts, settings: Settings) -> Iterator[Predict]:
    labels, spec = labels_of(read_categories(settings.data)), settings.classifier
    with encoder(spec, "cpu") as (model, tokenizer):
        options = {"prefix": spec.text_prefix, "batcher": Batcher(settings.tokens_per_batch)}
        rows = parts[TRAIN]
        vectors = embed(rows["text"].tolist(), model, tokenizer, **options)
        fitted = fit_linear(vectors, rows["category"], labels, settings.baseline_c)
        yield lambda texts: [labels[i] for i in fitted(embed(texts, model, tokenizer, **options)).argmax(1)]


@contextmanager
def tfidf(parts: Parts, settings: Settings) -> Iterator[Predict]:
    def fitted(c: float, weight: str | None):
        words, letters = {"ngram_range": (1, 2)}, {"analyzer": "char_wb", "ngram_range": (2, 5)}
        grams = make_union(*(TfidfVectorizer(sublinear_tf=True, **kind) for kind in (words, letters)))
        model = make_pipeline(grams, LogisticRegression(C=c, class_weight=weight, max_iter=2_000))
        return model.fit(parts[TRAIN]["text"], parts[TRAIN]["category"])

    def score(model) -> float:
        chosen = parts[VALIDATION]
        return f1_score(chosen["category"], model.predict(chosen["text"]), average="weighted", zero_division=0)

    best = max((fitted(c, weight) for c in (1, 10, 100) for weight in (None, "balanced")), key=score)
    yield lambda texts: best.predict(texts).tolist()


@contextmanager
def setfit(parts: Parts, settings: Settings) -> Iterator[Predict]:
    """Two pairs for each text, so that about as many texts pass the encoder as in our ten epochs would at five pairs.

    The word vectors stay as they are, as in our adapter: on a CPU their optimiser steps would take most of the time.
    """
    import setfit as library
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

    body = SentenceTransformer(str(model_folder(settings.classifier.name)), device="cpu")
    body[0].auto_model.embeddings.requires_grad_(False)
    model = library.SetFitModel(body, LogisticRegression(max_iter=2_000))
    prefixed = [settings.classifier.text_prefix + text for text in parts[TRAIN]["text"]]
    rows = Dataset.from_dict({"text": prefixed, "label": parts[TRAIN]["category"].tolist()})
    quiet = {"report_to": "none", "save_strategy": "no", "logging_strategy": "no", "show_progress_bar": False}
    with tempfile.TemporaryDirectory() as folder:
        options = library.TrainingArguments(folder, num_iterations=PAIRS, seed=settings.seed, **quiet)
        dtype = compute_dtype("cpu")  # the arithmetic that our training has
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            library.Trainer(model, options, train_dataset=rows).train()
    yield lambda texts: list(model.predict([settings.classifier.text_prefix + text for text in texts]))


PAIRS = 5  # SetFit's num_iterations: of each text so many pairs with its own category and with others
CLASSIFIERS = {"linear": linear, "tf-idf": tfidf, "setfit": setfit, "adapter": adapter}


def classifiers(originals: pd.DataFrame, settings: Settings, splits: int) -> Iterator[tuple[list[dict], pd.DataFrame]]:
    frozen_embeddings(originals["text"].tolist()[:32], settings)  # warm-up
    rows = []
    for repeat in range(splits):
        table = write_split(originals, settings, None, repeat)
        parts = {name: table[table["part"] == name] for name in (TRAIN, VALIDATION, TEST)}
        texts, truth = parts[TEST]["text"].tolist(), parts[TEST]["category"].tolist()
        for name, way in CLASSIFIERS.items():
            with ExitStack() as stack:
                predict, fit = timed(stack.enter_context, way(parts, settings))
                guess, took = timed(predict, texts)
            f1 = {f"{kind} F1": f1_score(truth, guess, average=kind, zero_division=0) for kind in ("weighted", "macro")}
            times = {"fit s": fit, "predict ms": 1000 * took / len(texts)}
            rows.append({"classifier": name, "repeat": repeat, **f1, **times})
        yield rows, summary(rows, "classifier")


# Labels


def labels(originals: pd.DataFrame, settings: Settings, _: int) -> Iterator[tuple[list[dict], pd.DataFrame]]:
    taxonomy, spec = read_categories(settings.data), ModelSpec(CHAT_LM, weights="bf16", chat=True)
    texts = [one_line(text) for text in originals["text"]]
    with (
        llama_server.running(llama_server.CHAT, seconds=600) as (_, address),
        causal_lm(spec, "cpu") as (model, tokenizer),
    ):
        settings = replace(settings, labeler=spec)
        question = label_question(model, tokenizer, taxonomy, settings)
        frame = split_prompt(label_prompt(taxonomy, settings), tokenizer, True, categories=described(taxonomy))
        server = Server(replace(spec, server=address, server_requests=1))
        ways = {
            "closed question": lambda part: closed(question, labels_of(taxonomy), part),
            "outlines": with_outlines(model, tokenizer, frame, labels_of(taxonomy)),
            "outlines, prefix kept": with_outlines(model, tokenizer, frame, labels_of(taxonomy), question),
            "llama.cpp grammar": lambda part: with_grammar(server, question, labels_of(taxonomy), part),
        }
        rows = pd.DataFrame({"text": texts, "given": originals["category"]})
        times: dict[str, list[float]] = {name: [] for name in ways}
        for name, way in ways.items():
            print(f"{name}: first review {timed(way, texts[:1])[1]:.1f} s", flush=True)  # warm-up
        for n in range(ROUNDS):
            part = rows.index[n::ROUNDS]
            for name, way in ways.items():
                rows.loc[part, name], took = timed(way, rows.loc[part, "text"])
                times[name].append(took / len(part))
    table = agreement(rows.drop(columns="text"))
    table.insert(0, "s a review", pd.Series({name: np.median(values) for name, values in times.items()}))
    found = [{"way": name, "s a review": times[name], "answers": rows[name].tolist()} for name in ways]
    yield [*found, {"way": "given", "answers": rows["given"].tolist()}], table.round(3)


def agreement(answers: pd.DataFrame) -> pd.DataFrame:
    """The share of rows on which two columns say the same."""
    names = answers.columns
    return pd.DataFrame({a: {b: (answers[a] == answers[b]).mean() for b in names} for a in names})


def closed(question, names: list[str], texts: Texts) -> list[str]:
    """Without what is done about the model's lean, so that the answers are comparable."""
    rows = question.log_probs(list(texts)) + question.prior  # but for a constant of each row
    return [names[i] for i in rows.argmax(1)]


def with_outlines(model, tokenizer, frame: tuple[str, str], names: list[str], question=None) -> Predict:
    """outlines on the rendered prompt, one at a time; a `question` says which beginning of it to read only once."""
    import outlines

    asked = outlines.from_transformers(model, tokenizer)
    asked.type_adapter.has_chat_template = False  # the prompt has gone through it
    generate = outlines.Generator(asked, Literal[tuple(names)])
    kept = None
    if question:
        with torch.inference_mode():
            kept = model(torch.tensor([question.prompt.first_ids]), use_cache=True, logits_to_keep=1).past_key_values
    options = {"max_new_tokens": 40, "do_sample": False}
    options |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}

    def answers(texts: Texts) -> list[str]:
        own = [{"past_key_values": copy.deepcopy(kept)} if kept else {} for _ in texts]
        return [generate(text.join(frame), **options, **cache) for text, cache in zip(texts, own, strict=True)]

    return answers


def with_grammar(server: Server, question, names: list[str], texts: Texts) -> list[str]:
    """llama.cpp's own way: its slot keeps the beginning of the prompt, and the grammar allows the answers."""
    grammar = "root ::= " + " | ".join(json.dumps(name, ensure_ascii=False) for name in names)
    options = {"max_tokens": 40, "temperature": 0.0, "grammar": grammar}
    prompts = [question.prompt.with_text(text) for text in texts]
    whole = [[*question.prompt.prefix_ids[:shared], *rest] for shared, rest in prompts]
    return [server.complete(ids, **options)["text"] for ids in whole]


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
    doubts = doubtful_labels(table, vectors, names, settings).set_index("id")["doubt"]
    return table["source_id"].map(doubts).fillna(0).to_numpy()


def cleanlab_list(table: pd.DataFrame, vectors: np.ndarray, names: list[str], settings: Settings) -> np.ndarray:
    """cleanlab as its pages show it, with our linear model and its own folds: its issues by label quality."""
    from cleanlab.classification import CleanLearning

    model = LogisticRegression(C=settings.baseline_c, max_iter=2_000)
    cleaner = CleanLearning(model, seed=settings.seed, find_label_issues_kwargs={"n_jobs": 1})
    found = cleaner.find_label_issues(vectors, table["category"].map(names.index).to_numpy())
    return np.where(found["is_label_issue"], 1 - found["label_quality"], 0)


def cleanlab_on_ours(table: pd.DataFrame, vectors: np.ndarray, names: list[str], settings: Settings) -> np.ndarray:
    """cleanlab's filter on our out-of-fold probabilities: both judge the same figures."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    groups = leak_groups(table, settings.near_duplicate)
    rows = out_of_fold(vectors, table["category"], groups, names, settings.baseline_c, settings.seed)
    given = table["category"].map(names.index).to_numpy()
    return np.where(find_label_issues(given, rows, n_jobs=1), 1 - get_label_quality_scores(given, rows), 0)


LISTS = {"ours": our_list, "cleanlab": cleanlab_list, "cleanlab, our folds": cleanlab_on_ours}


def doubt(originals: pd.DataFrame, settings: Settings, draws: int) -> Iterator[tuple[list[dict], pd.DataFrame]]:
    vectors = frozen_embeddings(originals["text"].tolist(), settings)
    rows = []
    for seed in range(draws):
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
