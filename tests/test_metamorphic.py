"""One thing of a finished run changes: all stages again give what a fresh run gives that had it from the start.

The changes are generated from the settings, the prompts' parts and the models' fields, so that a new one is missed by
itself. Here changes that concern the same stages are tried together; with SOAK=1 (`make soak`) each one alone.
"""

import json
import os
import re
import shutil
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import pandas as pd
import pytest
from conftest import write_csv
from tiny_models import saved, tiny_qwen2, tiny_roberta

from sirius_helpers.augment import augment
from sirius_helpers.errors import UserError
from sirius_helpers.evaluate import evaluate
from sirius_helpers.files import runs
from sirius_helpers.files.journal import read_records
from sirius_helpers.files.reviews import read_csv
from sirius_helpers.files.runs import WRITES, Run, begin, digest
from sirius_helpers.label import label
from sirius_helpers.llm.quotas import plan
from sirius_helpers.predict import predict
from sirius_helpers.prompts import PARTS, PROMPTS
from sirius_helpers.review import contradicted, opinions, review
from sirius_helpers.settings import ModelSpec, Settings, t4
from sirius_helpers.show import pictures
from sirius_helpers.split import soft_labels, split
from sirius_helpers.train import train

pytestmark = pytest.mark.usefixtures("quick")

WHOLE = "SOAK" in os.environ
STAGES = (label, review, opinions, augment, split, train, evaluate, predict)
ALL = [stage.__name__ for stage in STAGES]
SHOES = ("Сапоги промокают", "Туфли жмут", "Кеды хороши", "Ботинок порвался", "Тапки мягкие", "Валенки греют")
DISHES = ("Чашка бьётся", "Вилка гнётся", "Блюдце с трещиной", "Кастрюля без крышки", "Ложки блестят")
NEW = "Шлёпанцы скользят на мокром полу"  # labelled, and not among the reviews
MINE = [f"обувь,{text}" for text in (*SHOES, NEW)] + ["туфли,Лодочки малы"] + [f"посуда,{text}" for text in DISHES]
FILED = ((f"обувь,{SHOES[2]}", f"посуда,{SHOES[2]}"),)  # a review labelled otherwise
REVIEWS = (*SHOES, "Лодочки малы", *DISHES)
CONTROL = "text,is_review\nМалы,yes\nНе могу,no\nЖмут,yes\nВот ответ,no\n"
CORRECTIONS = f"text,category\n{SHOES[0]},посуда\n{SHOES[1]},посуда\n"
CATEGORIES = (
    '[[category]]\nlabel = "обувь"\ndescription = "на ноги"\nexamples = ["Кроссовки"]\naliases = ["туфли"]\n',
    '[[category]]\nlabel = "посуда"\nexamples = ["Тарелка"]\n',
)


# --- what is changed ------------------------------------------------------------------------------------------


@dataclass
class Change:
    """Settings, or text in a file of the data folder or the run's (old, new), and the stages whose work depends on it.

    Without a new text the file goes away.
    """

    name: str
    stages: str  # names, with blanks between them
    settings: dict = field(default_factory=dict)
    file: str = ""
    edits: tuple[tuple[str, str | None], ...] = ()
    kind: str = "imported"  # of the run that it is done to: who gives the labels

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"

    def applied(self, settings: Settings) -> Settings:
        path = (settings.folder if self.file in runs.OF_THE_RUN else settings.data) / self.file
        for old, new in self.edits:
            if new is None:
                path.unlink()
                continue
            # A file that is not there has the text "".
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            assert old in text
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace(old, new, 1) if old else new, encoding="utf-8")
        given = {name: value(settings) if callable(value) else value for name, value in self.settings.items()}
        return replace(settings, **given)


