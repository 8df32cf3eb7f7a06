"""What each stage cost and left behind, and the way to run it alone: lines and tables below a stage's results.

Reads run.json, of models the hub's listings and configurations; loads no model.

    stage(run, "label")
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from transformers import AutoModel, AutoModelForCausalLM

from .. import hub
from ..files.runs import Run, hub_roles
from ..kinds import Json
from ..loaders import check_fits
from ..settings import Settings
from .html import Html, note, table

# The reference solution on one T4, 1,818 and 7,276 reviews; it gives no time for its other stages.
REFERENCE = {"label": 8_672.0 / 1_818, "predict": 256.0 / 7_276}  # seconds a review
HOW_ALONE = "Alone: the cells under Install and Settings, then this stage's. Delete a file to have it made anew."


def hub_models(settings: Settings) -> dict[str, str]:
    """Of each hub model its commit, its download and its need of memory, and the disk's room; of pinned settings.

    UserError where memory does not hold a model that a stage waits for.
    """
    rows, missing, size = {}, 0, hub.size
    for role, awaited in hub_roles(settings).items():
        spec, name = getattr(settings, role), f"{role}, from the hub"
        rows[name] = f"commit {spec.revision}"
        if awaited:
            source = hub.source_of(spec)
            missing += source.missing
            rows[name] += f"; {size(sum(source.files.values()))}, to download: {size(source.missing)}"
        if awaited and not spec.server:
            writes = role == "writer" or (role == "labeler" and settings.labeler_kind == "llm")
            needed = check_fits(AutoModelForCausalLM if writes else AutoModel, spec, settings.device)
            rows[name] += f"; in memory: {needed / 2**30:.1f} GiB"
    return rows | ({"to download": f"{size(missing)}; free on the disk: {size(hub.free_disk())}"} if rows else {})


def stage(run: Run, name: str) -> Html:
    """A finished stage's time, peak memory and files, and how to rerun it."""
    entry = run.memory["stages"][name]
    files = ", ".join(entry["files"])
    return note(
        f"{name}: {entry['seconds']:.1f} s, peak memory so far {_memory(entry)}, finished {entry['finished']}. "
        f"Files in {place(run)}: {files}. {HOW_ALONE}"
    )


def stage_times(run: Run, reviews: int, tests: int) -> Html:
    """All finished stages with their time, beside the reference's where it published one.

    `reviews` and `tests` are the rows of train.csv and test.csv: what the seconds are divided by.
    """
    sizes, imported = {"label": reviews, "predict": tests}, run.memory.get("settings", {}).get("labels")
    rows = []
    for name, entry in run.memory["stages"].items():
        per_review = name in REFERENCE and not (name == "label" and imported)
        rows.append(
            {
                "stage": name,
                "seconds": entry["seconds"],
                "peak memory so far": _memory(entry),
                "reviews": f"{sizes[name]:,}" if per_review else "",
                "seconds a review": entry["seconds"] / sizes[name] if per_review else None,
                "reference, seconds a review": REFERENCE[name] if per_review else None,
            }
        )
    formats = {"seconds": ",.1f", "seconds a review": ".4f", "reference, seconds a review": ".4f", "reviews": ""}
    total = sum(row["seconds"] for row in rows)
    return table(pd.DataFrame(rows), f"Stage times, {total:,.0f} s in all", formats) + note(
        "The reference: one T4, labels 1,818 reviews in 8,672 s, predicts 7,276 in 256 s; it gives no other times. "
        "A stage that was reused shows the time of its last work; imported labels take none."
    )


def place(run: Run) -> str:
    """The run's folder as seen from the working directory, absolute where it does not lie below it."""
    folder, here = run.folder.resolve(), Path.cwd()
    return f"{folder.relative_to(here) if folder.is_relative_to(here) else folder}/"


def _memory(entry: Json) -> str:
    """Of a run.json written before memory was watched: a dash."""
    if "peak_memory" not in entry:
        return "–"
    gpu = f", GPU {entry['peak_gpu_memory']:.1f} GiB" if "peak_gpu_memory" in entry else ""
    return f"{entry['peak_memory']:.1f} GiB{gpu}"
