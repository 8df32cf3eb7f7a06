import errno
import os
import subprocess
import sys

import pytest

from sirius_helpers import runs
from sirius_helpers.errors import UserError
from sirius_helpers.runs import MADE_BY, Run
from sirius_helpers.settings import PROJECT


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


def test_a_file_is_handed_on_only_as_its_stage_left_it(tmp_path):
    run = Run(tmp_path)
    run.path("split.csv").write_text("by hand")
    assert run.need("split.csv").exists()  # nothing is known of it
    with pytest.raises(ZeroDivisionError), run.stage("split", "f1", ["split.csv"]):
        raise ZeroDivisionError
    with pytest.raises(UserError, match="split.csv is not what the stage 'split' writes .* Run the stage 'split'"):
        run.need("split.csv")
    with run.stage("split", "f1", ["split.csv"]):
        run.path("split.csv").write_text("whole")
    assert run.need("split.csv").exists()
    with pytest.raises(ZeroDivisionError), run.stage("split", "f2", ["split.csv"]):
        run.path("split.csv").write_text("half")
        raise ZeroDivisionError
    with pytest.raises(UserError, match="is not what the stage"):
        run.need("split.csv")


@pytest.mark.parametrize("content", [b"", b'{"stages": {"la', b"5", b"{}", b'{"stages": 5}', b"\xff\xfe"])
def test_a_damaged_run_json_is_set_aside_and_says_so_once(tmp_path, capsys, content):
    run = Run(tmp_path)
    run.path("run.json").write_bytes(content)
    assert run.memory == {"stages": {}} and not run.is_finished("split", "f1")
    assert capsys.readouterr().out.count("run.json was damaged") == 1
    assert run.path("run.json.damaged").read_bytes() == content


def test_a_disk_that_is_full_is_one_line_and_the_stage_is_not_recorded(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(UserError, match="No space left on device"), run.stage("train", "f1", []):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not run.is_finished("train", "f1")


def test_no_stage_and_no_new_settings_beside_a_process_at_work(settings):
    code = "import sys; from sirius_helpers.locks import held\nwith held(sys.argv[1]): print(flush=True); input()"
    command = [sys.executable, "-c", code, settings.folder]
    other = subprocess.Popen(command, stdin=-1, stdout=-1, env=os.environ | {"PYTHONPATH": str(PROJECT)})
    other.stdout.readline()
    run = Run(settings.folder)
    for work in (run.stage("split", "f1", []).__enter__, lambda: run.remember(seed=1), lambda: runs.begin(settings)):
        with pytest.raises(UserError, match=f"is in use: process {other.pid}"):
            work()
    assert not run.is_finished("split", "f1") and not run.path("run.json").exists()  # reading stays allowed
    other.communicate(b"\n")
    runs.begin(settings)


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