# Another value of each setting, and the stages whose own work depends on it.
SETTINGS = {
    "profile": ("cpu", ""),
    "profile_reason": ("why not", ""),
    "labeler_kind": ("few-shot", "label opinions"),
    "lora_targets": (("query", "value"), "train evaluate"),
    "data": (lambda settings: shutil.copytree(settings.data, settings.data.parent / "elsewhere" / "data"), ""),
    "run": (lambda settings: moved(settings.folder, "renamed").name, "evaluate"),
    "labels": (lambda settings: moved(settings.labels, "theirs.csv"), "label"),
    "checkpoints": (lambda settings: moved(settings.checkpoints, "disk"), ""),
    "seed": (7, "augment split train evaluate"),
    "prior_correction": (True, "augment"),
    "prompts": ({"paraphrase": {"user": "Отзыв: $review\nИначе:"}}, "augment"),
    "second_weight": (0.5, "label opinions"),
    "second_labeler": (None, "opinions"),
    "few_shot_c": (1.0, "label opinions"),
    "multiply_contradicted": (True, ""),
    "max_review_chars": (9, "augment"),
    "max_synthetic": (2, "augment"),
    "max_attempts": (1, "augment"),
    "temperature": (0.5, "augment"),
    "top_p": (0.5, "augment"),
    "max_new_tokens": (4, "augment"),
    "judge_temperature": (0.5, "augment"),
    "judge_draws": (2, "augment evaluate"),
    "min_chars": (2, "augment"),
    "min_length_ratio": (0.1, "augment"),
    "max_length_ratio": (3.0, "augment"),
    "length_slack": (500, "augment"),
    "min_cyrillic": (0.1, "augment"),
    "max_repeated": (0.3, "augment"),
    "leak_words": (4, "augment"),
    "max_copy_similarity": (80.0, "augment"),
    "tokens_per_batch": (300, ""),
    "split": ("seed", "split evaluate"),
    "test_share": (0.5, "split"),
    "validation_share": (0.3, "split"),
    "near_duplicate": (80.0, "split evaluate"),
    "epochs": (2, "train"),
    "learning_rate": (1e-3, "train"),
    "batch_size": (3, "train"),
    "accumulation": (2, "train"),
    "lora_rank": (4, "train evaluate"),
    "lora_alpha": (8, "train"),
    "lora_dropout": (0.2, "train"),
    "weight_decay": (0.1, "train"),
    "warmup_share": (0.5, "train"),
    "class_weight_power": (1.0, "train"),
    "soft_labels": (False, "split"),
    "label_smoothing": (0.2, "train"),
    "patience": (1, "train"),
    "max_tokens": (16, "train evaluate"),
    "baseline_c": (10.0, "train evaluate"),
    "bootstrap": (7, "evaluate"),
}
NOT_HERE = {"device"}  # one is needed
# Role, kind of run -> the stages whose own work depends on the model.
MODELS = {("labeler", "llm"): "label", ("labeler", "few-shot"): "label", ("second_labeler", "pooled"): "label"}
MODELS |= {("writer", "imported"): "augment evaluate", ("classifier", "imported"): "train evaluate"}
SPEC = {"weights": "bf16", "text_prefix": "query: ", "revision": "other"}  # `name` and `chat` by role
NO_SERVER = {"server", "server_requests"}  # an address, which may move: tests/test_server.py
ASKED = ("labeler", "labeler_kind", "second_labeler", "second_weight")
KINDS = {"few_shot_c": "few-shot", "soft_labels": "llm"} | dict.fromkeys(ASKED, "llm")


def moved(path: Path, name: str) -> Path:
    target = path.with_name(name)
    return path.rename(target) if path.exists() else target


def as_lines(data: Path) -> Path:
    """The categories as a list of labels alone; what they mean then comes from the package."""
    (data / "categories.toml").unlink()
    (data / "categories.txt").write_text("обувь\nпосуда\n", encoding="utf-8")
    return data


def other_models(role: str, kind: str) -> list[Change]:
    def spec(**values):
        return lambda settings: replace(getattr(settings, role), **values)

    def other_name(settings):
        path = Path(getattr(settings, role).name)
        return replace(getattr(settings, role), name=str(path.with_name(f"{path.name}-other")))

    values = {name: spec(**{name: value}) for name, value in SPEC.items()}
    values |= {"name": other_name, "chat": lambda settings: spec(chat=not getattr(settings, role).chat)(settings)}
    stages = MODELS[role, kind]
    return [Change(f"{role}.{name}", stages, {role: value}, kind=kind) for name, value in values.items()]


def other_prompts() -> list[Change]:
    found = []
    for name, parts in PARTS.items():
        for part in parts:
            old = getattr(PROMPTS[name], part)
            new = f"Иначе. {old}" if part in ("system", "user") else f"{old}-{old}"
            values = {part: new}
            if part == "examples":
                values = {part: [("Хорошо", {"label": "обувь", "judge": "бот"}.get(name, "Неплохо"))]}
            elif part in ("yes", "no"):  # an example must answer with one of the two
                values["examples"] = ()
            stage, kind = ("label", "llm") if name == "label" else ("augment", "imported")
            found.append(Change(f"prompts.{name}.{part}", stage, {"prompts": {name: values}}, kind=kind))
    return found


