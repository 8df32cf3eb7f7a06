"""Whole runs that are killed, damaged, doubled and starved (tests/soak/ does it), and what a change makes stale."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import nbformat
import pytest
from conftest import write_csv
from tiny_models import saved, tiny_qwen2, tiny_roberta

from sirius_helpers import __main__
from sirius_helpers.augment import augment
from sirius_helpers.evaluate import evaluate
from sirius_helpers.files.journal import Journal
from sirius_helpers.files.runs import Run, begin, digest
from sirius_helpers.label import label
from sirius_helpers.predict import predict
from sirius_helpers.review import opinions, review
from sirius_helpers.settings import PROJECT, ModelSpec, Settings, t4
from sirius_helpers.show import pictures
from sirius_helpers.split import split
from sirius_helpers.train import train

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def faults():
    """What became of the faults: name -> (times done, problems)."""
    command = [sys.executable, "-m", "soak.soak", "--short"]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    result = subprocess.run(command, cwd=PROJECT / "tests", env=environment, capture_output=True, text=True)
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert lines, result.stderr
    return {line["fault"]: (line["times"], line["problems"]) for line in lines}


@pytest.mark.parametrize(
    ("fault", "least"),
    [
        ("killed", 5),  # of six; one may come after the end
        ("damaged files, all at once", 6),
        ("a second process", 1),
        ("disk full", 1),
        ("folder removed", 1),
        ("the same once more, in other batches", 1),
    ],
)
def test_a_run_survives(faults, fault, least):
    times, problems = faults[fault]
    assert not problems
    assert times >= least


STAGES = (label, review, opinions, augment, split, train, evaluate, predict)
ALL = [stage.__name__ for stage in STAGES]
SHOES = ("Сапоги промокают", "Туфли жмут", "Кеды хороши", "Ботинок порвался", "Тапки мягкие", "Валенки греют")
DISHES = ("Чашка бьётся", "Вилка гнётся", "Блюдце с трещиной", "Кастрюля без крышки", "Ложки блестят")
MINE = [f"обувь,{text}" for text in SHOES] + ["туфли,Лодочки малы"] + [f"посуда,{text}" for text in DISHES]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with data, tiny models and a finished run, and its settings: the t4 profile, as quick as can be."""
    folder = tmp_path_factory.mktemp("finished")
    values = t4() | {"device": "cpu", "profile_reason": "test", "run": "tiny"}
    for role, pair in (("labeler", tiny_qwen2()), ("writer", tiny_qwen2(1)), ("classifier", tiny_roberta())):
        saved(folder / role, pair)
        values[role] = ModelSpec(str(folder / role), chat=role != "classifier")
    values |= {"epochs": 1, "warmup_share": 0.0, "batch_size": 4, "max_tokens": 32, "bootstrap": 5, "test_share": 0.3}
    values |= {"max_synthetic": 3, "max_attempts": 2, "max_new_tokens": 6, "judge_draws": 1, "length_slack": 1_000}
    values |= {"min_length_ratio": 0.0, "min_cyrillic": 0.0}  # what random models write is no review
    values |= {"data": folder / "data", "checkpoints": folder / "runs"}
    settings = Settings(**values, labels=folder / "data" / "mine.csv")
    write_data(settings.data)
    with pytest.MonkeyPatch.context() as patch:
        go(settings, patch)
    return settings


def write_data(folder):
    folder.mkdir()
    write_csv(folder / "train.csv", "text", [line.split(",")[1] for line in MINE])
    write_csv(folder / "test.csv", "text", ["Ботинки малы", "Чашка с трещиной"])
    (folder / "mine.csv").write_text("\n".join(["category,text", *MINE]), encoding="utf-8")
    (folder / "human_labels.csv").write_text("text,category\nБотинки малы,обувь\n", encoding="utf-8")
    (folder / "categories.toml").write_text(
        '[[category]]\nlabel = "обувь"\ndescription = "на ноги"\nexamples = ["Кроссовки"]\naliases = ["туфли"]\n'
        '[[category]]\nlabel = "посуда"\nexamples = ["Тарелка"]\n',
        encoding="utf-8",
    )


