import subprocess
import sys

import pytest

from sirius_helpers import loaders
from sirius_helpers.errors import UserError
from sirius_helpers.inputs import check_inputs
from sirius_helpers.settings import PROJECT, settings_for


def test_good_inputs_are_summed_up(settings):
    summary = check_inputs(settings)
    assert dict(zip(summary["file"], summary["rows"], strict=True)) == {"train.csv": 8, "test.csv": 2, "categories": 2}


def break_(data, what):
    if what == "no test file":
        (data / "test.csv").unlink()
    elif what == "empty train file":
        (data / "train.csv").write_text("")
    elif what == "no text column":
        (data / "train.csv").write_text("review\nx\n")
    elif what == "no categories":
        (data / "categories.toml").unlink()
    elif what == "unknown human label":
        (data / "human_labels.csv").write_text("text,category\nx,мебель\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no test file", "test.csv does not exist"),
        ("empty train file", "train.csv is empty"),
        ("no text column", "train.csv has no column 'text'"),
        ("no categories", "neither categories.toml nor categories.txt"),
        ("unknown human label", "human_labels.csv, row 1: 'мебель' is not a category"),
    ],
)
def test_bad_input_is_refused_before_any_model_loads(settings, monkeypatch, what, message):
    monkeypatch.setattr(loaders, "load_model", lambda *_: pytest.fail("a model was loaded"))
    break_(settings.data, what)
    with pytest.raises(UserError, match=message):
        check_inputs(settings)


def test_unknown_category_in_imported_labels_names_file_and_row(settings, data):
    (data / "mine.csv").write_text("text,category\nx,обувь\ny,космос\n", encoding="utf-8")
    changed = settings_for("cpu", data=data, run="test", labels=data / "mine.csv")
    with pytest.raises(UserError, match="mine.csv, row 2: 'космос' is not a category; allowed are обувь, посуда"):
        check_inputs(changed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "gpu"], "Error: PROFILE='gpu' is not one of: auto, t4, cpu."),
        (["--data", "no/such/folder"], "there is no folder"),
        (["--run", "a/b"], "is not a plain folder name"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(arguments, message):
    result = subprocess.run(
        [sys.executable, "-m", "sirius_helpers", *arguments], capture_output=True, text=True, cwd=PROJECT
    )
    assert result.returncode == 2 and result.stdout == ""
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
