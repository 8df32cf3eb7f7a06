import numpy as np
import pytest

from sirius_helpers.encoder.scores import calibrated, calibration_error, coverage, fit_temperature, reliability


def softmax(logits):
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def model():
    """Logits, and truths drawn from their softmax: at temperature 1 the probabilities are exact."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(4000, 4))
    truth = np.array([rng.choice(4, p=p) for p in softmax(logits)])
    return logits, truth


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_logits_that_are_too_large_or_too_small(model, factor):
    logits, truth = model
    assert fit_temperature(softmax(factor * logits), truth) == pytest.approx(factor, rel=0.06)


def test_scaling_probabilities_is_scaling_logits_and_keeps_the_answer(model):
    logits, _ = model
    found = calibrated(softmax(logits), 2.5)
    assert found == pytest.approx(softmax(logits / 2.5), abs=1e-9)
    assert (found.argmax(1) == logits.argmax(1)).all()


def test_calibration_lowers_the_error_of_an_overconfident_model(model):
    logits, truth = model
    raw = softmax(3 * logits)
    scaled = calibrated(raw, fit_temperature(raw[:2000], truth[:2000]))[2000:]
    before, after = (calibration_error(p.max(1), p.argmax(1) == truth[2000:]) for p in (raw[2000:], scaled))
    assert before > 0.15 and after < 0.03


def test_a_handful_of_right_answers_does_not_claim_certainty_and_no_rows_change_nothing():
    few = np.array([[0.6, 0.4]] * 5)
    temperature = fit_temperature(few, np.zeros(5, dtype=int))
    assert 0.5 < temperature < 1 and calibrated(few, temperature).max() < 0.75
    assert fit_temperature(few[:0], np.zeros(0, dtype=int)) == pytest.approx(1, abs=1e-3)


def test_a_probability_of_zero_for_the_truth_is_survived():
    assert np.isfinite(fit_temperature(np.array([[1.0, 0.0], [0.9, 0.1]]), np.array([1, 0])))


def test_the_calibration_error_is_the_gap_in_each_bin_weighted_by_its_rows():
    confidence = [0.95, 0.95, 0.95, 0.95, 0.55, 0.55]
    right = [True, True, True, False, True, False]
    assert reliability(confidence, right)["rows"].tolist() == [2, 4]
    assert calibration_error(confidence, right) == pytest.approx((4 * 0.20 + 2 * 0.05) / 6)
    assert calibration_error([1.0, 1.0], [True, True]) == 0


def test_coverage_tells_share_and_accuracy_of_what_is_answered():
    confidence, right = np.array([0.99, 0.85, 0.72, 0.3]), np.array([True, True, False, False])
    table = coverage(confidence, right).set_index("threshold")
    assert table.loc[0.0, ["rows", "coverage", "accuracy"]].tolist() == [4, 1.0, 0.5]
    assert table.loc[0.7, ["rows", "coverage"]].tolist() == [3, 0.75]
    assert table.loc[0.8, "accuracy"] == 1.0 and table.loc[0.8, "low"] < 0.5
    assert (table["low"] <= table["accuracy"]).all() and (table["accuracy"] <= table["high"]).all()
    assert 0.95 not in coverage(confidence - 0.1, right)["threshold"].tolist()


# Newcombe 1998, table I
@pytest.mark.parametrize(("hits", "rows", "expected"), [(81, 263, (0.2553, 0.3662)), (0, 20, (0.0, 0.1611))])
def test_the_intervals_of_the_accuracy_agree_with_published_values(hits, rows, expected):
    table = coverage(np.full(rows, 0.99), np.arange(rows) < hits)
    assert table[["low", "high"]].to_numpy() == pytest.approx(np.array([expected] * len(table)), abs=1e-4)
