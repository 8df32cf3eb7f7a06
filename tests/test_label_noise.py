import numpy as np
import pandas as pd
import pytest

from sirius_helpers.encoder.label_noise import _folds, confident_suggestions, doubtful_labels, out_of_fold

LABELS = ["обувь", "посуда", "одежда"]
WORDS = ["сапоги", "тарелка", "платье"]


@pytest.fixture
def planted():
    """Sixty reviews in three well separated clusters, three of them labelled wrong; embeddings; the wrong ids."""
    rng = np.random.default_rng(0)
    truth = np.arange(60) % 3
    vectors = (np.eye(3)[truth] + rng.normal(scale=0.15, size=(60, 3))).astype(np.float32)
    given = truth.copy()
    wrong = [4, 17, 33]
    given[wrong] = (truth[wrong] + 1) % 3
    numbers = ["".join(chr(ord("а") + int(digit)) * 4 for digit in str(n)) for n in range(60)]
    originals = pd.DataFrame(
        {
            "text": [f"{WORDS[k]} {name}" for k, name in zip(truth, numbers, strict=True)],
            "category": [LABELS[k] for k in given],
            "source_id": [f"r{n:02}" for n in range(60)],
        }
    )
    return originals, vectors, {f"r{n:02}": LABELS[truth[n]] for n in wrong}


def test_planted_wrong_labels_are_found_with_their_right_category_and_nothing_else(planted, settings):
    originals, vectors, wrong = planted
    found = doubtful_labels(originals, vectors, LABELS, settings)
    assert found.columns.tolist() == ["id", "text", "category", "suggested", "doubt"]
    assert dict(zip(found["id"], found["suggested"], strict=True)) == wrong
    assert found["doubt"].is_monotonic_decreasing and found["doubt"].between(0.5, 1).all()


def test_the_same_seed_finds_the_same(planted, settings):
    originals, vectors, _ = planted
    one, other = (doubtful_labels(originals, vectors, LABELS, settings) for _ in range(2))
    pd.testing.assert_frame_equal(one, other)


def test_a_near_duplicate_does_not_vouch_for_a_label(planted, settings):
    originals, vectors, wrong = planted
    copies = originals[originals["source_id"].isin(wrong)]
    doubled = pd.concat([originals, copies.assign(source_id=copies["source_id"] + "-2")], ignore_index=True)
    found = doubtful_labels(doubled, np.vstack([vectors, vectors[copies.index]]), LABELS, settings)
    assert set(found["id"]) == {*wrong, *(f"{name}-2" for name in wrong)}


def test_folds_keep_groups_whole_and_share_out_every_category():
    categories = np.array(["a", "a"] * 10 + ["b"] * 10, dtype=object)
    groups = np.array([n // 2 for n in range(20)] + list(range(10, 20)))
    fold = _folds(categories, groups, seed=0)
    assert (fold[:20:2] == fold[1:20:2]).all()
    assert [np.bincount(fold[categories == name], minlength=5).tolist() for name in "ab"] == [[4] * 5, [2] * 5]
    assert _folds(categories, groups, seed=0).tolist() == fold.tolist()
    assert _folds(categories, groups, seed=1).tolist() != fold.tolist()


def test_fewer_groups_than_folds_and_a_single_category_are_no_error():
    vectors = np.eye(3, dtype=np.float32)
    assert out_of_fold(vectors, ["a"] * 3, np.zeros(3), ["a", "b"], c=1.0, seed=0).tolist() == [[1, 0]] * 3
    rows = out_of_fold(vectors, ["a", "a", "b"], np.arange(3), ["a", "b"], c=1.0, seed=0)
    assert rows[2].tolist() == [0, 1] and rows.sum(1) == pytest.approx(1)


def test_a_category_without_other_rows_is_not_doubted(settings):
    vectors = np.array([[0, 1], [0, 0.9], [0.1, 1], [0, 1.1], [1, 0]], dtype=np.float32)
    rows = out_of_fold(vectors, ["a"] * 4 + ["b"], np.arange(5), ["a", "b", "c"], c=1.0, seed=0)
    assert rows[4].tolist() == [0, 1, 0]
    assert (rows[:4].argmax(1) == 0).all() and rows.sum(1) == pytest.approx(1)


def test_each_category_has_a_threshold_of_its_own():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.55, 0.45], [0.45, 0.55], [0.9, 0.1]])
    given = np.array([0, 0, 1, 1, 0, 1])
    # thresholds: 0 -> mean(0.9, 0.8, 0.45) = 0.717; 1 -> mean(0.4, 0.45, 0.1) = 0.317
    assert confident_suggestions(probabilities, given).tolist() == [0, 0, 1, 1, 1, 0]


def test_a_category_less_probable_than_the_given_one_is_never_suggested():
    probabilities = np.array([[0.95, 0.04, 0.01], [0.6, 0.35, 0.05], [0.9, 0.08, 0.02]])
    given = np.array([0, 0, 2])  # category 2 has the threshold 0.02, which row 1 reaches
    assert confident_suggestions(probabilities, given)[1] == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("given", [[1], [1, 1, 1], [0, 1], [0, 1, 1, 2, 1]])
def test_few_labels_or_all_of_one_category_raise_no_doubt_and_no_noise(given):
    probabilities = np.eye(4)[given] * 0.6 + 0.1
    assert confident_suggestions(probabilities, np.array(given)).tolist() == given
