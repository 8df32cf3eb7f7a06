"""A run's folder: which stage makes which file, and which stages are up to date.

`run.json` holds what `begin` found and, written last, so that an entry means "complete", each finished stage.

    run = Run(settings.folder)
    path = run.need("labels.csv")          # a missing file names the stage that makes it
"""

import hashlib
import json
import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .. import __version__
from ..errors import UserError
from ..kinds import Json
from ..settings import ModelSpec, Settings
from .categories import read_categories
from .journal import fingerprint, write_atomically, writing
from .lock import run_lock

if TYPE_CHECKING:
    from ..models import hub

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "scikit-learn")

WRITES = {
    "label": ("labels.jsonl",),
    "review": ("labels.csv",),
    "opinions": ("opinions.csv",),
    "augment": ("judge.jsonl", "synthetic.jsonl", "rejected.jsonl"),
    "split": ("split.csv",),
    "train": ("adapter", "history.csv"),
    "evaluate": ("metrics.json", "errors.csv", "doubtful_labels.csv", "model_card.md", "report"),
    "predict": ("predictions.csv", "submission.csv"),
}
MADE_BY = {file: stage for stage, files in WRITES.items() for file in files}
# Raise a stage's number when its code, or what it calls, gives other results on the same input: these are made again.
VERSIONS = dict.fromkeys(WRITES, 1) | {"evaluate": 2}  # 2: doubtful labels are told by cleanlab
CODE = "version of the code"  # their name among what a stage reads
EARLIER = {CODE: "1"}  # what was not recorded yet
_CATEGORIES = "list of categories"  # from whichever file
# What each stage reads: files of the run, then of the data folder. "augment" does not read the corrections: each of its
# texts says for which category it was written, and "split" takes those that still fit.
READS = {
    "label": ("train.csv", _CATEGORIES),
    "review": ("labels.jsonl", "corrections.csv"),
    "opinions": ("labels.jsonl", _CATEGORIES),
    "augment": ("labels.jsonl", "opinions.csv", "judge_control.csv"),
    "split": ("labels.jsonl", "labels.csv", "synthetic.jsonl", _CATEGORIES),
    "train": ("split.csv", _CATEGORIES),
    "evaluate": ("adapter", "split.csv", "history.csv", "labels.csv", "human_labels.csv", _CATEGORIES),
    "predict": ("adapter", "test.csv"),
}
OF_THE_RUN = {*MADE_BY, "corrections.csv"}
# The settings that each stage's own work depends on; "prompts.label" is that entry of the prompts.
USES = {
    "label": "labels labeler labeler_kind second_labeler second_weight few_shot_c max_review_chars prompts.label",
    "opinions": "labels labeler_kind second_labeler second_weight few_shot_c",
    "augment": "writer prompts.paraphrase prompts.judge seed temperature top_p max_new_tokens max_review_chars "
    "judge_temperature judge_draws prior_correction min_chars min_length_ratio max_length_ratio length_slack "
    "min_cyrillic max_repeated leak_words max_copy_similarity max_synthetic max_attempts multiply_contradicted",
    "split": "soft_labels split test_share validation_share near_duplicate seed",
    "train": "classifier seed epochs learning_rate batch_size accumulation lora_targets lora_rank lora_alpha "
    "lora_dropout weight_decay warmup_share class_weight_power label_smoothing patience max_tokens baseline_c",
    # The model card names some of them.
    "evaluate": "classifier max_tokens bootstrap seed near_duplicate baseline_c split lora_targets lora_rank writer "
    "judge_draws run",
}
# Role -> the stage that uses it last.
LAST_USE = {"labeler": "label", "second_labeler": "opinions", "writer": "augment", "classifier": "predict"}
# On each stage's function: what the system refuses is told in one line before and after the stage's work too.
told = writing(Path("a file of the run"))
READ_AGAIN = {file for files in READS.values() for file in files}  # what is only looked at, as errors.csv, may be older


