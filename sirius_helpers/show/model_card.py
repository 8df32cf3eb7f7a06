"""The model card of a finished run: what the classifier learned from, how good it is, and what it is not for.

Written beside the adapter's folder, not into it, so that the folder stays exactly what training wrote. Plain
Markdown; holds counts and scores, no review text and no path of the machine.

    text = model_card(settings, run, metrics)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..encoder.scores import ORIGINAL, SCORES
from ..files.categories import labels_of, phrases, read_categories
from ..files.reviews import EXAMPLE, PARTS, TRAIN, read_csv
from ..files.runs import Run
from ..kinds import Json
from ..settings import Settings

FEW = 10  # original training reviews; a category with fewer is named among the limits
INTENDED = "Sorting short texts like those of the folder `{folder}` into the categories above."
SPLITS = {
    "grouped": "grouped: a review, its paraphrases and all near-duplicates of them stand on one side",
    "seed": "seed: rows drawn at random after augmentation, so paraphrases of one review may stand on both sides",
}


def model_card(settings: Settings, run: Run, metrics: Json) -> str:
    """The card as Markdown; `metrics` are what the evaluation writes to metrics.json."""
    table = read_csv(run.need("split.csv"))
    sections = {
        "": _model(settings, run, metrics),
        "How to load": _load(settings),
        "Data": _data(settings, run, table),
        "Split": _split(metrics),
        "Scores": _scores(metrics),
        "Confidence": _confidence(metrics),
        "Intended use": INTENDED.format(folder=settings.data.name),
        "Limits": _limits(settings, table, metrics),
    }
    parts = [f"## {title}\n\n{text}" if title else text for title, text in sections.items()]
    return f"# Model card: {settings.run}\n\n" + "\n\n".join(parts) + "\n"


def _model(settings: Settings, run: Run, metrics: Json) -> str:
    spec, best = settings.classifier, metrics["training"]
    name = _public(spec.name)
    origin = run.memory.get("models", {}).get("classifier", {})
    source = f" (from {origin['package']} {origin['version']})" if "package" in origin else ""
    revision = f" at {spec.revision}" if spec.revision else ""
    return (
        f"LoRA adapter (rank {settings.lora_rank}, on {', '.join(settings.lora_targets)}) and a linear head on the "
        f"mean-pooled encoder `{name}`{revision}{source}. Weights of epoch {best['epoch']:.0f}, the best by "
        f"weighted F1 on the validation part ({best['weighted_f1']:.3f}). Seed {settings.seed}."
    )


def _load(settings: Settings) -> str:
    texts = [text for text, _ in phrases(read_categories(settings.data))][:2] or ["…"]
    return f"""```python
from sirius_helpers.encoder.classifier import Classifier
with Classifier.load("checkpoints/{settings.run}/adapter", device="cpu") as classifier:
    print([classifier.labels[row.argmax()] for row in classifier({json.dumps(texts, ensure_ascii=False)})])
```"""


def _data(settings: Settings, run: Run, table: pd.DataFrame) -> str:
    labelers = read_csv(run.need("labels.csv"))["labeler"].value_counts()
    made_by = "\n".join(f"- {count} by `{_public(str(name))}`" for name, count in labelers.items())
    originals, examples = table[~table["synthetic"]], table[table["source_id"] == EXAMPLE]
    paraphrases = table[table["synthetic"] & (table["source_id"] != EXAMPLE)]
    rows = []
    for label in labels_of(read_categories(settings.data)):
        own = originals[originals["category"] == label]
        counts = [int((own["part"] == part).sum()) for part in PARTS]
        rows.append((label, *counts, *(int((part["category"] == label).sum()) for part in (paraphrases, examples))))
    total = [sum(column) for column in zip(*(row[1:] for row in rows), strict=True)]
    return (
        f"Reviews of the folder `{settings.data.name}`, each with one of {len(rows)} categories. "
        f"The labels were given\n\n{made_by}\n\n"
        f"Paraphrases are by `{_public(settings.writer.name)}`, kept when the same model judged each of them a review "
        f"{settings.judge_draws} times. Example phrases are the categories' own, all in training.\n\n"
        + _table(
            ("category", *(f"originals, {part}" for part in PARTS), "paraphrases", "example phrases"),
            [*rows, ("all", *total)],
        )
    )


def _split(metrics: Json) -> str:
    leaks = metrics["leaks"]
    return (
        f"{SPLITS[metrics['split']]}. Of {leaks['held_out']} held-out rows, {leaks['source_in_training']} have their "
        f"original or a paraphrase of it on the learning side, {leaks['near_duplicate_in_training']} a near-duplicate, "
        f"{leaks['either']} either."
    )


def _scores(metrics: Json) -> str:
    views = metrics["scores"] | metrics.get("by_leak", {})
    rows = [
        (view, model, found["rows"], *(_interval(found[key]) for key in SCORES))
        for view, models in views.items()
        for model, found in sorted(models.items())
    ]
    adapter, baseline = (metrics["scores"][ORIGINAL][model]["per_class"] for model in ("adapter", "baseline"))
    classes = [
        (name, found["rows"], _interval(found, "f1"), _interval(baseline[name], "f1"))
        for name, found in adapter.items()
    ]
    return (
        "With 95 % bootstrap intervals; the baseline is a logistic regression on the encoder as it was before "
        "training.\n\n"
        + _table(("rows scored", "model", "rows", *SCORES.values()), rows)
        + f"\n\nF1 by category, {ORIGINAL}:\n\n"
        + _table(("category", "rows", "adapter", "baseline"), classes)
    )


def _confidence(metrics: Json) -> str:
    found = metrics["calibration"]
    rows = [
        (f"{row['threshold']:g}", f"{row['coverage']:.0%}", _interval(row, "accuracy")) for row in metrics["coverage"]
    ]
    return (
        f"Probabilities are scaled with temperature {found['temperature']:.2f}, fitted on {found['fitted_on']} "
        f"validation originals. Expected calibration error on {found['rows']} held-out originals: "
        f"{found['error_before']:.3f} before, {found['error_after']:.3f} after. Left to a person below a threshold:\n\n"
        + _table(("confidence at least", "reviews answered", "accuracy of the answers"), rows)
    )


def _limits(settings: Settings, table: pd.DataFrame, metrics: Json) -> str:
    learned = table[(table["part"] == TRAIN) & ~table["synthetic"]]["category"].value_counts()
    few = [f"{name} ({n})" for name in labels_of(read_categories(settings.data)) if (n := learned.get(name, 0)) < FEW]
    lines = ["Scores measure agreement with the labels, and so with whoever gave them."]
    if (human := metrics.get("labels_against_human", {})).get("rows"):
        lines.append(f"The labels agree with people's on {human['accuracy']:.0%} of {human['rows']} reviews.")
    if metrics["doubtful_labels"]:
        lines.append(f"{metrics['doubtful_labels']} labels look doubtful; they are listed in `doubtful_labels.csv`.")
    for view, models in metrics["scores"].items():
        own, other = (models[model]["weighted_f1"] for model in ("adapter", "baseline"))
        if own["value"] <= other["value"]:
            lines.append(f"On the {view} the adapter does not beat the linear baseline in weighted F1.")
    if few:
        lines.append(f"Fewer than {FEW} original training reviews: {', '.join(few)}.")
    lines.append(f"Text beyond {settings.max_tokens} tokens is not read. Every text gets a category, nonsense too.")
    lines.append("Texts of another language, length or kind were not tried.")
    return "\n".join(f"- {line}" for line in lines)


def _public(name: str) -> str:
    """A model's name; of a local folder only its own name."""
    return Path(name).name if Path(name).is_absolute() else name


def _interval(found: Json, key: str = "value") -> str:
    return f"{found[key]:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
