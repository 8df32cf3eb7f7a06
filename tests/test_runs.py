import pytest

from sirius_helpers import runs
from sirius_helpers.errors import UserError
from sirius_helpers.runs import MADE_BY, Run


def test_a_missing_file_names_the_stage_that_makes_it(tmp_path):
    for name, stage in MADE_BY.items():
        with pytest.raises(UserError, match=f"run the stage '{stage}' first"):
            Run(tmp_path).need(name)


def test_a_stage_is_finished_only_with_its_fingerprint_and_its_files_unchanged(tmp_path):
    run = Run(tmp_path)
    assert not run.is_finished("split", "f1")
    with run.stage("split", "f1", ["split.csv"]):
        run.path("split.csv").write_text("a")
    assert run.is_finished("split", "f1")
    assert not run.is_finished("split", "f2")
    run.path("split.csv").write_text("")
    assert not run.is_finished("split", "f1")
    run.path("split.csv").unlink()
    assert not run.is_finished("split", "f1")


def test_a_stage_that_fails_is_not_recorded(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(ZeroDivisionError), run.stage("split", "f1", []):
        raise ZeroDivisionError
    assert not run.is_finished("split", "f1")


def test_a_changed_fingerprint_says_that_the_stage_is_done_again(tmp_path, capsys):
    run = Run(tmp_path)
    with run.stage("train", "f1", []):
        pass
    assert capsys.readouterr().out == ""
    with run.stage("train", "f2", []):
        pass
    assert "train: its input, settings or model changed" in capsys.readouterr().out


def test_a_folders_digest_sees_names_and_content(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "a").write_text("1")
    before = runs.digest(folder)
    (folder / "a").write_text("2")
    changed = runs.digest(folder)
    (folder / "a").rename(folder / "b")
    assert len({before, changed, runs.digest(folder), runs.digest(tmp_path / "none")}) == 4


def test_beginning_a_run_records_profile_models_versions_and_seed(settings):
    run = runs.begin(settings)
    memory = run.memory
    assert memory["profile"] == "cpu" and memory["profile_reason"] == "asked for" and memory["seed"] == 42
    assert set(memory["models"]) == {"labeler", "writer", "classifier"}
    assert memory["versions"]["torch"].startswith("2.")
    with run.stage("split", "f", []):
        pass
    assert "split" in runs.begin(settings).memory["stages"]
