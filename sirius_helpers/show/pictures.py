"""Every picture, on white, opaque paper that reads on light and dark pages whatever the user's matplotlib style.

The colours are Okabe and Ito's, told apart by colour-blind readers, and markers differ as well.

    image = png(curves(history))
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, ScalarFormatter
from sklearn.metrics import confusion_matrix

from ..encoder.scores import coverage, reliability
from ..kinds import Json

PAPER, INK, GRID, GREY = "#ffffff", "#111111", "#e4e4e4", "#6e6e6e"
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
SHADES = LinearSegmentedColormap.from_list("paper to blue", [PAPER, BLUE])
INKED = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "xtick.labelcolor", "ytick.labelcolor")
STYLE = dict.fromkeys(INKED, INK) | {
    "font.family": "DejaVu Sans",  # comes with matplotlib and has Cyrillic letters
    "text.parse_math": False,  # a price in dollars in a category's name is no formula
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
styled = style.context(["default", STYLE])  # decorates what draws
ABOVE: Json = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 2}  # a legend's place
DOUBTFUL = 0.2  # a margin below it: the second choice is close


def png(figure: Figure) -> bytes:
    """The figure as a PNG file's content, on its own paper."""
    buffer = io.BytesIO()
    with style.context("default"):
        figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight", facecolor=figure.get_facecolor())
    return buffer.getvalue()


@styled
def margins(values: pd.Series) -> Figure:
    """How far the most probable category is ahead of the second, 0 to 1, over all labels."""
    figure, (axes,) = _canvas(7, 2.6)
    axes.hist(values, bins=np.linspace(0, 1, 21).tolist(), color=BLUE, edgecolor=PAPER)
    axes.axvline(DOUBTFUL, color=ORANGE, ls="--", lw=1.5)
    text = f"{(values < DOUBTFUL).sum()} of {len(values)} below {DOUBTFUL:g}"
    axes.text(DOUBTFUL + 0.01, 0.98, text, transform=axes.get_xaxis_transform(), va="top")
    axes.set(xlabel="margin between first and second choice", ylabel="reviews", xlim=(0, 1))
    return figure


@styled
def before_and_after(originals: pd.Series, synthetic: pd.Series) -> Figure:
    """Reviews by category without and with the synthetic ones, on a logarithmic axis; both hold category names."""
    before = originals.value_counts()
    after = before.add(synthetic.value_counts(), fill_value=0).astype(int).sort_values()
    before = before.reindex(after.index, fill_value=0)
    rows, grown = np.arange(len(after)), (after > before).to_numpy()
    figure, (axes,) = _canvas(8, 0.36 * len(after) + 1.3)
    axes.hlines(rows, before, after, color=GREY, lw=2)
    axes.plot(before, rows, color=BLUE, marker="o", ms=7, ls="", label="before")
    axes.plot(after[grown], rows[grown], color=ORANGE, marker="s", ms=6, ls="", label="with synthetic reviews")
    axes.set_xscale("log")
    axes.xaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter=ScalarFormatter())
    axes.xaxis.minorticks_off()
    for row, (old, new) in enumerate(zip(before, after, strict=True)):
        axes.text(new * 1.08, row, f"{old} → {new}" if new > old else str(old), va="center", fontsize=9)
    axes.set_yticks(rows, after.index)
    axes.set(xlabel="reviews", xlim=(max(before.min(), 1) / 1.3, after.max() * 2.2))
    axes.legend(**ABOVE)
    return figure


@styled
def reasons(values: pd.Series) -> Figure:
    """How often each reason refused a candidate."""
    counts = values.value_counts().sort_values()
    figure, (axes,) = _canvas(7, 0.32 * len(counts) + 0.9)
    axes.bar_label(axes.barh(np.arange(len(counts)), counts, color=BLUE, height=0.6), padding=3, fontsize=9)
    axes.set_yticks(np.arange(len(counts)), counts.index)
    axes.set(xlabel="refused attempts", xlim=(0, 1.1 * max(counts, default=1)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", visible=False)
    return figure


@styled
def curves(history: pd.DataFrame) -> Figure:
    """Losses and weighted F1 by epoch, the best checkpoint marked."""
    figure, (left, right) = _canvas(9, 3.2, columns=2)
    epochs, best = history["epoch"], history.loc[history["kept"], "epoch"].iloc[0]
    left.plot(epochs, history["train_loss"], color=BLUE, marker="o", ms=4, label="train")
    left.plot(epochs, history["validation_loss"], color=ORANGE, marker="s", ms=4, label="validation")
    left.set(xlabel="epoch", ylabel="loss")
    right.plot(epochs, history["weighted_f1"], color=ORANGE, marker="s", ms=4, label="weighted F1")
    right.plot(epochs, history["macro_f1"], color=GREEN, marker="^", ms=4, label="macro F1")
    right.axvline(best, color=GREY, ls="--", lw=1, label=f"best: epoch {best:.0f}")
    right.set(xlabel="epoch", ylabel="validation score")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    return figure


@styled
def confusion(truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> Figure:
    """Confusion matrix: rows are the labels, shades are shares of the row, numbers are counts."""
    counts = confusion_matrix(truth, predicted, labels=labels)
    sizes, edges = counts.sum(axis=1), np.arange(len(labels) - 1) + 0.5
    shares = counts / np.maximum(sizes, 1)[:, None]
    figure, (axes,) = _canvas(0.62 * len(labels) + 2.6, 0.48 * len(labels) + 1.8)
    axes.imshow(shares, cmap=SHADES, vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(labels)), labels, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), [f"{name} ({n})" for name, n in zip(labels, sizes, strict=True)])
    axes.set(xlabel="predicted", ylabel="label (reviews)")
    axes.grid(False)
    axes.hlines(edges, -0.5, len(labels) - 0.5, color=PAPER, lw=1.5)
    axes.vlines(edges, -0.5, len(labels) - 0.5, color=PAPER, lw=1.5)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = PAPER if shares[row, column] > 0.5 else INK
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=9)
    return figure