@pytest.fixture
def mine(finished, tmp_path):
    """A copy of the finished run and its data, for one test to change."""
    for folder in (finished.data, finished.checkpoints):
        shutil.copytree(folder, tmp_path / folder.name)
    data = tmp_path / "data"
    return replace(finished, data=data, labels=data / "mine.csv", checkpoints=tmp_path / "runs")


def go(settings, monkeypatch):
    """All stages in order; returns those that did work."""
    done, at_work = [], Run.stage
    monkeypatch.setattr(Run, "stage", lambda run, name, *rest: done.append(name) or at_work(run, name, *rest))
    monkeypatch.setattr(pictures, "save_report", lambda folder, *_: folder.mkdir(exist_ok=True))
    begin(settings)
    for stage in STAGES:
        stage(settings)
    return done


def put(name, old, new):
    """A change of the settings that edits a file on the way: text in the data folder, or a new file of the run."""

    def change(settings):
        path = settings.data / name if old else settings.folder / name
        text = path.read_text(encoding="utf-8") if old else ""
        assert old in text
        path.write_text(text.replace(old, new) if old else new, encoding="utf-8")
        return settings

    change.__name__ = f"{name} {old} {new}"
    return change


def named(value):
    """The same in every process: a function's text would hold an address."""
    return getattr(value, "__name__", str(value))


def prompt(name, user):
    return {"prompts": {name: {"user": user}}}


READS = {
    "review": ["labels.jsonl"],
    "opinions": ["labels.jsonl"],
    "augment": ["labels.csv"],
    "split": ["labels.csv", "synthetic.jsonl"],
}
READS |= {"train": ["split.csv"], "evaluate": ["adapter", "split.csv", "history.csv", "labels.csv"]}
READS |= {"predict": ["adapter"]}


@pytest.mark.parametrize(
    ("change", "direct"),
    [
        ({}, []),
        ({"tokens_per_batch": 999}, []),
        (
            put("categories.toml", "на ноги", "для ног"),
            ["opinions", "split"],
        ),  # what it says of a category is trained on
        (prompt("paraphrase", "Отзыв: $review\nИначе:"), ["augment"]),
        ({"seed": 7}, ["augment", "split", "train", "evaluate"]),
        ({"test_share": 0.5}, ["split"]),
        ({"epochs": 2}, ["train"]),
        ({"bootstrap": 7}, ["evaluate"]),
        (put("human_labels.csv", "обувь", "посуда"), ["evaluate"]),
        (put("test.csv", "малы", "велики"), ["predict"]),
        (put("mine.csv", "обувь,Кеды", "посуда,Кеды"), ["label"]),
        (put("categories.toml", '"туфли"', '"туфли", "боты"'), ["label", "evaluate"]),
        (
            put("categories.toml", '"посуда"', '"посуда"\n[[category]]\nlabel = "ткани"'),
            ["label", "opinions", "split", "train", "evaluate"],
        ),
        (put("corrections.csv", "", "text,category\nКеды хороши,посуда\n"), ["review"]),
    ],
    ids=named,
)
def test_a_change_makes_stale_exactly_what_depends_on_it_and_says_so(mine, change, direct, monkeypatch, capsys):
    """A stage is done again when the change is its own, or when a file that it reads came out different."""
    run = Run(mine.folder)
    before = {name: digest(run.path(name)) for names in READS.values() for name in names}
    settings = change(mine) if callable(change) else replace(mine, **change)
    done = go(settings, monkeypatch)
    new = {name for name in before if before[name] != digest(run.path(name))}
    assert done == [stage for stage in ALL if stage in direct or new & set(READS.get(stage, []))]
    out = capsys.readouterr().out
    assert [stage for stage in ALL if f"{stage}: its input, settings or model changed" in out] == done
    assert go(settings, monkeypatch) == []


