"""What a person looks at, stage by stage: labels, synthetic reviews, parts, training, scores, predictions.

pairs(kept, n=5, seed=0)
"""

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd

from ..encoder.scores import ORIGINAL, class_rows, coverage_rows, score_rows
from ..files.reviews import BY_HAND, PARTS, read_csv
from ..files.runs import Run
from ..kinds import Json
from ..llm.diversity import discriminability, diversity
from ..llm.filters import bare
from ..llm.judge import judge_report
from ..llm.quotas import Wanted
from ..review import contradicted
from .html import Html, picture, table
from .pictures import before_and_after, margins, reasons

NO_MARGINS = (
    "Imported labels carry no probabilities, so there is no least certain one to show. The doubtful ones are listed "
    "under <i>5. Evaluate</i>, with drop-downs there."
)


def class_counts(categories: pd.Series, caption: str) -> Html:
    """Counts and shares by category."""
    counts = categories.value_counts().rename("reviews").rename_axis("category").reset_index()
    counts["share, %"] = 100 * counts["reviews"] / counts["reviews"].sum()
    return table(counts, caption, {"share, %": ".1f"})


def least_certain_rows(labels: pd.DataFrame, n: int) -> pd.DataFrame:
    """The labels with the smallest margin; none where the labels were imported."""
    return labels.dropna(subset="margin").sort_values("margin").head(n)


def least_certain(labels: pd.DataFrame, n: int) -> Html:
    """How sure the labeler was, and the labels with the smallest margin between the two most probable categories."""
    worst = least_certain_rows(labels, n)
    if worst.empty:
        return Html(f"<p>{NO_MARGINS}</p>")
    rows = worst[["id", "text"]].rename(columns={"text": "review"})
    tops = [sorted(p.items(), key=lambda item: -item[1])[:2] for p in worst["probabilities"]]
    for number, choice in enumerate(("first choice", "second choice")):
        rows[choice] = [f"{top[number][0]} {top[number][1]:.2f}" for top in tops]
    drawn = picture(margins(labels["margin"].dropna().astype(float)), alt="margins of the labels")
    return drawn + table(rows, f"The {len(rows)} least certain labels")


def rare(opinions: pd.DataFrame, labels: pd.DataFrame) -> Html:
    """The labels that are multiplied most beside what else is said of their category, the contradicted ones first."""
    if opinions.empty:
        return Html("<p>No second opinion on the rare labels: no second labeler, or no example phrases.</p>")
    against, now = contradicted(opinions, labels), labels.set_index("id")
    by_hand = now["category"][now["labeler"] == BY_HAND]
    found = opinions.assign(by="learned from examples: " + opinions["other"] + "; nearest: ")
    rows = pd.DataFrame({"id": found["id"], "review": found["text"], "label": found["category"]})
    rows["label"] += [f" {p:.2f}" if isinstance(p, float) else "" for p in found["probability"]]  # imported: none
    rows["other opinions"] = found["by"].where(found["other"] != "", "nearest: ") + found["nearest"]
    rows["other opinions"] += ": " + found["phrase"]
    rows["state"] = [f"by hand: {by_hand[i]}" if i in by_hand else "contradicted" * (i in against) for i in rows["id"]]
    caption = f"The {len(rows)} labels that are multiplied most: {len(against)} contradicted and not confirmed"
    return table(rows.sort_values(["state", "label"], ascending=[False, True], kind="stable"), caption)


def corrected(labels: pd.DataFrame) -> Html:
    """The labels that a person set right, after `review`."""
    by_hand = labels.loc[labels["labeler"] == BY_HAND, ["id", "text", "category"]]
    if by_hand.empty:
        return Html("<p>No label is corrected by hand.</p>")
    return table(by_hand, f"Labels corrected by hand: {len(by_hand)}")


def judge(judged: pd.DataFrame, draws: int) -> Html:
    """How the judge does on texts whose answer is known, accepting in all `draws`; a warning where it only guesses."""
    report = judge_report(judged, draws)
    rows = {
        "control texts: genuine ones, and refusals or other talk of a model": report["texts"],
        "right answers": f"{report['accuracy']:.0%}",
        "Cohen's kappa (0: chance, 1: perfect)": f"{report['kappa']:.2f}",
        "genuine reviews that all draws accept": f"{report['reviews_pass']:.0%}",
        "refusals that all draws accept": f"{report['refusals_pass']:.0%}",
    }
    warning = (
        "<p><b>This judge is no better than chance.</b> Its verdicts below mean little; the filters in front of it "
        "do the work. Take a larger model for <code>PARAPHRASER</code>, or another judge prompt.</p>"
    )
    found = table(pd.DataFrame(rows.items(), columns=["the judge on known texts", "value"]))
    return found if report["beats_chance"] else found + Html(warning)


def quotas(labels: pd.DataFrame, planned: Sequence[Wanted], kept: pd.DataFrame, refused: pd.DataFrame) -> Html:
    """By category: how augmentation made it grow; originals, texts wanted and kept, attempts refused."""
    wanted = pd.Series([item.category for item in planned], dtype=object)
    columns = {"originals": labels["category"], "wanted": wanted, "kept": kept["category"]}
    columns["refused attempts"] = refused["category"]
    counted = pd.DataFrame({name: values.value_counts() for name, values in columns.items()}).fillna(0).astype(int)
    counted = counted.sort_values("originals").rename_axis("category").reset_index()
    drawn = picture(before_and_after(labels["category"], kept["category"]), "reviews before and after augmentation")
    return drawn + table(counted, "Synthetic reviews, the rarest category first")


