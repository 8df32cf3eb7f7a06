"""One full run of the notebook on the bundled sample, as `make run` does it."""

import json
import os
import subprocess
import sys

import nbformat
import pandas as pd
import pytest

from sirius_helpers.files.categories import labels_of, read_categories
from sirius_helpers.files.reviews import read_texts
from sirius_helpers.files.runs import MADE_BY
from sirius_helpers.settings import PROJECT

SAMPLE = PROJECT / "data" / "sample"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of an executed run."""
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    environment = os.environ | {"SIRIUS_CHECKPOINTS": str(checkpoints)}
    command = [sys.executable, "-m", "sirius_helpers", "--profile", "cpu", "--run", "test"]
    result = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return checkpoints / "test"


def test_every_stages_files_are_there(run):
    assert not [name for name in MADE_BY if not (run / name).exists()]
    stages = json.loads((run / "run.json").read_text(encoding="utf-8"))["stages"]
    assert list(stages) == ["label", "review", "opinions", "augment", "split", "train", "evaluate", "predict"]


def test_the_submission_has_a_valid_category_for_each_test_row(run):
    submission = pd.read_csv(run / "submission.csv")
    assert submission.columns.tolist() == ["category"]
    assert len(submission) == len(read_texts(SAMPLE / "test.csv")) == 120
    assert set(submission["category"]) <= set(labels_of(read_categories(SAMPLE)))


def test_the_split_does_not_leak(run):
    leaks = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["leaks"]
    assert leaks["held_out"] > 40 and leaks["either"] == 0


def test_scores_stand_beside_the_baseline_in_three_views(run):
    scores = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["scores"]
    assert list(scores) == ["all held-out", "held-out originals", "human labels"]
    for models in scores.values():
        assert set(models) == {"adapter", "baseline"}
        assert all(m["weighted_f1"]["low"] <= m["weighted_f1"]["high"] for m in models.values())
    assert scores["human labels"]["adapter"]["rows"] > 120
    assert scores["human labels"]["adapter"]["weighted_f1"]["value"] > 0.5


def test_the_executed_notebook_shows_no_error_and_no_noise(run):
    notebook = nbformat.read(run / "notebook.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [o for o in outputs if o.output_type == "error"]
    streams = [o for o in outputs if o.output_type == "stream"]
    assert not [o.text for o in streams if o.name == "stderr"]
    assert not [o.text for o in streams if "{'" in o.text]  # no dictionaries of a library's log
    assert sum("image/png" in str(o.get("data", {}).get("text/html", "")) for o in outputs) >= 2


def test_no_pickle_is_left_anywhere(run):
    assert not [p for p in run.rglob("*") if p.suffix in {".bin", ".pt", ".pth", ".pkl", ".joblib"}]