@styled
def per_class(models: Json) -> Figure:
    """F1 of each category with its 95 % interval, adapter beside baseline; `models` is one view of the scores."""
    sizes = {name: found["rows"] for name, found in models["adapter"]["per_class"].items()}
    names = sorted(sizes, key=sizes.__getitem__)
    figure, (axes,) = _canvas(8, 0.42 * len(names) + 1.3)
    for model, colour, marker, shift in (("adapter", BLUE, "o", 0.15), ("baseline", ORANGE, "s", -0.15)):
        found, rows = pd.DataFrame([models[model]["per_class"][name] for name in names]), np.arange(len(names)) + shift
        axes.hlines(rows, found["low"], found["high"], color=colour, lw=2)
        axes.plot(found["f1"], rows, color=colour, marker=marker, ms=6, ls="", label=model)
    axes.set_yticks(range(len(names)), [f"{name} ({sizes[name]})" for name in names])
    axes.set(xlabel="F1 with 95 % interval", ylabel="category (reviews)", xlim=(-0.02, 1.02))
    axes.legend(**ABOVE)
    return figure


@styled
def confidence(rows: pd.DataFrame) -> Figure:
    """Is the confidence right, what does a threshold buy? `rows`: category, predicted, raw_confidence, confidence."""
    is_right = (rows["predicted"] == rows["category"]).to_numpy()
    figure, (left, right) = _canvas(9, 3.8, columns=2)
    left.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1, label="exact")
    lines = (("raw_confidence", "as trained", ORANGE, "s"), ("confidence", "calibrated", BLUE, "o"))
    for column, label, colour, marker in lines:
        bins = reliability(rows[column].to_numpy(), is_right)
        points = bins["confidence"], bins["accuracy"]
        left.plot(*points, color=colour, marker=marker, ms=4, lw=1, label=label)
        left.scatter(*points, 15 + 300 * bins["rows"] / len(rows), color=colour, marker=marker, alpha=0.6)
    title = "Is the confidence right? (size: reviews)"
    left.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.03), ylim=(-0.03, 1.03), title=title)
    left.legend(loc="lower right")
    table = coverage(rows["confidence"].to_numpy(), is_right)
    table[["coverage", "accuracy", "low", "high"]] *= 100
    right.vlines(table["coverage"], table["low"], table["high"], color=BLUE, lw=1, alpha=0.6)
    right.plot(table["coverage"], table["accuracy"], color=BLUE, marker="o", ms=5)
    last = np.inf
    for share, threshold, accuracy in zip(table["coverage"], table["threshold"], table["accuracy"], strict=True):
        if last - share > 4:  # closer labels would overlap
            last, text = share, f"≥ {threshold:g}" if threshold else "all"
            right.annotate(text, (share, accuracy), (3, 4), textcoords="offset points", fontsize=9, rotation=40)
    bottom, top = right.get_ylim()
    right.set_yticks([tick for tick in right.get_yticks() if tick <= 100])  # room for the words above, but no 105 %
    right.set(xlabel="reviews answered, %", xlim=(0, 112), title="What a threshold on the confidence buys")
    right.set(ylabel="accuracy of the answers, %", ylim=(bottom, min(top + 5, 108)))
    return figure


def save_report(folder: Path, rows: pd.DataFrame, labels: Sequence[str], history: pd.DataFrame, models: Json) -> None:
    """The evaluation's pictures as PNG files; `rows` as for `confidence`, `models` as for `per_class`."""
    figures = {
        "curves": curves(history),
        "confusion": confusion(rows["category"].tolist(), rows["predicted"].tolist(), labels),
        "per_class": per_class(models),
        "confidence": confidence(rows),
    }
    folder.mkdir(exist_ok=True)
    for name, figure in figures.items():
        (folder / f"{name}.png").write_bytes(png(figure))


def _canvas(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure, in inches, with its axes side by side."""
    figure = Figure(figsize=(width, height))
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])