def refusals(refused: pd.DataFrame) -> Html:
    """A picture of how often each reason refused a candidate; a line where none was refused."""
    if refused.empty:
        return Html("<p>No candidate was refused.</p>")
    return picture(reasons(refused["reason"]), alt="reasons of refusal")


def sample_rows(rows: pd.DataFrame, n: int, seed: int = 0, **columns: str | None) -> pd.DataFrame:
    """A random sample of the rows with these values (None: any); a text written anew stands where the old one did."""
    for name, value in columns.items():
        rows = rows if value is None else rows[rows[name] == value]
    rows = rows.sort_values("id") if "id" in rows else rows
    return rows.sample(min(n, len(rows)), random_state=seed)


def pairs(texts: pd.DataFrame, **sample: Any) -> Html:
    """Synthetic reviews, or refused candidates with the reason, beside originals; words that the other lacks marked."""
    rows, refused = sample_rows(texts, **sample), "reason" in texts
    first, name, what = (
        ("reason", "candidate", "refused attempts") if refused else ("id", "synthetic", "synthetic reviews")
    )
    columns: Json = {first: rows[first], "category": rows["category"]}
    columns |= {"original": marked(rows["original"], rows["text"]), name: marked(rows["text"], rows["original"])}
    columns |= {"P(yes)": rows["p_yes"], "attempt": rows["attempt"] + 1}
    return table(pd.DataFrame(columns), f"{len(rows)} of {len(texts)} {what}", {"P(yes)": ".2f"})


def marked(texts: pd.Series, others: pd.Series) -> list[Html]:
    """Texts with the words that the other text lacks in <mark>; everything escaped."""
    cells = []
    for text, other in zip(texts, others, strict=True):
        known = set(bare(other).split())
        parts = [
            f"<mark>{escape(part)}</mark>" if n % 2 and part.casefold() not in known else escape(part)
            for n, part in enumerate(re.split(r"(\w+)", text))
        ]
        cells.append(Html("".join(parts)))
    return cells


def likeness(kept: pd.DataFrame, refused: pd.DataFrame) -> Html:
    """Do synthetic reviews read like real ones: variety of what was written and kept; can a simple model tell?"""
    auc = discriminability(kept, seed=0)
    told = "" if auc is None else f" Told from their originals with an AUC of {auc:.2f} (0.5: never, 1: always)"
    columns = ["category", "text", "original"]  # pandas 2.2 warns of others, empty where nothing was kept
    texts = {"written": pd.concat([kept[columns], refused[columns]]), "kept": kept}
    rows = pd.concat({name: diversity(some) for name, some in texts.items()}, names=[""]).reset_index(level=0)
    names = ("distinct-1", "distinct-2", "chrF to original", "length ratio")
    return table(rows, f"Like real reviews?{told}", dict.fromkeys(names, ".2f") | {"characters": ".0f"})


def parts(split: pd.DataFrame) -> Html:
    """Rows by category and part, synthetic ones apart."""
    kind = split["part"] + split["synthetic"].map({False: "", True: " (synthetic)"})
    counted = pd.crosstab(split["category"], kind)
    counted = counted.loc[counted.sum(axis=1).sort_values(ascending=False).index]
    order = [name for part in PARTS for name in (part, f"{part} (synthetic)") if name in counted.columns]
    return table(counted[order].reset_index(), "Rows by part")


def leaks(report: Mapping[str, int]) -> Html:
    """Held-out rows whose source or near-duplicate the model learns from."""
    names = {
        "held_out": "held-out rows",
        "source_in_training": "… with their original or a paraphrase of it in training",
        "near_duplicate_in_training": "… with a near-duplicate in training",
        "either": "… with either",
    }
    rows = [(text, report[key]) for key, text in names.items()]
    return table(pd.DataFrame(rows, columns=["leak report", "rows"]))


def training(history: pd.DataFrame) -> Html:
    """Losses and scores by epoch, the kept one marked."""
    rows = history.assign(epoch=history["epoch"].astype(int), kept=history["kept"].map({True: "kept", False: ""}))
    return table(rows.rename(columns={"kept": ""}), "Training", dict.fromkeys(history.columns[1:-1], ".3f"))


def scores(metrics: Json) -> Html:
    """Adapter beside baseline in each view, with 95 % intervals; where the split leaks, also by leak."""
    found = table(score_rows(metrics["scores"]), "Scores with 95 % bootstrap intervals")
    if "by_leak" in metrics:
        caption = "Held-out rows by leak; the two differ in categories, so the fair measure is split='grouped'"
        found += table(score_rows(metrics["by_leak"]), caption)
    return found


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


def worst(rows: pd.DataFrame, what: str, n: int) -> Html:
    """The first of the errors, or of the doubtful labels, which stand in that order; `what` names them."""
    caption = f"{min(n, len(rows))} of {len(rows)} {what} first"
    return table(rows.head(n), caption, {"confidence": ".2f", "doubt": ".3f"})


def prediction_rows(run: Run, predictions: pd.DataFrame, n: int) -> pd.DataFrame:
    """A random sample of what `predict` returned, with its texts: columns text, category, confidence."""
    chosen = predictions.sample(min(n, len(predictions)), random_state=0).index
    columns = ["text", "category", "confidence"]
    found = read_csv(run.need("predictions.csv"), columns, skiprows=lambda row: row > 0 and row - 1 not in chosen)
    return found.set_index(chosen.sort_values()).loc[chosen]