class Run:
    """The files of one run under `checkpoints/<run>/`."""

    def __init__(self, folder: Path, settings: Settings | None = None) -> None:
        self.folder, self.settings = Path(folder), settings

    def path(self, name: str) -> Path:
        """Where a file of the run lies, whether it is there or not."""
        return self.folder / name

    def need(self, name: str) -> Path:
        """Path of a file an earlier stage made, as that stage left it, and no older than what it was made from."""
        path, stage = self.path(name), MADE_BY[name]
        if not path.exists():
            raise UserError(f"{path} is missing; run the stage '{stage}' first: it makes this file.")
        written = self.memory["stages"].get(stage, {}).get("files", {})
        if name in written and written[name] != digest(path):
            raise UserError(
                f"{path} is not what the stage '{stage}' writes when it finishes: the stage was stopped, or the file "
                f"was changed or damaged since. Run the stage '{stage}' again."
            )
        if outdated := self._outdated(name):
            why, stages = outdated
            again = [s for s in stages if s != "review"] or stages  # the stages after it bring labels.csv up to date
            raise UserError(f"{self.folder}: {why}; run {', then '.join(map(repr, again))} again.")
        return path

    def _outdated(self, name: str) -> tuple[str, list[str]] | None:
        """What changed since `name`, or what it was made from, was made; and the stages, in order, to run again."""
        stage = MADE_BY[name]
        then = EARLIER | self.memory["stages"].get(stage, {}).get("read", {})
        for source, now in self.read_by(stage).items():
            changed = now != then.get(source, now)  # a version before recorded less
            if changed and (now or source == "corrections.csv"):  # another file that is gone is no newer one
                how = "from an older" if source in READS[stage] else "with another"
                return f"{name} was made {how} {source}", [stage]
            if name in READ_AGAIN and source in MADE_BY and (outdated := self._outdated(source)):
                return outdated[0], [*outdated[1], stage]
        return None

    def read_by(self, stage: str) -> dict[str, str | None]:
        """What a stage reads (without settings, of the run's folder alone): a fingerprint, or None where it is gone."""
        names = [name for name in READS[stage] if self.settings or name in OF_THE_RUN]
        names += USES.get(stage, "").split() if self.settings else []
        return {CODE: str(VERSIONS[stage])} | {name: self._content(name) for name in names}

    def _content(self, name: str) -> str | None:
        if self.settings is None or name in OF_THE_RUN:
            return digest(self.path(name))
        if name == _CATEGORIES:  # imported labels alone know them by their aliases
            there = any((self.settings.data / f"categories.{kind}").exists() for kind in ("toml", "txt"))
            taxonomy = read_categories(self.settings.data) if there else []
            known = taxonomy if self.settings.labels else [replace(category, aliases=()) for category in taxonomy]
            return fingerprint(known) if there else None
        field, _, part = name.partition(".")
        value = getattr(self.settings, field, self.settings.data / name)
        if isinstance(value, Path):
            return fingerprint(value.name, digest(value)) if value.exists() else None
        value = value.get(part) if part else value
        return fingerprint(self._as_pinned(field, value).identity if isinstance(value, ModelSpec) else value)

    def _as_pinned(self, role: str, spec: ModelSpec) -> ModelSpec:
        """With the commit that the run keeps to, see `pinned`."""
        entry = self.memory.get("hub", {}).get(role, {})
        known = entry.get("name") == spec.name and spec.revision in (entry["asked"], entry["commit"])
        return replace(spec, revision=entry["commit"]) if known else spec

    @property
    def memory(self) -> Json:
        """Content of run.json; a damaged one is set aside, and finished stages are then done again."""
        path = self.path("run.json")
        try:
            memory: Json = json.loads(path.read_bytes())
            return memory | {"stages": dict(memory["stages"])}
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, KeyError):
            damaged = path.with_name("run.json.damaged")
            path.replace(damaged)
            print(f"{path} was damaged; it is set aside as {damaged.name}, and its stages are done again.")
        return {"stages": {}}

    def remember(self, **facts: object) -> None:
        """Add facts to run.json."""
        with run_lock(self.folder):
            text = json.dumps(self.memory | facts, ensure_ascii=False, indent=2, default=str)
            write_atomically(self.path("run.json"), text.encode())

    def is_finished(self, stage: str, fingerprint: str) -> bool:
        """Whether the stage was completed under this fingerprint and its files are still what it wrote."""
        entry = self.memory["stages"].get(stage, {})
        done: bool = entry.get("fingerprint") == fingerprint and all(
            digest(self.path(name)) == value for name, value in entry["files"].items()
        )
        if done and (read := entry.get("read", {}) | self.read_by(stage)) != entry.get("read"):
            self._record(stage, entry | {"read": read})  # another reading of the same content, such as a comment's
        return done

    @contextmanager
    def stage(self, name: str, fingerprint: str) -> Iterator[Json]:
        """Record a stage whose block ends well, with facts that the block adds; nobody else works here meanwhile."""
        with run_lock(self.folder), writing(self.folder):
            before, read = self.memory["stages"].get(name), self.read_by(name)
            if before is None:  # no content of its files is what it writes when it finishes
                files = dict.fromkeys(WRITES[name])
                self._record(name, {"fingerprint": None, "seconds": 0.0, "finished": "not yet", "files": files})
            elif before["fingerprint"] not in (None, fingerprint):
                then = EARLIER | before.get("read", {})
                changed = [source for source, now in read.items() if now != then.get(source, now)]
                why = ", ".join(changed or [CODE])
                print(f"{name}: its input, settings or model changed since the last run ({why}), so it is done again.")
            elif before["fingerprint"]:
                print(f"{name}: a file that it wrote is gone or was changed, so it is done again.")
            facts: Json = {}
            start = time.perf_counter()
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            try:
                yield facts
            except KeyboardInterrupt:
                print(f"\n{name}: interrupted. Run it again: it goes on after what was finished.")
                raise
            done = {
                "fingerprint": fingerprint,
                "seconds": round(time.perf_counter() - start, 1),
                "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
                "read": read,
                "files": {file: digest(self.path(file)) for file in WRITES[name]},
            }
            self._record(name, facts | peak_memory() | done)

    def _record(self, stage: str, entry: Json) -> None:
        self.remember(stages={**self.memory["stages"], stage: entry})


