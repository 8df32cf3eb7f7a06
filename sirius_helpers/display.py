"""What a person looks at inline: tables, side-by-side samples, pictures.

Everything returns an object that a notebook shows by itself (`_repr_html_`); review text is always escaped.
Reads no files and loads no model.

    display.pairs(kept, n=5, seed=0)
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .filters import bare
from .pictures import curves as curves  # every stage's display is found here
from .pictures import png
from .scoring import SCORES

_STYLE = (
    "<style>.sirius{overflow-x:auto;margin:.4em 0}.sirius table{border-collapse:collapse;font-size:13px}"
    ".sirius th,.sirius td{padding:.3em .7em;text-align:left!important;vertical-align:top;"
    "border-bottom:1px solid rgba(127,127,127,.3);white-space:normal;max-width:38em}"
    ".sirius td.num,.sirius th.num{text-align:right!important;font-variant-numeric:tabular-nums;white-space:nowrap}"
    ".sirius mark{background:rgba(230,159,0,.3);color:inherit}"
    ".sirius caption{caption-side:top;text-align:left;font-weight:600;padding:.2em 0;white-space:nowrap}</style>"
)

_CLASSES = "sirius tex2jax_ignore mathjax_ignore"  # prices in dollars are no formulas


class Html:
    """Finished HTML that a notebook shows."""

    def __init__(self, html: str) -> None:
        self.html = html

    def _repr_html_(self) -> str:
        return self.html

    def __add__(self, other: Html) -> Html:
        return Html(self.html + other.html)


def table(rows: pd.DataFrame, caption: str = "", formats: dict[str, str] | None = None) -> Html:
    """A table with escaped text; `formats` maps a column to a format such as ".3f"."""
    formats = formats or {}
    numeric = [pd.api.types.is_numeric_dtype(rows[name]) or name in formats for name in rows.columns]
    head = "".join(_cell("th", escape(str(name)), num) for name, num in zip(rows.columns, numeric, strict=True))
    body = "".join(
        "<tr>"
        + "".join(
            _cell("td", value.html if isinstance(value, Html) else escape(_text(value, formats.get(name))), num)
            for name, value, num in zip(rows.columns, row, numeric, strict=True)
        )
        + "</tr>"
        for row in rows.itertuples(index=False)
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return Html(f'{_STYLE}<div class="{_CLASSES}"><table>{title}<tr>{head}</tr>{body}</table></div>')


def facts(values: dict, caption: str = "") -> Html:
    """Names and values, a row each."""
    rows = [(name, value if isinstance(value, str) else repr(value)) for name, value in values.items()]
    return table(pd.DataFrame(rows, columns=["setting", "value"]), caption)


def picture(figure: Figure, alt: str) -> Html:
    """A figure as an image that needs no plotting backend."""
    return _image(png(figure), alt)


def shown(folder: Path, name: str) -> Html:
    """A picture of the report."""
    return _image((folder / f"{name}.png").read_bytes(), name)


def class_counts(categories: pd.Series, caption: str = "Reviews a category") -> Html:
    """Counts and shares by category."""
    counts = categories.value_counts()
    share = 100 * counts / counts.sum()
    rows = pd.DataFrame({"category": counts.index, "reviews": counts.to_numpy(), "share, %": share.to_numpy()})
    return table(rows, caption, {"share, %": ".1f"})


def least_certain(labels: pd.DataFrame, n: int = 8) -> Html:
    """The labels with the smallest margin between the two most probable categories."""
    if labels["margin"].isna().all():
        return Html("<p>Imported labels carry no probabilities, so there is no least certain one to show.</p>")
    worst = labels.sort_values("margin").head(n)
    tops = [sorted(p.items(), key=lambda item: -item[1])[:2] for p in worst["probabilities"]]
    rows = pd.DataFrame(
        {
            "id": worst["id"],
            "review": worst["text"],
            "first choice": [f"{one[0]} {one[1]:.2f}" for one, _ in tops],
            "second choice": [f"{two[0]} {two[1]:.2f}" for _, two in tops],
        }
    )
    return table(rows, f"The {len(rows)} least certain labels")


def quotas(labels: pd.DataFrame, wanted: Sequence, kept: pd.DataFrame, refused: pd.DataFrame) -> Html:
    """By category: originals, texts wanted and kept, attempts refused."""
    columns = {
        "originals": labels["category"],
        "wanted": pd.Series([item.category for item in wanted], dtype=object),
        "kept": kept["category"],
        "refused attempts": refused["category"],
    }
    counted = pd.DataFrame({name: values.value_counts() for name, values in columns.items()}).fillna(0).astype(int)
    counted = counted.sort_values("originals").rename_axis("category").reset_index()
    return table(counted, "Synthetic reviews, the rarest category first")


def reasons(refused: pd.DataFrame) -> Html:
    """How often each reason refused a candidate."""
    counts = refused["reason"].value_counts().rename_axis("reason").reset_index(name="attempts")
    return table(counts, "Why candidates were refused")


def judge(report: dict) -> Html:
    """How the judge does on texts whose answer is known, with a plain warning where it only guesses."""
    rows = pd.DataFrame(
        [
            ("control texts, half of them refusals or other talk of a model", str(report["texts"])),
            ("right answers", f"{report['accuracy']:.0%}"),
            ("Cohen's kappa (0: chance, 1: perfect)", f"{report['kappa']:.2f}"),
            ("genuine reviews that all draws accept", f"{report['reviews_pass']:.0%}"),
            ("refusals that all draws accept", f"{report['refusals_pass']:.0%}"),
        ],
        columns=["the judge on known texts", "value"],
    )
    warning = (
        "<p><b>This judge is no better than chance.</b> Its verdicts below mean little; the filters in front of it "
        "do the work. Take a larger model for <code>writer</code>, or another judge prompt.</p>"
    )
    return table(rows) + Html("" if report["beats_chance"] else warning)


def pairs(kept: pd.DataFrame, n: int = 6, seed: int = 0, category: str | None = None) -> Html:
    """Random originals beside their paraphrases, words of one that the other lacks marked; a seed, a sample."""
    rows = kept if category is None else kept[kept["category"] == category]
    rows = rows.sample(min(n, len(rows)), random_state=seed)
    shown = pd.DataFrame(
        {
            "id": rows["id"],
            "category": rows["category"],
            "original": _marked(rows["original"], rows["text"]),
            "synthetic": _marked(rows["text"], rows["original"]),
            "P(yes)": rows["p_yes"],
            "attempt": rows["attempt"] + 1,
        }
    )
    return table(shown, f"{len(shown)} of {len(kept)} synthetic reviews", {"P(yes)": ".2f"})


def refused_sample(refused: pd.DataFrame, n: int = 6, seed: int = 0, reason: str | None = None) -> Html:
    """Random refused candidates with the reason."""
    rows = refused if reason is None else refused[refused["reason"] == reason]
    rows = rows.sample(min(n, len(rows)), random_state=seed)
    shown = rows[["reason", "original", "text", "p_yes"]].rename(columns={"text": "candidate", "p_yes": "P(yes)"})
    return table(shown, f"{len(rows)} of {len(refused)} refused attempts", {"P(yes)": ".2f"})


def compared(tables: dict[str, pd.DataFrame], caption: str = "Like real reviews?") -> Html:
    """Tables of `diversity`, one under the other, the first column telling which is which."""
    rows = pd.concat([rows.assign(texts_of=name) for name, rows in tables.items()])
    rows = rows[["texts_of", *rows.columns.drop("texts_of")]].rename(columns={"texts_of": ""})
    names = ("distinct-1", "distinct-2", "chrF to original", "length ratio")
    return table(rows, caption, dict.fromkeys(names, ".2f") | {"characters": ".0f"})


def parts(split: pd.DataFrame) -> Html:
    """Rows by category and part, synthetic ones apart."""
    kind = split["part"] + split["synthetic"].map({False: "", True: " (synthetic)"})
    counted = pd.crosstab(split["category"], kind)
    order = [f"{part}{kind}" for part in ("train", "validation", "test") for kind in ("", " (synthetic)")]
    counted = counted[[name for name in order if name in counted.columns]]
    counted = counted.loc[counted.sum(axis=1).sort_values(ascending=False).index]
    return table(counted.rename_axis("category").reset_index(), "Rows by part")


def leaks(report: dict) -> Html:
    """Held-out rows whose source or near-duplicate the model learns from."""
    names = {
        "held_out": "held-out rows",
        "source_in_training": "… with their original or a paraphrase of it in training",
        "near_duplicate_in_training": "… with a near-duplicate in training",
        "either": "… with either",
    }
    rows = pd.DataFrame([(text, report[key]) for key, text in names.items()], columns=["leak report", "rows"])
    return table(rows)


def scores(metrics: dict) -> Html:
    """Adapter beside baseline in each view, with 95 % intervals; where the split leaks, also by leak.

    Rows that leak are those with many paraphrases, so of rarer categories: the two parts are no fair comparison.
    """
    found = _score_table(metrics["scores"], "Scores with 95 % bootstrap intervals")
    if "by_leak" in metrics:
        caption = "Held-out rows by leak; the two differ in categories, so the fair measure is split='grouped'"
        found += _score_table(metrics["by_leak"], caption)
    return found


def _score_table(views: dict, caption: str) -> Html:
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


def per_class(metrics: dict, view: str, model: str = "adapter") -> Html:
    """F1 of each category in one view."""
    result = metrics["scores"][view][model]["per_class"]
    rows = [{"category": name, **values} for name, values in result.items()]
    formats = dict.fromkeys(("f1", "low", "high"), ".3f")
    return table(pd.DataFrame(rows).sort_values("rows", ascending=False), f"F1 by category, {view}", formats)


def coverage(metrics: dict) -> Html:
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


def doubtful_labels(rows: pd.DataFrame, n: int = 10) -> Html:
    """The most doubtful labels with what they might be instead."""
    return table(rows.head(n), f"{min(n, len(rows))} of {len(rows)} doubtful labels, the most doubtful first")


def stage_times(stages: dict) -> Html:
    """Seconds each finished stage took when it last did its work."""
    rows = [
        {"stage": name, "seconds": entry["seconds"], "finished": entry["finished"]} for name, entry in stages.items()
    ]
    return table(pd.DataFrame(rows), "Stage times", {"seconds": ".1f"})


def _image(data: bytes, alt: str) -> Html:
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return Html(f'<img style="max-width:100%" alt="{escape(alt)}" src="{source}">')


def _marked(texts: pd.Series, others: pd.Series) -> list[Html]:
    """Texts with the words that the other text lacks in <mark>; everything escaped."""
    cells = []
    for text, other in zip(texts, others, strict=True):
        known = set(bare(other).split())
        parts = re.split(r"(\w+)", text)
        cells.append(
            Html(
                "".join(
                    f"<mark>{escape(part)}</mark>" if n % 2 and part.casefold() not in known else escape(part)
                    for n, part in enumerate(parts)
                )
            )
        )
    return cells


def _text(value, form: str | None) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return format(value, form) if form and not isinstance(value, str) else str(value)


def _cell(tag: str, html: str, numeric: bool) -> str:
    kind = ' class="num"' if numeric else ""
    return f"<{tag}{kind}>{html}</{tag}>"
