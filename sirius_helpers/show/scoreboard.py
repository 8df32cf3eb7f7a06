"""What a person looks at inline from training on: scores, errors, coverage, doubtful labels. Reads no files and no
model.

The pictures beside it are in pictures.py.

    scoreboard.scores(metrics)
"""

from __future__ import annotations

import pandas as pd

from ..encoder.scores import SCORES
from ..kinds import Json
from .html import Html, table


def scores(metrics: Json) -> Html:
    """Adapter beside baseline in each view, with 95 % intervals; where the split leaks, also by leak.

    Rows that leak are those with many paraphrases, so of rarer categories: the two parts are no fair comparison.
    """
    found = _score_table(metrics["scores"], "Scores with 95 % bootstrap intervals")
    if "by_leak" in metrics:
        caption = "Held-out rows by leak; the two differ in categories, so the fair measure is split='grouped'"
        found += _score_table(metrics["by_leak"], caption)
    return found


def _score_table(views: Json, caption: str) -> Html:
    rows = [
        {
            "rows scored": view,
            "model": model,
            "rows": result["rows"],
            **{title: "{value:.3f}  [{low:.3f}, {high:.3f}]".format(**result[key]) for key, title in SCORES.items()},
        }
        for view, models in views.items()
        for model, result in models.items()
    ]
    return table(pd.DataFrame(rows), caption)


def per_class(metrics: Json, view: str, model: str = "adapter") -> Html:
    """F1 of each category in one view."""
    result = metrics["scores"][view][model]["per_class"]
    names = {"rows": "rows", "f1": "F1", "low": "low", "high": "high"}
    rows = [{"category": name, **{names[key]: found[key] for key in names}} for name, found in result.items()]
    formats = dict.fromkeys(("F1", "low", "high"), ".3f")
    return table(pd.DataFrame(rows).sort_values("rows", ascending=False), f"F1 by category, {view}", formats)


def coverage(metrics: Json) -> Html:
    """How right the confidence is, and what is left to a person below a threshold."""
    found = metrics["calibration"]
    caption = (
        f"Calibration error {found['error_before']:.3f} as trained, {found['error_after']:.3f} with temperature "
        f"{found['temperature']:.2f}, on {found['rows']} held-out originals"
    )
    rows = [
        {
            "confidence at least": f"{row['threshold']:g}",
            "reviews answered": row["rows"],
            "share, %": 100 * row["coverage"],
            "accuracy of the answers": "{accuracy:.3f}  [{low:.3f}, {high:.3f}]".format(**row),
        }
        for row in metrics["coverage"]
    ]
    return table(pd.DataFrame(rows), caption, {"share, %": ".0f"})


def training(history: pd.DataFrame) -> Html:
    """Losses and scores by epoch, the kept one marked."""
    rows = history.assign(epoch=history["epoch"].astype(int), kept=history["kept"].map({True: "kept", False: ""}))
    return table(rows.rename(columns={"kept": ""}), "Training", dict.fromkeys(history.columns[1:-1], ".3f"))


def errors(rows: pd.DataFrame, n: int = 8) -> Html:
    """The errors that the adapter was surest of."""
    caption = f"{min(n, len(rows))} of {len(rows)} errors, the most confident first"
    return table(rows.head(n), caption, {"confidence": ".2f"})


def doubtful_labels(rows: pd.DataFrame, n: int = 10) -> Html:
    """The most doubtful labels with what they might be instead."""
    caption = f"{min(n, len(rows))} of {len(rows)} doubtful labels, the most doubtful first"
    return table(rows.head(n), caption, {"doubt": ".3f"})