def stage_mark(stage: str, *parts: object) -> str:
    """The fingerprint of a stage's results: what they depend on, and the version of its code."""
    version = VERSIONS[stage]
    return fingerprint(stage if version == 1 else f"{stage} {version}", *parts)


def peak_memory() -> Json:
    """GiB at most: of the process since it began, and of its part of the GPU since the stage did."""
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, KiB here
    peaks = {"peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    if torch.cuda.is_available():
        peaks["peak_gpu_memory"] = torch.cuda.max_memory_allocated() / 2**30
    return {name: round(peak, 2) for name, peak in peaks.items()}


def begin(settings: Settings) -> Run:
    """Stage "settings": the run's folder, with profile, models, versions and seed in run.json."""
    from ..embedded.folders import SOURCES  # not needed to read a run

    run, settings = Run(settings.folder), pinned(settings)
    models = {role: spec for role in LAST_USE if (spec := getattr(settings, role))}
    run.remember(
        profile=settings.profile,
        profile_reason=settings.profile_reason,
        seed=settings.seed,
        settings=asdict(settings),
        models={role: vars(spec) | SOURCES.get(spec.name, {}) for role, spec in models.items()},
        versions={"sirius": __version__, "python": platform.python_version()}
        | {name: version(name) for name in LIBRARIES},
    )
    return run


def hub_roles(settings: Settings) -> dict[str, bool]:
    """Roles whose models are the hub's, and whether a stage still waits for the model; imported labels need none."""
    stages = Run(settings.folder).memory["stages"]
    idle = "labeler" if settings.labels else None
    used = [role for role in LAST_USE if role != idle and (spec := getattr(settings, role)) and spec.on_hub]
    return {role: not stages.get(LAST_USE[role], {}).get("fingerprint") for role in used}


def pinned(settings: Settings, *roles: str) -> Settings:
    """The settings with a full commit as the revision of each hub model (or of these roles'), recorded in run.json.

    A run keeps to its commit while name and revision stay. UserError where a model that a stage waits for is not there.
    """
    from ..models import hub  # stages without a model need nothing of the hub

    run, found, needed = Run(settings.folder), {}, []
    known = run.memory.get("hub", {})
    for role, awaited in hub_roles(settings).items():
        if role not in (roles or LAST_USE):
            continue
        spec, entry = getattr(settings, role), known.get(role, {})
        if entry.get("name") != spec.name or spec.revision not in (entry["asked"], entry["commit"]):
            entry = {"name": spec.name, "asked": spec.revision}
        try:
            source = _kept(spec, entry)
        except UserError as error:
            if role == "second_labeler" and not settings.second_weight and "commit" not in entry:
                print(f"{error} Without it rare labels get no second opinion.")
                settings = replace(settings, second_labeler=None)
                continue
            if awaited or "commit" not in entry:
                raise
            print(f"{error} Finished stages do not need it.")
        else:
            entry |= {"commit": source.commit, "files": dict(source.files)}
            needed += [source] if awaited else []
        found[role] = entry
    hub.check_disk(needed)
    if known != known | found:
        run.remember(hub=known | found)
    specs = {role: replace(getattr(settings, role), revision=entry["commit"]) for role, entry in found.items()}
    return replace(settings, **specs)


def _kept(spec: ModelSpec, entry: Json) -> "hub.Source":
    """The source of the commit that the run began with, or of what is asked for; says so when the hub has moved on."""
    from ..models import hub

    if "commit" not in entry:
        return hub.source_of(spec)
    source = hub.source_of(replace(spec, revision=entry["commit"]))
    if spec.revision == source.commit:
        return source
    with suppress(UserError):
        now = hub.source_of(spec)
        if now.listed and now.commit != source.commit:
            print(
                f"{spec.name}: the run keeps to commit {source.commit[:7]}; the hub has {now.commit[:7]} by now. Give "
                "that as its revision, or choose another RUN, to take it."
            )
    return source


def settings_of(run: str) -> Settings:
    """The settings that `begin` wrote into a run's folder; the run is given by its name or by that folder."""
    folder = Path(run) if Path(run, "run.json").exists() else Settings.checkpoints / run
    try:
        values = Run(folder).memory["settings"]
        return Settings(**values | {"checkpoints": folder.absolute().parent, "run": folder.absolute().name})
    except (KeyError, UserError) as error:
        raise UserError(
            f"{folder / 'run.json'} is missing or holds no settings of this version; run the notebook's cells under "
            "'Settings' first: they write it."
        ) from error


def digest(path: Path) -> str | None:
    """sha256 of a file, or of a folder's names and files; None where nothing is there."""
    if not path.exists():
        return None
    if path.is_dir():
        parts = [f"{p.relative_to(path)} {digest(p)}" for p in sorted(path.rglob("*")) if p.is_file()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    with open(path, "rb") as file:  # of any size
        return hashlib.file_digest(file, "sha256").hexdigest()