def in_file(file: str, stages: str, kind: str = "imported", **changes: tuple[tuple[str, str], ...]) -> list[Change]:
    return [Change(f"{file} {what}", stages, file=file, edits=edits, kind=kind) for what, edits in changes.items()]


def rows(one: str, other: str, new: str) -> dict[str, tuple[tuple[str, str], ...]]:
    """What may happen to the rows of a CSV."""
    one, other, new = (f"{row}\n" for row in (one, other, new))
    changes = {"added": ((one, new + one),), "changed": ((one, new),), "removed": ((one, ""),)}
    return changes | {"reordered": ((one, ""), (other, other + one))}


CORRECTED = rows(f"{SHOES[0]},посуда", f"{SHOES[1]},посуда", f"{DISHES[0]},обувь")


def in_files() -> list[Change]:
    shoes, dishes = CATEGORIES
    cloth = '[[category]]\nlabel = "ткани"\nexamples = ["Штора"]\n'
    file, renamed = "categories.toml", (('label = "посуда"', 'label = "тарелки"\naliases = ["посуда"]'),)
    reviews = rows(f'"{SHOES[1]}"', f'"{DISHES[0]}"', f'"{NEW}"')
    gone = (("", None),)
    return [
        *in_file("train.csv", "label", **reviews),
        *in_file("train.csv", "label", "llm", **reviews),
        *in_file("test.csv", "predict", **rows('"Ботинки малы"', '"Чашка с трещиной"', f'"{NEW}"')),
        *in_file("mine.csv", "label", **rows(f"обувь,{NEW}", f"обувь,{SHOES[0]}", "обувь,Боты"), other=FILED),
        *in_file("train.csv", "label", "few-shot", **reviews),
        *in_file(
            "human_labels.csv", "evaluate", **rows("Ботинки малы,обувь", "Кружка,посуда", "Боты,посуда"), gone=gone
        ),
        *in_file("judge_control.csv", "augment", own=(("", CONTROL),)),
        *in_file("judge_control.csv", "augment", "llm", **rows("Малы,yes", "Не могу,no", "Да,no"), gone=gone),
        *in_file("corrections.csv", "review", new=(("", f"text,category\n{SHOES[2]},посуда\n"),)),
        *in_file("corrections.csv", "review", "corrected", **CORRECTED, gone=gone),
        Change(
            "categories.txt",
            "label opinions split evaluate",
            {"data": lambda settings: as_lines(settings.data)},
            kind="llm",
        ),
        *in_file(file, "label opinions split train evaluate", renamed=renamed, inserted=((shoes, cloth + shoes),)),
        *in_file(file, "opinions split train evaluate", moved=((shoes, ""), (dishes, dishes + shoes))),
        *in_file(file, "label evaluate", alias=(('"туфли"', '"туфли", "боты"'),)),
        *in_file(
            file, "opinions split evaluate", example=(("Тарелка", "Миска"),), description=(("на ноги", "для ног"),)
        ),
        *in_file(file, "label opinions split train evaluate", "llm", moved=((shoes, ""), (dishes, dishes + shoes))),
        *in_file(file, "label opinions split evaluate", "few-shot", example=(("Тарелка", "Миска"),)),
    ]


def by_setting() -> list[Change]:
    found = []
    for name, (value, stages) in SETTINGS.items():
        kind = KINDS.get(name, "imported")
        also = {"labeler": lambda settings: settings.classifier} if name == "labeler_kind" else {}
        found.append(Change(name, stages, {name: value, **also}, kind=kind))
    return [*found, Change("max_review_chars", "label augment", {"max_review_chars": 9}, kind="llm")]


CHANGES = [*by_setting(), *(c for model in MODELS for c in other_models(*model)), *other_prompts(), *in_files()]


def test_every_setting_every_models_field_every_prompts_part_and_every_file_has_a_change():
    assert {f.name for f in fields(Settings)} == set(SETTINGS) | {role for role, _ in MODELS} | NOT_HERE
    by_hand = {name for names in runs.READS.values() for name in names} - set(runs.MADE_BY) - {runs._CATEGORIES}
    assert by_hand | {"categories.toml", "mine.csv"} == {change.file for change in CHANGES} - {""}
    assert {f.name for f in fields(ModelSpec)} == set(SPEC) | {"name", "chat"} | NO_SERVER
    assert not [change.name for change in CHANGES if not set(change.stages.split()) <= set(ALL)]


