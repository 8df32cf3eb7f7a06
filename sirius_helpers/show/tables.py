"""What a person looks at inline while labels and synthetic reviews are made: counts, doubts, pairs, refusals.

Reads no files and loads no model; the scores are in scoreboard.py, times and places in evidence.py.

    display.pairs(kept, n=5, seed=0)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from ..files.reviews import BY_HAND
from ..kinds import Json
from ..llm.quotas import Wanted
from .data_pictures import before_and_after, margins, reasons
from .html import Html, marked, picture, table

NO_MARGINS = (
    "Imported labels carry no probabilities, so there is no least certain one to show. The doubtful ones are listed "
    "under <i>5. Evaluate</i>, with drop-downs there."
)


def class_counts(categories: pd.Series, caption: str = "Reviews a category") -> Html:
    """Counts and shares by category."""
    counts = categories.value_counts()
    share = 100 * counts / counts.sum()
    rows = pd.DataFrame({"category": counts.index, "reviews": counts.to_numpy(), "share, %": share.to_numpy()})
    return table(rows, caption, {"share, %": ".1f"})


def least_certain_rows(labels: pd.DataFrame, n: int = 8) -> pd.DataFrame:
    """The labels with the smallest margin; none where the labels were imported."""
    return labels.dropna(subset="margin").sort_values("margin").head(n)


def least_certain(labels: pd.DataFrame, n: int = 8) -> Html:
    """The labels with the smallest margin between the two most probable categories."""
    if labels["margin"].isna().all():
        return Html(f"<p>{NO_MARGINS}</p>")
    worst = least_certain_rows(labels, n)
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


def label_margins(labels: pd.DataFrame) -> Html:
    """A picture of how sure the labeler was; nothing for imported labels, which say nothing of it."""
    known = labels["margin"].dropna().astype(float)
    return picture(margins, known, alt="margins of the labels") if len(known) else Html("")


def corrected(labels: pd.DataFrame) -> Html:
    """The labels that a person set right, after `review`."""
    by_hand = labels.loc[labels["labeler"] == BY_HAND, ["id", "text", "category"]]
    if by_hand.empty:
        return Html("<p>No label is corrected by hand.</p>")
    return table(by_hand, f"Labels corrected by hand: {len(by_hand)}")


def quotas(labels: pd.DataFrame, wanted: Sequence[Wanted], kept: pd.DataFrame, refused: pd.DataFrame) -> Html:
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


def refusals(refused: pd.DataFrame) -> Html:
    """A picture of how often each reason refused a candidate; a line where none was refused."""
    if refused.empty:
        return Html("<p>No candidate was refused.</p>")
    return picture(reasons, refused["reason"], alt="reasons of refusal")


def growth(labels: pd.DataFrame, kept: pd.DataFrame) -> Html:
    """A picture of the categories before and after augmentation."""
    return picture(before_and_after, labels["category"], kept["category"], alt="reviews before and after augmentation")


def judge(report: Json) -> Html:
    """How the judge does on texts whose answer is known, with a plain warning where it only guesses."""
    rows = pd.DataFrame(
        [
            ("control texts: genuine ones, and refusals or other talk of a model", str(report["texts"])),
            ("right answers", f"{report['accuracy']:.0%}"),
            ("Cohen's kappa (0: chance, 1: perfect)", f"{report['kappa']:.2f}"),
            ("genuine reviews that all draws accept", f"{report['reviews_pass']:.0%}"),
            ("refusals that all draws accept", f"{report['refusals_pass']:.0%}"),
        ],
        columns=["the judge on known texts", "value"],
    )
    warning = (
        "<p><b>This judge is no better than chance.</b> Its verdicts below mean little; the filters in front of it "
        "do the work. Take a larger model for <code>PARAPHRASER</code>, or another judge prompt.</p>"
    )
    return table(rows) + Html("" if report["beats_chance"] else warning)


def pair_rows(kept: pd.DataFrame, n: int = 6, seed: int = 0, category: str | None = None) -> pd.DataFrame:
    """A random sample of the synthetic reviews; one written anew stands where the rejected one stood."""
    rows = (kept if category is None else kept[kept["category"] == category]).sort_values("id")
    return rows.sample(min(n, len(rows)), random_state=seed)


def pairs(kept: pd.DataFrame, n: int = 6, seed: int = 0, category: str | None = None) -> Html:
    """Random originals beside their paraphrases, words of one that the other lacks marked."""
    rows = pair_rows(kept, n, seed, category)
    return _beside_originals(rows, "id", "synthetic", f"{len(rows)} of {len(kept)} synthetic reviews")


def refused_sample(
    refused: pd.DataFrame, n: int = 6, seed: int = 0, reason: str | None = None, category: str | None = None
) -> Html:
    """Random refused candidates with the reason, beside their originals as in `pairs`."""
    rows = refused if reason is None else refused[refused["reason"] == reason]
    rows = rows if category is None else rows[rows["category"] == category]
    rows = rows.sample(min(n, len(rows)), random_state=seed)
    return _beside_originals(rows, "reason", "candidate", f"{len(rows)} of {len(refused)} refused attempts")


def _beside_originals(rows: pd.DataFrame, first: str, text: str, caption: str) -> Html:
    """Texts under the name `text`, beside their originals; `first` is the column that stands in front."""
    shown = pd.DataFrame(
        {
            first: rows[first],
            "category": rows["category"],
            "original": marked(rows["original"], rows["text"]),
            text: marked(rows["text"], rows["original"]),
            "P(yes)": rows["p_yes"],
            "attempt": rows["attempt"] + 1,
        }
    )
    return table(shown, caption, {"P(yes)": ".2f"})


def compared(tables: dict[str, pd.DataFrame], auc: float | None = None) -> Html:
    """Tables of `diversity`, one under the other, the first column says which; `auc` is that of `told_apart`."""
    told = "" if auc is None else f" Told from their originals with an AUC of {auc:.2f} (0.5: never, 1: always)"
    rows = pd.concat([rows.assign(texts_of=name) for name, rows in tables.items()])
    rows = rows[["texts_of", *rows.columns.drop("texts_of")]].rename(columns={"texts_of": ""})
    names = ("distinct-1", "distinct-2", "chrF to original", "length ratio")
    return table(rows, f"Like real reviews?{told}", dict.fromkeys(names, ".2f") | {"characters": ".0f"})


def parts(split: pd.DataFrame) -> Html:
    """Rows by category and part, synthetic ones apart."""
    kind = split["part"] + split["synthetic"].map({False: "", True: " (synthetic)"})
    counted = pd.crosstab(split["category"], kind)
    order = [f"{part}{kind}" for part in ("train", "validation", "test") for kind in ("", " (synthetic)")]
    counted = counted[[name for name in order if name in counted.columns]]
    counted = counted.loc[counted.sum(axis=1).sort_values(ascending=False).index]
    return table(counted.rename_axis("category").reset_index(), "Rows by part")


def leaks(report: Mapping[str, int]) -> Html:
    """Held-out rows whose source or near-duplicate the model learns from."""
    names = {
        "held_out": "held-out rows",
        "source_in_training": "… with their original or a paraphrase of it in training",
        "near_duplicate_in_training": "… with a near-duplicate in training",
        "either": "… with either",
    }
    rows = pd.DataFrame([(text, report[key]) for key, text in names.items()], columns=["leak report", "rows"])
    return table(rows)
