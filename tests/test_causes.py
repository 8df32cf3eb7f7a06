"""What a person sees where the system refuses work in the middle of a stage (tests/causes.py does it for real)."""

import json
import os
import re
import subprocess
import sys

import pytest
from causes import CAUSES, STAGES, TRIALS

from sirius_helpers.settings import PROJECT

STOPPED = "^Error: the work stopped: "
# What is said by all stages, or by those that have a word of their own.
SAID = {
    "disk full": r"{place} could not be written: (No space left on device|File too large) \(.* MiB free\)\. Free some "
    "space, then run",
    "read-only": r"{place} could not be (written: Read-only file system \(.* MiB free\)\. Make the folder writable|"
    r"read or written: Permission denied\. Give yourself the right to it), then run",
    "no right": r"{place} could not be read or written: Permission denied\. Give yourself the right to it, then run",
    "folder gone": r"{place} could not be read or written: No such file or directory\. Bring the folder back, then run",
    "open files, at first": r"^Error: .*Too many open files\. Restart the kernel, which closes them, or allow more",
    "open files": f"{STOPPED}Too many open files. Restart the kernel, which closes them, or allow more",
    "connection refused": r"^Error: model 'tiny/{role}' was found neither in the cache .*/hub nor on the hub "
    r"\(Connection refused\)\. Check the network and the server, then run this again, or give the folder",
    "memory": f"{STOPPED}Cannot allocate memory. Close what else needs memory, or lower tokens_per_batch",
    "memory of a model": "^Error: out of memory on a single text of [0-9]+ tokens; free memory",
    "interrupted": "^{stage}: interrupted. Run it again: it goes on after what was finished.\nInterrupted. Run the ",
}
NO_MODEL = f"{STOPPED}Connection refused. Check the network and the server, then run the stage again"
# What each stage writes first, and the model that it loads.
FILES = {"label": "labels.jsonl", "review": "labels.csv", "augment": "(judge|synthetic).jsonl", "split": "split.csv"}
FILES |= {"train": "(training-)?", "evaluate": "errors.csv", "predict": "predictions-"}
ROLES = {"label": "labeler", "augment": "writer"}


@pytest.fixture(scope="module")
def trials():
    """(stage, cause) -> what was said, and what was wrong afterwards."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "tests/causes.py"]
    result = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = map(json.loads, result.stdout.splitlines())
    return {(line["stage"], line["cause"]): (line["said"], line["problems"]) for line in lines}


@pytest.mark.parametrize(("stage", "cause"), TRIALS)
def test_a_stage_names_what_refused_it_in_a_line_and_then_ends_as_if_nothing_had_happened(trials, stage, cause):
    said, problems = trials[stage, cause]
    without_model = cause == "connection refused" and stage in ("review", "split")
    pattern = NO_MODEL if without_model else SAID[cause]
    place = rf"^Error: .*/run/?{FILES[stage]}\S*"
    for name, value in {"stage": stage, "place": place, "role": ROLES.get(stage, "classifier")}.items():
        pattern = pattern.replace(f"{{{name}}}", value)
    assert re.search(pattern, said, re.MULTILINE), said
    assert said.endswith("exit code 130" if cause == "interrupted" else "exit code 2")
    assert said.count("Error: ") == (cause != "interrupted") and "Traceback" not in said
    assert not problems


def test_every_cause_and_every_stage_is_tried_and_with_soak_every_pair():
    assert {cause for _, cause in TRIALS} == set(CAUSES) == set(SAID)
    assert {stage for stage, _ in TRIALS} == set(STAGES)
    if "SOAK" in os.environ:
        assert len(TRIALS) == 7 * len(CAUSES) - 2  # stages without a model run out of no model's memory