# --- the runs -------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def done(monkeypatch):
    """The stages that did work, in order. A picture is what it is drawn from."""
    found, at_work = [], Run.stage
    monkeypatch.setattr(Run, "stage", lambda run, name, *rest: found.append(name) or at_work(run, name, *rest))
    monkeypatch.setattr(pictures, "save_report", save_report)
    return found


def save_report(folder, rows, labels, history, models):
    folder.mkdir(exist_ok=True)
    drawn = [rows.to_csv(), labels, history.to_csv(), models]
    (folder / "drawn.json").write_text(json.dumps(drawn, ensure_ascii=False), encoding="utf-8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Settings by kind of run, each finished in a folder that must not be touched."""
    folder = tmp_path_factory.mktemp("finished")
    values = t4() | {"device": "cpu", "profile_reason": "test"}
    for role, make, seed in (("labeler", tiny_qwen2, 0), ("writer", tiny_qwen2, 1), ("classifier", tiny_roberta, 0)):
        for name, number in ((role, seed), (f"{role}-other", seed + 5)):
            saved(folder / name, make(number))
        values[role] = ModelSpec(str(folder / role), chat=role != "classifier")
    values |= {"epochs": 1, "warmup_share": 0.0, "batch_size": 4, "max_tokens": 32, "bootstrap": 5, "test_share": 0.3}
    values |= {"max_synthetic": 5, "max_attempts": 3, "max_new_tokens": 6, "judge_draws": 1, "length_slack": 1_000}
    values |= {"min_length_ratio": 0.0, "min_cyrillic": 0.0}  # what random models write is no review
    found = {}
    kinds = {"imported": {}, "llm": {"labels": None}, "few-shot": {"labels": None, "labeler_kind": "few-shot"}}
    values["second_labeler"] = kinds["few-shot"]["labeler"] = values["classifier"]
    kinds |= {"pooled": kinds["llm"] | {"second_weight": 0.5}, "corrected": {}}
    for kind, own in kinds.items():
        data = folder / kind / "data"
        write_data(data, control=kind == "llm")
        own = {"data": data, "labels": data / "mine.csv", "checkpoints": folder / kind / "runs", "run": "tiny"} | own
        found[kind] = Settings(**values | own)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pictures, "save_report", save_report)
            if kind == "corrected":
                found[kind].folder.mkdir(parents=True)
                (found[kind].folder / "corrections.csv").write_text(CORRECTIONS, encoding="utf-8")
            go(found[kind])
    return found


def write_data(folder, control=False):
    folder.mkdir(parents=True)
    if control:
        (folder / "judge_control.csv").write_text(CONTROL, encoding="utf-8")
    write_csv(folder / "train.csv", "text", REVIEWS)
    write_csv(folder / "test.csv", "text", ["Ботинки малы", "Чашка с трещиной"])
    (folder / "mine.csv").write_text("\n".join(["category,text", *MINE]), encoding="utf-8")
    (folder / "human_labels.csv").write_text("text,category\nБотинки малы,обувь\nКружка,посуда\n", encoding="utf-8")
    (folder / "categories.toml").write_text("".join(CATEGORIES), encoding="utf-8")


def go(settings):
    begin(settings)
    for stage in STAGES:
        stage(settings)


def copied(settings, folder, run=True):
    """The settings on a copy of their data, and of the finished run."""
    shutil.copytree(settings.data, folder / "data")
    (folder / "runs").mkdir()
    if run:
        shutil.copytree(settings.checkpoints, folder / "runs", dirs_exist_ok=True)
    elif (corrections := settings.folder / "corrections.csv").exists():
        (folder / "runs" / settings.run).mkdir()
        shutil.copy(corrections, folder / "runs" / settings.run)
    labels = settings.labels and folder / "data" / settings.labels.name
    return replace(settings, data=folder / "data", labels=labels, checkpoints=folder / "runs")


def different(settings, fresh, stages=ALL):
    """Files of these stages that are not the fresh run's to the byte, but for what a batch of another shape may do:
    the last digit of a probability."""
    names = [name for stage in stages for name in WRITES[stage]]
    found = [name for name in names if digest(settings.folder / name) != digest(fresh.folder / name)]
    return [name for name in found if not (name.endswith(".jsonl") and nearly_equal(settings, fresh, name))]


