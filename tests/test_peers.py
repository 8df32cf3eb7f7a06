"""What the comparison with the peers counts by; the peers themselves are asked by `make peers`."""

import sys

import numpy as np
import pandas as pd
import pytest

from sirius_helpers.settings import PROJECT

sys.path.insert(0, str(PROJECT / "benchmarks"))
import peer_labels
import peers

LABELS = pd.Series(["обувь"] * 12 + ["посуда"] * 6 + ["одежда"] * 2)


def test_planted_errors_are_as_many_as_asked_for_and_another_draw_for_each_seed():
    first, second = peers.planted(LABELS, 0.2, 0), peers.planted(LABELS, 0.2, 1)
    assert (first != LABELS).sum() == (second != LABELS).sum() == 4 and not first.equals(second)
    assert first.equals(peers.planted(LABELS, 0.2, 0)) and set(first) <= set(LABELS)


def test_a_list_is_judged_by_what_it_puts_first_and_gets_nothing_for_rows_it_leaves_out(monkeypatch):
    monkeypatch.setattr(peers, "FIRST", 2)
    wrong = np.array([True, False, True, True, False, False])
    found = peers.ranking(np.array([0.9, 0.8, 0.7, 0, 0, 0]), wrong)
    assert (found["listed"], found["found"], found["precision at 2"]) == (3, pytest.approx(2 / 3), 0.5)
    assert found["precision at all planted"] == pytest.approx(2 / 3)
    assert peers.ranking(np.array([0.9, 0, 0.8, 0.7, 0, 0]), wrong)["average precision"] == 1
    assert peers.ranking(np.zeros(6), wrong)["precision at 2"] == 0


def test_reviews_are_drawn_by_category_and_none_is_left_alone():
    rows = pd.DataFrame({"id": [str(n) for n in range(20)], "category": LABELS})
    assert peers.drawn(rows, 10)["category"].value_counts().to_dict() == {"обувь": 6, "посуда": 3}
    assert len(peers.drawn(rows, 20)) == 20


def test_a_table_has_a_line_for_each_way_and_the_interval_of_its_mean():
    rows = [{"way": name, "repeat": n, "f1": x / 10, "s": x} for name in "ab" for n, x in enumerate((8, 9, 10))]
    assert peers.summary(rows, "way").loc["a"].to_dict() == {"f1": "0.900 ± 0.248", "s": "9.0 ± 2.5"}
    said = peer_labels.agreement(pd.DataFrame({"ours": ["x", "y"], "theirs": ["x", "x"]}))
    assert said.loc["ours", "theirs"] == 0.5 and said.loc["ours", "ours"] == 1
