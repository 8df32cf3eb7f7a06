import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from sirius_helpers.encoder.scores import scores_with_intervals

LABELS = ["a", "b", "c", "never seen"]


def test_scores_agree_with_scikit_learn_and_lie_inside_their_interval(settings):
    rng = np.random.default_rng(0)
    truth = rng.choice(["a", "b", "c"], 200, p=[0.8, 0.15, 0.05])
    guess = np.where(rng.random(200) < 0.7, truth, rng.choice(["a", "b", "c"], 200))
    result = scores_with_intervals(truth, guess, range(len(truth)), LABELS, settings)
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
    first, again = (scores_with_intervals(truth, guess, list("vwxyz"), LABELS, settings) for _ in range(2))
    assert first == again


def test_paraphrases_of_one_review_are_drawn_together(settings):
    """Twenty reviews with nine rows each, all right or all wrong: as wide as of the twenty alone, not of 180."""
    truth, guess, sources = ["a"] * 20, ["a"] * 10 + ["b"] * 10, [f"s{n}" for n in range(20)]
    alone = scores_with_intervals(truth, guess, sources, LABELS, settings)["accuracy"]
    together = scores_with_intervals(truth * 9, guess * 9, sources * 9, LABELS, settings)["accuracy"]
    apart = scores_with_intervals(truth * 9, guess * 9, range(180), LABELS, settings)["accuracy"]
    assert together == pytest.approx(alone)
    assert apart["high"] - apart["low"] == pytest.approx((alone["high"] - alone["low"]) / 3, rel=0.15)


def test_resamples_without_a_row_of_a_rare_class_do_not_pull_its_interval_down(settings):
    truth = ["a"] * 50 + ["b"]
    right = scores_with_intervals(truth, truth, range(51), LABELS, settings)["per_class"]["b"]
    assert right == {"rows": 1, "f1": 1.0, "low": 1.0, "high": 1.0}
    wrong = scores_with_intervals(truth, ["b", *truth[1:]], range(51), LABELS, settings)["per_class"]["b"]
    assert 0 < wrong["low"] < wrong["f1"] == pytest.approx(2 / 3) and wrong["high"] == 1
