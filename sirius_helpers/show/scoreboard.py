"""Training and evaluation as tables: for the notebook as HTML, for the model card as rows. Reads no file."""

from __future__ import annotations

import pandas as pd

from ..encoder.scores import ORIGINAL, SCORES
from ..kinds import Json
from .html import Html, table


def training(history: pd.DataFrame) -> Html:
    """Losses and scores by epoch, the kept one marked."""
    rows = history.assign(epoch=history["epoch"].astype(int), kept=history["kept"].map({True: "kept", False: ""}))
    return table(rows.rename(columns={"kept": ""}), "Training", dict.fromkeys(history.columns[1:-1], ".3f"))


def scores(metrics: Json) -> Html:
    """Adapter beside baseline in each view, with 95 % intervals; where the split leaks, also by leak.

    Rows that leak are those with many paraphrases, so of rarer categories: the two parts are no fair comparison.
    """
    shown = table(score_rows(metrics["scores"]), "Scores with 95 % bootstrap intervals")
    if "by_leak" in metrics:
        caption = "Held-out rows by leak; the two differ in categories, so the fair measure is split='grouped'"
        shown += table(score_rows(metrics["by_leak"]), caption)
    return shown


def per_class(metrics: Json) -> Html:
    """F1 of each category on held-out originals, the most frequent first."""
    rows = class_rows(metrics).sort_values("rows", ascending=False, kind="stable")
    return table(rows, f"F1 by category with 95 % bootstrap intervals, {ORIGINAL}")


def coverage(metrics: Json) -> Html:
    """How right the confidence is, and what is left to a person below a threshold."""
    caption = (
        "Calibration error {error_before:.3f} as trained, {error_after:.3f} with temperature {temperature:.2f}, "
        "on {rows} held-out originals"
    )
    return table(coverage_rows(metrics), caption.format(**metrics["calibration"]))


def errors(rows: pd.DataFrame, n: int = 8) -> Html:
    """The errors that the adapter was surest of."""
    caption = f"{min(n, len(rows))} of {len(rows)} errors, the most confident first"
    return table(rows.head(n), caption, {"confidence": ".2f"})


def doubtful_labels(rows: pd.DataFrame, n: int = 10) -> Html:
    """The most doubtful labels with what they might be instead."""
    caption = f"{min(n, len(rows))} of {len(rows)} doubtful labels, the most doubtful first"
    return table(rows.head(n), caption, {"doubt": ".3f"})


def score_rows(views: Json) -> pd.DataFrame:
    """A row per view and model: its scores with their intervals, as text."""
    rows = [
        (view, model, found["rows"], *(interval(found[key]) for key in SCORES))
        for view, models in views.items()
        for model, found in sorted(models.items())
    ]
    return pd.DataFrame(rows, columns=["rows scored", "model", "rows", *SCORES.values()])


def class_rows(metrics: Json) -> pd.DataFrame:
    """A row per category: F1 of both models on held-out originals, as text."""
    adapter, baseline = (metrics["scores"][ORIGINAL][model]["per_class"] for model in ("adapter", "baseline"))
    rows = [(name, own["rows"], interval(own, "f1"), interval(baseline[name], "f1")) for name, own in adapter.items()]
    return pd.DataFrame(rows, columns=["category", "rows", "adapter", "baseline"])


def coverage_rows(metrics: Json) -> pd.DataFrame:
    """A row per threshold of the confidence, as text."""
    rows = [
        (f"{row['threshold']:g}", row["rows"], f"{row['coverage']:.0%}", interval(row, "accuracy"))
        for row in metrics["coverage"]
    ]
    return pd.DataFrame(rows, columns=["confidence at least", "reviews answered", "share", "accuracy of the answers"])


def interval(found: Json, key: str = "value") -> str:
    """A value with its interval's ends."""
    return f"{found[key]:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
