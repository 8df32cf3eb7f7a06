from collections import Counter

import pandas as pd
import pytest
from conftest import labelled
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from sirius_helpers.llm.quotas import MOST_COPIES, copies_per_category, most_multiplied, plan

REFERENCE_COUNTS = {
    "одежда": 1260, "нет товара": 370, "текстиль": 80, "обувь": 48, "электроника": 24,
    "бытовая техника": 17, "товары для детей": 10, "украшения и аксессуары": 7, "посуда": 2,
}  # fmt: skip


def test_the_quota_reproduces_the_references_2798():
    wanted = plan(labelled(REFERENCE_COUNTS), max_synthetic=None)
    assert len(wanted) == 2798
    made = Counter(item.category for item in wanted)
    assert made == {
        "одежда": 1260, "нет товара": 740, "текстиль": 240, "обувь": 192, "электроника": 120,
        "бытовая техника": 102, "товары для детей": 70, "украшения и аксессуары": 56, "посуда": 18,
    }  # fmt: skip


def test_a_cap_takes_the_rarest_categories_first_and_spreads_over_their_originals():
    wanted = plan(labelled({"a": 5, "b": 3, "c": 2}), max_synthetic=7)
    assert [(item.category, item.source_id, item.copy) for item in wanted] == [
        ("c", "c-0", 1), ("c", "c-1", 1), ("c", "c-0", 2), ("c", "c-1", 2), ("c", "c-0", 3), ("c", "c-1", 3),
        ("b", "b-0", 1),
    ]  # fmt: skip


def test_copies_are_bounded_for_long_lists_of_categories():
    copies = copies_per_category([str(n) for n in range(20) for _ in range(n + 1)])
    assert copies["19"] == 1 and copies["0"] == 9 and max(copies.values()) == 9


NAMES = [f"категория {n}" for n in range(14)]
TABLES = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 12), min_size=1).map(labelled)


@given(TABLES, st.randoms(use_true_random=False))
@limits(max_examples=100, deadline=None)
def test_the_rarer_a_category_the_more_copies_whatever_the_order_of_the_rows(table, order):
    counts, copies = Counter(table["category"]), copies_per_category(table["category"].tolist())
    assert sorted(set(copies.values())) == list(range(1, min(len(counts), MOST_COPIES) + 1))
    for one in counts:
        assert all(copies[one] >= copies[other] for other in counts if counts[one] < counts[other])
    rows = table["category"].tolist()
    order.shuffle(rows)
    assert copies_per_category(rows) == copies


@given(TABLES)
@limits(max_examples=100, deadline=None)
def test_every_original_gets_its_categorys_copies_each_once(table):
    wanted, copies = plan(table, max_synthetic=None), copies_per_category(table["category"].tolist())
    expected = [
        (row.id, copy, row.category, row.text)
        for row in table.itertuples()
        for copy in range(1, copies[row.category] + 1)
    ]
    assert Counter((item.source_id, item.copy, item.category, item.original) for item in wanted) == Counter(expected)
    ranks = [(-copies[item.category], item.category, item.copy) for item in wanted]
    assert ranks == sorted(ranks)  # rarest category first, in it the first copies of all before the second


@given(TABLES, st.integers(0, 300))
@limits(max_examples=100, deadline=None)
def test_a_cap_takes_the_beginning_of_the_whole_plan(table, cap):
    whole = plan(table, max_synthetic=None)
    assert plan(table, max_synthetic=cap) == whole[:cap]


@pytest.mark.parametrize("cap", [None, 5])
def test_no_labels_want_nothing(cap):
    assert plan(pd.DataFrame(columns=["id", "text", "category"]), cap) == []


@pytest.mark.parametrize(("count", "half"), [(1, 0), (2, 1), (9, 4), (24, 12)])
def test_most_multiplied_is_the_rarer_half_however_many_categories_have_the_most_copies(count, half):
    names = [f"{n:02}" for n in range(count)]  # the later, the more frequent
    rows = [name for n, name in enumerate(names, start=1) for _ in range(n)]
    assert most_multiplied(rows) == set(names[:half])