def nearly_equal(settings, fresh, name):
    (mine, numbers), (theirs, others) = (without_probabilities(one.folder / name) for one in (settings, fresh))
    return mine == theirs and numbers == pytest.approx(others, abs=2e-5)


def without_probabilities(path):
    records, numbers = read_records(path), []
    for record in records:
        given = record.pop("probabilities", None) or {}
        found = [*given.values(), record.pop("margin", None), record.pop("p_yes", None)]
        numbers += [-1.0 if number is None else number for number in found]
        record["asked"] = list(given)
    return records, numbers


def stale(before, after, direct):
    """The stages that have to be done again: by the change itself, or because a file that they read is another."""
    old, new = Run(before.folder), Run(after.folder)
    reads = {stage: [name for name in names if name in runs.MADE_BY] for stage, names in runs.READS.items()}
    reads["augment"] = []
    reads["split"].remove("labels.jsonl")
    found = {stage for stage in ALL if any(digest(old.path(name)) != digest(new.path(name)) for name in reads[stage])}
    plans = [planned(run, settings) for run, settings in ((old, before), (new, after))]
    found |= {"augment"} if plans[0] != plans[1] else set()
    taught = [probabilities(run, settings) for run, settings in ((old, before), (new, after))]
    found |= {"split"} if taught[0] != taught[1] else set()
    found |= {"evaluate"} if "train" in found | direct else set()  # training writes metrics.json anew
    return [stage for stage in ALL if stage in found | direct]


def probabilities(run, settings):
    records = read_records(run.path("labels.jsonl"))
    given = soft_labels(pd.DataFrame(records), read_csv(run.path("labels.csv")))
    return given.to_csv() if settings.soft_labels and len(given) else ""


def planned(run, settings):
    labels, rare = (read_csv(run.path(name)) for name in ("labels.csv", "opinions.csv"))
    left_out = set() if settings.multiply_contradicted else contradicted(rare, labels)
    return plan(labels[~labels["id"].isin(left_out)], settings.max_synthetic)


# --- the tests ------------------------------------------------------------------------------------------------


def together(changes: list[Change]) -> list[Change]:
    """Changes of settings that concern the same stages of the same kind of run, as one."""
    batches: dict[tuple[str, str], Change] = {}
    for change in changes:
        batch = batches.setdefault((change.kind, change.stages), Change("", change.stages, kind=change.kind))
        batch.settings |= change.settings
        batch.name = f"{batch.name} {change.name}".strip()
    return [*batches.values()]


def in_short() -> list[Change]:
    """What is done in full each time; of the others only which stages notice them."""
    names = (
        "classifier.name",
        "train.csv added",
        "categories.toml inserted",
        "test.csv removed",
        "corrections.csv new",
    )
    some = [change for change in CHANGES if change.name in names and change.kind == "imported"]
    return some + [batch for batch in together(by_setting()) if " " not in batch.stages]


@pytest.mark.parametrize("change", CHANGES if WHOLE else in_short(), ids=str)
def test_a_run_after_a_change_is_the_run_that_had_it_from_the_start(finished, change, tmp_path, done):
    """First each stage alone, the last one first: it gives the fresh run's files, or says which stage comes before.

    After a correction the split alone leaves out what `augment` has not replaced yet.
    """
    before = finished[change.kind]
    fresh = change.applied(copied(before, tmp_path / "fresh", run=False))
    refusal = None
    try:
        go(fresh)
    except UserError as error:
        refusal = error
    done.clear()
    again = change.applied(copied(before, tmp_path / "again"))
    begin(again)
    for stage in reversed(STAGES) if change.file != "corrections.csv" else ():
        try:
            stage(again)
        except UserError as error:
            assert re.search(r"run '\w+'|stage '\w+'", str(error))
        else:
            assert not different(again, fresh, [stage.__name__]), f"{stage.__name__} alone"
    if refusal:
        with pytest.raises(UserError) as refused:
            go(again)
        assert str(refused.value).replace("/again/", "/fresh/") == str(refusal)
        return
    go(again)
    assert not different(again, fresh)
    assert sorted(done) == sorted(stale(before, again, set(change.stages.split())))
    done.clear()
    go(again)
    assert not done


