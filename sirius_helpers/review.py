"""Labels set right by a person: `corrections.csv` (id or text, category) goes on top of what the labeler said.

Writes `labels.csv` (id, text, category, labeler), which is what the later stages read, and `opinions.csv`: what else
says of which category the rarest reviews are. A person writes the corrections in any editor or by
`files.reviews.correct`; one to the category that a review has anyway confirms it.

    labels = review(settings)                       # stage "review"
    rare = opinions(settings)                       # stage "opinions"
"""

import pandas as pd

from .files.categories import by_any_name, phrases, read_categories
from .files.reviews import BY_HAND, CORRECTIONS, corrected, read_csv, read_labels, write_csv
from .files.runs import Run, digest, pinned, stage_mark, told
from .settings import Settings


@told
def review(settings: Settings) -> pd.DataFrame:
    """Stage "review": the labels with the corrections on top, if there are any."""
    run = Run(settings.folder, settings)
    source, corrections = run.need("labels.jsonl"), run.path(CORRECTIONS)
    names = by_any_name(read_categories(settings.data)) if corrections.exists() else None
    mark = stage_mark("review", digest(source), digest(corrections), names)
    if not run.is_finished("review", mark):
        with run.stage("review", mark):
            labels = read_labels(run)[["id", "text", "category", "labeler"]]
            right = labels["id"].map(corrected(settings))
            labels.loc[right.notna(), "category"] = right.dropna()
            labels.loc[right.notna(), "labeler"] = BY_HAND
            write_csv(run.path("labels.csv"), labels)
    return read_csv(run.path("labels.csv"))


@told
def opinions(settings: Settings) -> pd.DataFrame:
    """Stage "opinions": the labels of the categories that are multiplied most, with `label_noise.second_opinions`."""
    run, settings = Run(settings.folder, settings), pinned(settings, "second_labeler")
    source, known, spec = run.need("labels.jsonl"), phrases(read_categories(settings.data)), settings.second_labeler
    labeler = [bool(settings.labels), settings.labeler_kind, settings.second_weight]
    mark = stage_mark("opinions", digest(source), known, spec and spec.identity, settings.few_shot_c, labeler)
    if not run.is_finished("opinions", mark):
        from .encoder.label_noise import second_opinions  # it alone needs a model
        from .llm.quotas import most_multiplied

        with run.stage("opinions", mark):
            labels = read_labels(run)
            rare = labels[labels["category"].isin(most_multiplied(labels["category"].tolist()))]
            write_csv(run.path("opinions.csv"), second_opinions(rare, known, settings))
    return read_csv(run.path("opinions.csv"))


def contradicted(rare: pd.DataFrame, labels: pd.DataFrame) -> set[str]:
    """Ids of the rare labels (`opinions`) that all other opinions contradict and nobody confirmed or set right."""
    against = rare[["other", "nearest"]].ne(rare["category"], axis=0).all(axis=1)
    return set(rare["id"][against]) - set(labels["id"][labels["labeler"] == BY_HAND])
