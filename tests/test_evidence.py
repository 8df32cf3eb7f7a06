import json

import pandas as pd
import pytest

from sirius_helpers.files.runs import Run
from sirius_helpers.settings import settings_for
from sirius_helpers.show import evidence


@pytest.fixture
def run(tmp_path):
    """A run with a finished label stage, and one of a time before memory was watched."""
    run = Run(tmp_path / "checkpoints" / "mine")
    with run.stage("label", "f"):
        run.path("labels.jsonl").write_text("")
    memory = run.memory
    memory["stages"]["label"]["seconds"] = 47.7
    memory["stages"]["predict"] = {"seconds": 2.0, "finished": "then", "files": {"submission.csv": "x"}}
    memory["stages"]["train"] = {"seconds": 5.0, "peak_memory": 1.2, "peak_gpu_memory": 9.3, "files": {}}
    run.path("run.json").write_text(json.dumps(memory))
    return run


def test_a_stage_tells_its_time_its_memory_its_files_and_how_to_rerun_it(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    html = evidence.stage(run, "label").html
    assert "label: 47.7 s, peak memory " in html and " GiB, finished 20" in html
    assert "Files in checkpoints/mine/: labels.jsonl." in html and "the cells under Settings" in html
    assert str(run.folder) not in html  # no path of the machine


def test_the_files_folder_is_relative_below_the_working_directory_and_absolute_elsewhere(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert evidence.folder_of(run) == "checkpoints/mine/"
    (tmp_path / "content").mkdir()
    monkeypatch.chdir(tmp_path / "content")
    assert evidence.folder_of(run) == f"{tmp_path}/checkpoints/mine/"


def test_the_table_of_times_stands_beside_the_reference_where_it_published_one(run):
    inputs = pd.DataFrame({"file": ["train.csv", "test.csv"], "rows": [1_818, 7_276]})
    html = evidence.stage_times(run, inputs).html
    assert "Stage times, 55 s in all" in html
    assert "0.0262" in html and "4.7701" in html  # ours and the reference's, a review
    assert "0.0003" in html and "0.0352" in html
    assert "1.2 GiB, GPU 9.3 GiB" in html and "–" in html


def test_the_first_table_tells_what_a_rehearsal_does_in_another_way_than_t4():
    rehearsed = evidence.this_run(settings_for("rehearsal"), Run("checkpoints/rehearsal")).html
    assert "labeler, not as t4" in rehearsed
    assert "embedded:chat-lm (nf4), not t-tech/T-lite-it-1.0 (nf4)" in rehearsed
    assert "not as t4" not in evidence.this_run(settings_for("cpu"), Run("checkpoints/sample")).html
    assert "pooled with embedded:encoder" in evidence.this_run(settings_for("chat"), Run("checkpoints/chat")).html
