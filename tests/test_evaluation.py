import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score

from sirius_helpers.evaluation import human_rows, leak_report, scores_with_intervals, worst_errors

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


def test_the_leak_report_counts_sources_and_near_duplicates_on_the_learning_side():
    table = pd.DataFrame(
        [
            ("сапоги промокли", "s1", "train"),
            ("обувь не держит воду", "s1", "test"),  # its original is in train
            ("Сапоги промокли!", "s2", "test"),  # a near-duplicate is in train
            ("чашка треснула", "s3", "test"),
            ("чашка с трещиной", "s3", "test"),  # source on the same side: no leak
            ("плед колется", "s4", "validation"),
            ("плед колючий очень", "s4", "test"),  # validation chooses the model, so it counts
        ],
        columns=["text", "source_id", "part"],
    ).assign(category="x", synthetic=False)
    assert leak_report(table, 90) == {
        "held_out": 5,
        "source_in_training": 2,
        "near_duplicate_in_training": 1,
        "either": 3,
    }


def test_human_rows_leave_out_what_the_model_learned_from():
    table = pd.DataFrame({"text": ["Раз", "два"], "part": ["train", "test"]})
    human = pd.DataFrame({"text": ["раз ", "два", "три"]})
    rows = human_rows(table, human, {"раз": "a", "два": "b", "три": "c"})
    assert rows.to_dict("list") == {"text": ["два", "три"], "category": ["b", "c"]}


def test_the_worst_errors_are_wrong_rows_by_confidence():
    rows = pd.DataFrame(
        {
            "text": ["x", "y", "z"],
            "category": ["a", "a", "b"],
            "predicted": ["b", "a", "a"],
            "confidence": [0.6, 0.99, 0.9],
        }
    )
    assert worst_errors(rows)["text"].tolist() == ["z", "x"]