@pytest.mark.parametrize("kind", ["llm", "few-shot"])
@pytest.mark.parametrize(
    ("change", "anew"),
    [
        (prompt("label", "Отзыв: $review\nТовар:"), {"llm": True, "few-shot": False}),
        (put("categories.toml", "на ноги", "для ног"), {"llm": True, "few-shot": True}),
        (put("categories.toml", '"туфли"', '"туфли", "боты"'), {"llm": False, "few-shot": False}),
        ({"seed": 7, "tokens_per_batch": 99}, {"llm": False, "few-shot": False}),
        ({"few_shot_c": 1.0}, {"llm": False, "few-shot": True}),
    ],
    ids=named,
)
def test_labels_are_made_anew_when_what_the_labeler_reads_has_changed(mine, kind, change, anew, monkeypatch, capsys):
    labeler = mine.labeler if kind == "llm" else mine.classifier
    before = replace(mine, labels=None, labeler_kind=kind, labeler=labeler, run=kind)
    label(before)
    label(change(before) if callable(change) else replace(before, **change))
    assert ("label: its input, settings or model changed" in capsys.readouterr().out) == anew[kind]


def test_an_added_row_is_the_only_one_labelled(mine, monkeypatch):
    settings = replace(mine, labels=None, run="added")
    label(settings)
    before = Run(settings.folder).path("labels.jsonl").read_bytes()
    put("train.csv", '"Туфли жмут"', '"Новый отзыв"\n"Туфли жмут"')(settings)
    made, append = [], Journal.append
    monkeypatch.setattr(Journal, "append", lambda self, records: append(self, made.extend(records) or made))
    label(settings)
    assert [record["text"] for record in made] == ["Новый отзыв"]
    lines = Run(settings.folder).path("labels.jsonl").read_bytes().splitlines(keepends=True)
    assert b"".join(line for line in lines if "Новый отзыв".encode() not in line) == before


@pytest.fixture
def main_on(mine, monkeypatch, tmp_path):
    """`make run` with a notebook of one section with one cell, called from another folder than the project's."""

    def call(code: str) -> int:
        kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": ""}}
        cells = [nbformat.v4.new_markdown_cell("## A section\nand its words"), nbformat.v4.new_code_cell(code)]
        notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
        nbformat.write(notebook, tmp_path / "n.ipynb")
        monkeypatch.setattr(__main__, "NOTEBOOK", tmp_path / "n.ipynb")
        monkeypatch.setattr(__main__, "settings_for", lambda *_, **__: mine)
        monkeypatch.chdir(tmp_path)
        return __main__.main([])

    return call


def test_the_notebook_runs_from_any_folder_and_opens_no_sockets_in_the_project(main_on, mine, capsys):
    code = "from pathlib import Path\nprint(6 * 7, [path.name for path in Path().iterdir() if path.is_socket()])"
    assert main_on(code) == 0
    assert "42 []" in (mine.folder / "notebook.ipynb").read_text(encoding="utf-8")
    assert "\nA section\n42 []\nDone in " in capsys.readouterr().out  # and what cells print is said


def test_a_killed_kernel_is_told_in_one_line(main_on, capsys):
    assert main_on("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)") == 2
    assert "Error: the notebook's process was killed" in capsys.readouterr().err


def test_make_run_beside_another_is_refused_also_between_two_stages(main_on, mine, tmp_path, capsys):
    """The first one's only cell starts the second, while no stage is at work."""
    code = (
        "import subprocess, sys, os\n"
        f"command = [sys.executable, '-m', 'sirius_helpers', '--data', {str(mine.data)!r}, '--run', {mine.run!r}]\n"
        f"environment = os.environ | {{'SIRIUS_CHECKPOINTS': {str(mine.checkpoints)!r}}}\n"
        "second = subprocess.run(command, env=environment, capture_output=True, text=True)\n"
        "print(second.returncode, second.stderr)"
    )
    memory = Run(mine.folder).path("run.json").read_bytes()
    assert main_on(code) == 0
    said = (mine.folder / "notebook.ipynb").read_text(encoding="utf-8")
    assert f"2 Error: {mine.folder} is in use: process {os.getpid()} on" in said
    assert Run(mine.folder).path("run.json").read_bytes() == memory
    assert not list(mine.folder.glob("*.lock"))
