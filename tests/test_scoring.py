import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from sirius_helpers.scoring import scores_with_intervals

LABELS = ["a", "b", "c", "never seen"]


def test_scores_agree_with_scikit_learn_and_lie_inside_their_interval(settings):
    rng = np.random.default_rng(0)
    truth = rng.choice(["a", "b", "c"], 200, p=[0.8, 0.15, 0.05])
    guess = np.where(rng.random(200) < 0.7, truth, rng.choice(["a", "b", "c"], 200))
    result = scores_with_intervals(truth, guess, LABELS, settings)
    expected = {
        "weighted_f1": f1_score(truth, guess, average="weighted"),
        "macro_f1": f1_score(truth, guess, average="macro"),
        "accuracy": accuracy_score(truth, guess),
    }
    for name, value in expected.items():
        assert result[name]["value"] == pytest.approx(value)
        assert result[name]["low"] < value < result[name]["high"]
    per_class = f1_score(truth, guess, average=None, labels=["a", "b", "c"])
    assert [result["per_class"][name]["f1"] for name in "abc"] == pytest.approx(per_class)
    assert "never seen" not in result["per_class"]


def test_intervals_are_the_same_for_the_same_seed(settings):
    truth, guess = list("aabbc"), list("aabca")
    assert scores_with_intervals(truth, guess, LABELS, settings) == scores_with_intervals(
        truth, guess, LABELS, settings
    )
