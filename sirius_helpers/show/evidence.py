"""What each stage cost and left behind, and how to run it alone: lines and tables from run.json. Loads no model."""

from pathlib import Path

import pandas as pd
from transformers import AutoModel, AutoModelForCausalLM

from ..files.runs import Run, hub_roles
from ..kinds import Json
from ..loaders import check_fits, memory
from ..models import hub
from ..settings import Settings, rehearsal, t4
from .html import Html, facts, note, table

# The reference solution on one T4, 1,818 and 7,276 reviews; it gives no time for its other stages.
REFERENCE = {"label": 8_672.0 / 1_818, "predict": 256.0 / 7_276}  # seconds per review


def this_run(settings: Settings, run: Run) -> Html:
    """The choices of a run, and what the machine has for it."""
    labeler, second, writer = settings.labeler, settings.second_labeler, settings.writer
    asked = f"{labeler.name} ({settings.labeler_kind})"
    asked += f", pooled with {second.name}" if second and settings.second_weight else ""
    chosen = {
        "profile": f"{settings.profile} ({settings.profile_reason})",
        "labeler": settings.labels.name if settings.labels else asked,
        "second opinion on rare labels": second.name if second else "none",
        "paraphrases and judge": str(writer),
        "classifier": settings.classifier.name,
        "split": settings.split,
        "seed": settings.seed,
        "files": folder_of(run),
    }
    return facts(chosen | _not_as_t4(settings) | hub_models(settings) | memory(settings.device), "This run")


def _not_as_t4(settings: Settings) -> dict[str, str]:
    """What a rehearsal does in another way than the profile whose path it goes."""
    if settings.profile != "rehearsal":
        return {}
    usual = vars(Settings) | t4()
    both = {name: (value, usual.get(name)) for name, value in rehearsal().items() if name != "profile"}
    return {f"{name}, not as t4": f"{own}, not {real}" for name, (own, real) in both.items() if own != real}


def hub_models(settings: Settings) -> dict[str, str]:
    """Of each hub model, pinned, commit, download and need of memory; UserError where memory does not hold one."""
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
    cost = f"{entry['seconds']:.1f} s, peak memory so far {_memory(entry)}, finished {entry['finished']}"
    alone = "Alone: the cells under Settings, then this stage's. Delete a file to have it made anew."
    return note(f"{name}: {cost}. Files in {folder_of(run)}: {', '.join(entry['files'])}. {alone}")


def stage_times(run: Run, inputs: pd.DataFrame) -> Html:
    """All finished stages with their time, beside the reference's where it published one, over the rows of `inputs`."""
    rows, stages = inputs.set_index("file")["rows"], run.memory["stages"]
    imported = run.memory.get("settings", {}).get("labels")
    sizes = {"predict": rows["test.csv"]} | ({} if imported else {"label": rows["train.csv"]})
    shown = pd.DataFrame({"stage": name, "seconds": entry["seconds"]} for name, entry in stages.items())
    shown["peak memory so far"] = list(map(_memory, stages.values()))
    reviews = shown["stage"].map(sizes)
    shown["reviews"], shown["seconds per review"] = reviews, shown["seconds"] / reviews
    shown["reference, seconds per review"] = shown["stage"].map(REFERENCE).where(reviews.notna())
    formats = {"seconds": ",.1f", "reviews": ",.0f"} | dict.fromkeys(shown.columns[4:], ".4f")
    return table(shown, f"Stage times, {shown['seconds'].sum():,.0f} s in all", formats) + note(
        "The reference: one T4, labels 1,818 reviews in 8,672 s, predicts 7,276 in 256 s; it gives no other times. "
        "A stage that was reused shows the time of its last work; imported labels take none."
    )


def folder_of(run: Run) -> str:
    """The run's folder as seen from the working directory, absolute where it does not lie below it."""
    folder, here = run.folder.resolve(), Path.cwd()
    return f"{folder.relative_to(here) if folder.is_relative_to(here) else folder}/"


def _memory(entry: Json) -> str:
    """Of a run.json written before memory was watched: a dash."""
    if "peak_memory" not in entry:
        return "–"
    gpu = f", GPU {entry['peak_gpu_memory']:.1f} GiB" if "peak_gpu_memory" in entry else ""
    return f"{entry['peak_memory']:.1f} GiB{gpu}"
