"""Each stage of the notebook alone, in an interpreter of its own, on a finished run (tests/soak/reruns.py does it)."""

import json
import os
import subprocess
import sys

import pytest

from sirius_helpers.files.runs import MADE_BY
from sirius_helpers.settings import PROJECT

STAGES = ["label", "review", "augment", "split", "train", "evaluate", "predict"]


@pytest.fixture(scope="module")
def reruns():
    """What became of the whole notebook ("all") and of each stage alone."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "soak.reruns"]
    result = subprocess.run(command, cwd=PROJECT / "tests", env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return {line["stage"]: line for line in map(json.loads, result.stdout.splitlines())}


def test_every_cell_of_the_notebook_works_and_shows_each_stages_evidence(reruns):
    assert not reruns["all"]["problem"]
    for stage in STAGES:
        assert f"{stage}: " in reruns["all"]["shown"], stage
    assert reruns["all"]["shown"].count("data:image/png") >= 7
    assert "reference, seconds per review" in reruns["all"]["shown"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_alone_changes_its_own_files_and_no_others(reruns, stage):
    found = reruns[stage]
    assert not found["problem"]
    assert found["recorded"] == [stage]  # it did its work, and no other stage did any
    own = {name for name, maker in MADE_BY.items() if maker == stage}
    own |= {"metrics.json"} if stage == "train" else set()  # training's part of it
    changed = {name for name in found["changed"] if not is_set_aside(name)}
    assert changed and changed <= own


def test_a_corrected_label_is_trained_on_after_rerunning_split_and_train(reruns):
    found = reruns["correction"]
    assert not found["problem"]
    assert found["recorded"] == ["review", "split", "train"]
    assert found["changed"] == ["adapter", "history.csv", "labels.csv", "metrics.json", "split.csv"]
    old, new = found["before"], found["of_the_review"]
    assert old[0]["part"] == new[0]["part"] == "train" and old[0]["category"] != new[0]["category"]
    assert len(old) > 1 and len(new) == 1  # what was written for the old category is left out


def is_set_aside(name):
    """Records made under other settings: `labels.<fingerprint>.jsonl`."""
    return len(name.split(".")) == 3 and name.endswith(".jsonl")
