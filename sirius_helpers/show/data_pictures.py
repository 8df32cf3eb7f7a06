"""The pictures of labels and synthetic reviews: margins, counts before and after, reasons of refusal.

Draws only; the style is in theme.py.

    figure = margins(labels["margin"])
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, ScalarFormatter

from .theme import Theme, styled

DOUBTFUL = 0.2  # a margin below it: the second choice is close behind


@styled
def margins(values: pd.Series, theme: Theme) -> Figure:
    """How far the most probable category is ahead of the second, 0 to 1, over all labels."""
    figure = Figure(figsize=(7, 2.6))
    axes = figure.subplots()
    axes.hist(values, bins=np.linspace(0, 1, 21).tolist(), color=theme.blue, edgecolor=theme.paper)
    axes.axvline(DOUBTFUL, color=theme.orange, ls="--", lw=1.5)
    close = int((values < DOUBTFUL).sum())
    axes.annotate(
        f"{close} of {len(values)} below {DOUBTFUL:g}",
        (DOUBTFUL, 1),
        (5, -2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        va="top",
    )
    axes.set(xlabel="margin between first and second choice", ylabel="reviews", xlim=(0, 1))
    return figure


@styled
def before_and_after(originals: pd.Series, synthetic: pd.Series, theme: Theme) -> Figure:
    """Reviews by category without and with the synthetic ones, on a logarithmic axis; both hold category names."""
    before = originals.value_counts()
    after = before.add(synthetic.value_counts(), fill_value=0).astype(int).sort_values()
    before = before.reindex(after.index, fill_value=0)
    places = np.arange(len(after))
    figure = Figure(figsize=(8, 0.36 * len(after) + 1.3))
    axes = figure.subplots()
    axes.hlines(places, before, after, color=theme.grey, lw=2)
    axes.plot(before, places, color=theme.blue, marker="o", ms=7, ls="", label="before")
    grown = (after > before).to_numpy()
    axes.plot(after[grown], places[grown], color=theme.orange, marker="s", ms=6, ls="", label="with synthetic reviews")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    for place, old, new in zip(places, before, after, strict=True):
        text = f"{old} → {new}" if new > old else str(old)
        axes.annotate(text, (new, place), (8, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(places, after.index)
    axes.set(xlabel="reviews", xlim=(max(before.min(), 1) / 1.3, after.max() * 2.2))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


@styled
def reasons(values: pd.Series, theme: Theme) -> Figure:
    """How often each reason refused a candidate."""
    counts = values.value_counts().sort_values()
    figure = Figure(figsize=(7, 0.32 * len(counts) + 0.9))
    axes = figure.subplots()
    bars = axes.barh(np.arange(len(counts)), counts, color=theme.blue, height=0.6)
    axes.bar_label(bars, padding=3, fontsize=9)
    axes.set_yticks(np.arange(len(counts)), counts.index)
    axes.set(xlabel="refused attempts", xlim=(0, 1.1 * max(counts.max(), 1)) if len(counts) else (0, 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", visible=False)
    return figure
