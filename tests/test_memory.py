"""What becomes of stages when memory really runs out (tests/soak/starved.py does it)."""

import json
import os
import subprocess
import sys

import pytest

from sirius_helpers.settings import PROJECT


@pytest.fixture(scope="module")
def starved():
    """What went wrong in each trial."""
    # One arena and one thread: what a limit on addresses leaves must not depend on what else the machine does.
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "soak.starved"]
    result = subprocess.run(command, cwd=PROJECT / "tests", env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return {name: problems for line in result.stdout.splitlines() for name, problems in json.loads(line).items()}


@pytest.mark.parametrize(
    "trial",
    [
        "smaller_label_batches",
        "smaller_prediction_batches",
        "one_review_too_many",
        "too_large_a_model",
        "smaller_training_batches",
    ],
)
def test_a_stage_survives_a_limit_on_memory(starved, trial):
    assert starved[trial] == []