@pytest.mark.parametrize("change", [c for c in CHANGES if c.stages and (c.settings or not WHOLE)], ids=str)
def test_the_first_stage_that_depends_on_a_change_notices_it_and_none_before(finished, change, tmp_path, monkeypatch):
    """As the test above, of every change each time: it costs nothing, because no stage does its work."""

    def at_work(run, name, *rest):
        raise UserError(name)

    settings = change.applied(copied(finished[change.kind], tmp_path))
    monkeypatch.setattr(Run, "stage", at_work)
    first, *later = (ALL.index(name) for name in change.stages.split())
    for number, stage in enumerate(STAGES):
        if number < first:
            stage(settings)
        elif number in (first, *later):
            with pytest.raises(UserError) as noticed:
                stage(settings)
            assert number > first or str(noticed.value) == ALL[first]


def test_other_weights_at_the_old_place_are_another_model(finished, tmp_path, done):
    settings = finished["imported"]
    for role, spec in (("writer", settings.writer), ("classifier", settings.classifier)):
        shutil.copytree(spec.name, tmp_path / role)
        settings = replace(settings, **{role: replace(spec, name=str(tmp_path / role))})
    settings = copied(settings, tmp_path / "mine", run=False)
    go(settings)
    for role, stages in (("classifier", ["train", "evaluate", "predict"]), ("writer", ["augment", "evaluate"])):
        shutil.copy(Path(f"{getattr(finished['imported'], role).name}-other") / "model.safetensors", tmp_path / role)
        before = {name: digest(settings.folder / name) for name in ("synthetic.jsonl", "split.csv")}
        done.clear()
        with pytest.raises(UserError, match=f"with another {role}; run '{stages[0]}'"):
            predict(settings)
        go(settings)
        assert set(done) >= set(stages)
        assert role == "writer" or {name: digest(settings.folder / name) for name in before} == before


# --- other versions of the package ----------------------------------------------------------------------------


CODE_CHANGED = "its input, settings or model changed since the last run (version of the code), so it is done again."


@pytest.mark.parametrize("stage", ALL)
def test_a_mended_stage_does_its_work_again_and_says_why(finished, stage, tmp_path, monkeypatch, done, capsys):
    settings = copied(finished["imported"], tmp_path)
    monkeypatch.setitem(runs.VERSIONS, stage, runs.VERSIONS[stage] + 1)
    if ALL.index(stage) < ALL.index("evaluate"):  # what the prediction goes back to
        again = "split" if stage == "review" else stage  # which brings labels.csv up to date
        with pytest.raises(UserError, match=f" was made with another version of the code; run '{again}'"):
            predict(settings)
    go(settings)
    assert stage in done and done == stale(finished["imported"], settings, {stage})
    assert f"{stage}: {CODE_CHANGED}" in capsys.readouterr().out


def as_left_by_the_version_before(settings):
    """What it wrote into run.json: fewer things read, and another fingerprint of the evaluation."""
    run = Run(settings.folder)
    stages = run.memory["stages"]
    for entry in stages.values():
        entry["read"] = {name: value for name, value in entry["read"].items() if name in runs.OF_THE_RUN}
    stages["evaluate"]["fingerprint"] = "0123456789abcdef"
    run.remember(stages=stages)


def test_a_run_of_the_version_before_goes_on_and_says_what_is_done_again(finished, tmp_path, done, capsys):
    settings = copied(finished["imported"], tmp_path)
    as_left_by_the_version_before(settings)
    predict(settings)
    go(settings)
    assert done == ["evaluate"]
    assert f"evaluate: {CODE_CHANGED}" in capsys.readouterr().out
    with pytest.raises(UserError, match="adapter was made with another epochs"):  # by now it is known what was read
        predict(replace(settings, epochs=9))


def test_the_evaluation_names_the_adapters_columns_as_the_adapter_does(finished, tmp_path):
    """In a run of the version before, which did not record the categories that its adapter was trained on."""
    settings = copied(finished["imported"], tmp_path)
    as_left_by_the_version_before(settings)
    before = [digest(settings.folder / "errors.csv"), evaluate(settings)["scores"]]
    as_left_by_the_version_before(settings)
    (settings.data / "categories.toml").write_text("".join(reversed(CATEGORIES)), encoding="utf-8")
    assert [evaluate(settings)["scores"], digest(settings.folder / "errors.csv")] == before[::-1]
    as_left_by_the_version_before(settings)
    (settings.data / "categories.toml").write_text('[[category]]\nlabel = "ткани"\n' + "".join(CATEGORIES))
    with pytest.raises(UserError, match="trained on other categories than .*: обувь, посуда. Run the stage 'train'"):
        evaluate(settings)
