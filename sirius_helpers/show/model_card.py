"""The model card of a finished run: what the classifier learned from, how good it is, and what it is not for.

Markdown with the hub's metadata block. Holds counts and scores, no review text and no path of the machine.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from huggingface_hub import ModelCard, ModelCardData

from ..encoder.scores import class_rows, coverage_rows, score_rows
from ..files.categories import labels_of, phrases, read_categories
from ..files.reviews import EXAMPLE, PARTS, TRAIN, read_csv
from ..files.runs import Run
from ..kinds import Json
from ..settings import Settings

FEW = 10  # original training reviews; a category with fewer is named among the limits
SPLITS = {
    "grouped": "grouped: a review, its paraphrases and all near-duplicates of them stand on one side",
    "seed": "seed: rows drawn at random after augmentation, so paraphrases of one review may stand on both sides",
}


def model_card(settings: Settings, run: Run, metrics: Json, rows: pd.DataFrame) -> str:
    """The card; `metrics` are what the evaluation writes to metrics.json, `rows` those of split.csv."""
    spec, taxonomy = settings.classifier, read_categories(settings.data)
    origin = run.memory.get("models", {}).get("classifier", {})
    revision = f" at {spec.revision}" if spec.revision else ""
    package = f" (from {origin['package']} {origin['version']})" if "package" in origin else ""
    base, tags = spec.name if spec.on_hub else None, ["lora", "reviews", "sirius"]
    labelers = read_csv(run.need("labels.csv"))["labeler"].map(_public).value_counts()
    counts = _counts(rows, labels_of(taxonomy))
    card = ModelCard.from_template(
        ModelCardData(language="ru", base_model=base, pipeline_tag="text-classification", tags=tags),
        template_path=str(Path(__file__).with_suffix(".md")),
        settings=settings,
        metrics=metrics,
        encoder=_public(spec.name),
        source=revision + package,
        writer=_public(settings.writer.name),
        labelers=labelers.items(),
        examples=json.dumps([text for text, _ in phrases(taxonomy)][:2] or ["…"], ensure_ascii=False),
        categories=len(counts),
        counts=_table(pd.concat([counts, counts.sum().to_frame("all").T]).rename_axis("category").reset_index()),
        split=SPLITS[metrics["split"]],
        scores=_table(score_rows(metrics["scores"] | metrics.get("by_leak", {}))),
        per_class=_table(class_rows(metrics)),
        coverage=_table(coverage_rows(metrics)),
        limits=_limits(settings, counts[f"originals, {TRAIN}"], metrics),
    )
    return str(card)


def _counts(rows: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """Rows of each category: originals by part, paraphrases, example phrases."""
    kinds = [~rows["synthetic"], rows["source_id"] == EXAMPLE]
    kind = np.select(kinds, ["originals, " + rows["part"], "example phrases"], "paraphrases")
    columns = [*(f"originals, {part}" for part in PARTS), "paraphrases", "example phrases"]
    return pd.crosstab(rows["category"], kind).reindex(index=labels, columns=columns, fill_value=0)


def _limits(settings: Settings, learned: pd.Series, metrics: Json) -> list[str]:
    """`learned` are the original training reviews per category."""
    lines = ["Scores measure agreement with the labels, and so with whoever gave them."]
    if (human := metrics.get("labels_against_human", {})).get("rows"):
        lines.append(f"The labels agree with people's on {human['accuracy']:.0%} of {human['rows']} reviews.")
    if metrics["doubtful_labels"]:
        lines.append(f"{metrics['doubtful_labels']} labels look doubtful; they are listed in `doubtful_labels.csv`.")
    for view, models in metrics["scores"].items():
        if models["adapter"]["weighted_f1"]["value"] <= models["baseline"]["weighted_f1"]["value"]:
            lines.append(f"On the {view} the adapter does not beat the linear baseline in weighted F1.")
    if few := [f"{name} ({n})" for name, n in learned.items() if n < FEW]:
        lines.append(f"Fewer than {FEW} original training reviews: {', '.join(few)}.")
    lines.append(f"Text beyond {settings.max_tokens} tokens is not read. Every text gets a category, nonsense too.")
    lines.append("Texts of another language, length or kind were not tried.")
    return lines


def _public(name: str) -> str:
    """A model's name; of a local folder only its own name."""
    return Path(name).name if Path(name).is_absolute() else name


def _table(rows: pd.DataFrame) -> str:
    lines: list[list[object]] = [list(rows), ["---"] * len(rows.columns), *rows.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
