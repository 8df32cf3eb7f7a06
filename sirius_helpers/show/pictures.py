"""The pictures of training and evaluation: what a notebook shows and what lies in report/, light and dark.

Draws only; the style is in theme.py.

    figure = curves(history)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..encoder.calibration import coverage, reliability
from ..kinds import Json
from .theme import Theme, pngs, styled


@styled
def curves(history: pd.DataFrame, theme: Theme) -> Figure:
    """Losses and weighted F1 by epoch, the best checkpoint marked."""
    figure = Figure(figsize=(9, 3.2))
    left, right = figure.subplots(1, 2)
    left.plot(history["epoch"], history["train_loss"], color=theme.blue, marker="o", ms=4, label="train")
    left.plot(history["epoch"], history["validation_loss"], color=theme.orange, marker="s", ms=4, label="validation")
    left.set(xlabel="epoch", ylabel="loss")
    best = history[history["kept"]].iloc[0]
    right.plot(history["epoch"], history["weighted_f1"], color=theme.orange, marker="s", ms=4, label="weighted F1")
    right.plot(history["epoch"], history["macro_f1"], color=theme.green, marker="^", ms=4, label="macro F1")
    right.axvline(best["epoch"], color=theme.grey, ls="--", lw=1, label=f"best: epoch {best['epoch']:.0f}")
    right.set(xlabel="epoch", ylabel="validation score")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    return figure


@styled
def confusion(truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str], theme: Theme) -> Figure:
    """Confusion matrix: rows are the labels, shades are shares of the row, numbers are counts."""
    rows, columns = (
        pd.Categorical(names, categories=labels)  # type: ignore[arg-type]  # the stubs know numbers only
        for names in (truth, predicted)
    )
    counts = pd.crosstab(rows, columns, dropna=False).to_numpy()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(0.62 * len(labels) + 2.6, 0.48 * len(labels) + 1.8))
    axes = figure.subplots()
    axes.imshow(shares, cmap=theme.shades, vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(labels)), labels, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), [f"{name} ({n})" for name, n in zip(labels, counts.sum(axis=1), strict=True)])
    axes.set(xlabel="predicted", ylabel="label (reviews)")
    axes.grid(False)
    edges = np.arange(len(labels) - 1) + 0.5
    axes.hlines(edges, -0.5, len(labels) - 0.5, color=theme.paper, lw=1.5)
    axes.vlines(edges, -0.5, len(labels) - 0.5, color=theme.paper, lw=1.5)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = theme.on_blue if shares[row, column] > 0.5 else theme.ink
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=9)
    return figure


@styled
def per_class(models: Json, theme: Theme) -> Figure:
    """F1 of each category with its 95 % interval, adapter beside baseline, the most frequent category on top.

    `models` is one view of the scores: a model's name -> what `scores_with_intervals` gave.
    """
    sizes = {name: found["rows"] for name, found in models["adapter"]["per_class"].items()}
    names = sorted(sizes, key=lambda name: sizes[name])
    figure = Figure(figsize=(8, 0.42 * len(names) + 1.3))
    axes = figure.subplots()
    models_drawn = (("adapter", theme.blue, "o", 0.15), ("baseline", theme.orange, "s", -0.15))
    for model, colour, marker, shift in models_drawn:
        found = [models[model]["per_class"][name] for name in names]
        places = np.arange(len(names)) + shift
        axes.hlines(places, [f["low"] for f in found], [f["high"] for f in found], color=colour, lw=2)
        axes.plot([f["f1"] for f in found], places, color=colour, marker=marker, ms=6, ls="", label=model)
    axes.set_yticks(range(len(names)), [f"{name} ({sizes[name]})" for name in names])
    axes.set(xlabel="F1 with 95 % interval", ylabel="category (reviews)", xlim=(-0.02, 1.02))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


@styled
def confidence(rows: pd.DataFrame, theme: Theme) -> Figure:
    """Left: how often a stated confidence is right. Right: accuracy against the share of reviews answered.

    `rows` have category, predicted, raw_confidence and confidence, the last one calibrated.
    """
    right = (rows["predicted"] == rows["category"]).to_numpy()
    figure = Figure(figsize=(9, 3.8))
    one, two = figure.subplots(1, 2)
    one.plot([0, 1], [0, 1], color=theme.grey, ls="--", lw=1, label="exact")
    for column, label, colour, marker in (
        ("raw_confidence", "as trained", theme.orange, "s"),
        ("confidence", "calibrated", theme.blue, "o"),
    ):
        bins = reliability(rows[column].to_numpy(), right)
        places = bins["confidence"], bins["accuracy"]
        one.plot(*places, color=colour, marker=marker, ms=4, lw=1, label=label)
        one.scatter(*places, 15 + 300 * bins["rows"] / len(rows), color=colour, marker=marker, alpha=0.6)
    one.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.03), ylim=(-0.03, 1.03))
    one.set_title("Is the confidence right? (size: reviews)")
    one.legend(loc="lower right")
    table = coverage(rows["confidence"].to_numpy(), right)
    shares = 100 * table["coverage"]
    two.vlines(shares, 100 * table["low"], 100 * table["high"], color=theme.blue, lw=1, alpha=0.6)
    two.plot(shares, 100 * table["accuracy"], color=theme.blue, marker="o", ms=5)
    last = np.inf
    for place, threshold, accuracy in zip(shares, table["threshold"], table["accuracy"], strict=True):
        if last - place > 4:  # closer labels would overlap
            last, text = place, f"≥ {threshold:g}" if threshold else "all"
            at = (place, 100 * accuracy)
            two.annotate(text, at, (3, 4), textcoords="offset points", fontsize=9, rotation=40)
    two.set(xlabel="reviews answered, %", ylabel="accuracy of the answers, %", xlim=(0, 112))
    bottom, top = two.get_ylim()
    two.set_yticks([tick for tick in two.get_yticks() if tick <= 100])  # room for the words above, but no 105 %
    two.set_ylim(bottom, min(top + 5, 108))
    two.set_title("What a threshold on the confidence buys")
    return figure


def save_report(folder: Path, rows: pd.DataFrame, labels: Sequence[str], history: pd.DataFrame, models: Json) -> None:
    """The pictures of the evaluation as PNG files, light (`curves.png`) and dark (`curves-dark.png`).

    `rows` as for `confidence`, `models` as for `per_class`.
    """
    pictures: dict[str, tuple[Callable[..., Figure], list[object]]] = {
        "curves": (curves, [history]),
        "confusion": (confusion, [rows["category"], rows["predicted"], labels]),
        "per_class": (per_class, [models]),
        "confidence": (confidence, [rows]),
    }
    folder.mkdir(exist_ok=True)
    for name, (draw, data) in pictures.items():
        for theme, png in pngs(draw, *data).items():
            (folder / f"{name}{'' if theme == 'light' else '-' + theme}.png").write_bytes(png)
