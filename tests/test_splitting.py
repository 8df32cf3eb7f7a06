from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from rapidfuzz import fuzz

from sirius_helpers.categories import Category
from sirius_helpers.reviews import normalised
from sirius_helpers.splitting import (
    PARTS,
    TEST,
    TRAIN,
    grouped_parts,
    joined,
    leak_groups,
    near_duplicates,
    seed_parts,
    with_examples,
)


def test_joined_table_marks_synthetic_rows_with_their_source():
    labels = pd.DataFrame({"id": ["a"], "text": ["раз"], "category": ["обувь"], "labeler": ["x"]})
    table = joined(labels, [{"text": "два", "category": "обувь", "source_id": "a", "p_yes": 1}])
    assert table.to_dict("records") == [
        {"text": "раз", "category": "обувь", "source_id": "a", "synthetic": False},
        {"text": "два", "category": "обувь", "source_id": "a", "synthetic": True},
    ]


def test_near_duplicates_are_found_across_blocks_and_lengths():
    texts = ["Пришло с браком", "всё хорошо, спасибо", "пришло с  БРАКОМ.", "x", "всё хорошо, спасиб0"]
    for block in (1, 2, 100):
        found = {frozenset(pair) for pair in near_duplicates(texts, 90, block=block)}
        assert found == {frozenset((0, 2)), frozenset((1, 4))}


def test_a_group_holds_the_original_its_paraphrases_and_near_duplicates_of_either():
    table = pd.DataFrame(
        {
            "text": ["Сапоги промокли сразу", "Обувь не держит воду", "обувь не держит воду!", "Чашка треснула"],
            "category": ["обувь"] * 3 + ["посуда"],
            "source_id": ["a", "a", "b", "c"],
            "synthetic": [False, True, False, False],
        }
    )
    groups = leak_groups(table, 90)
    assert groups[0] == groups[1] == groups[2] != groups[3]


def test_the_reference_split_has_the_references_sizes():
    counts = {"одежда": 2520, "нет товара": 1110, "текстиль": 320, "обувь": 240, "электроника": 144}
    counts |= {"бытовая техника": 119, "товары для детей": 80, "украшения и аксессуары": 63, "посуда": 20}
    parts = seed_parts([name for name, n in counts.items() for _ in range(n)], 0.2, 0.1, seed=42)
    assert Counter(parts == TEST) == {False: 3692, True: 924}


def test_seed_split_keeps_label_proportions_and_singletons_in_train():
    categories = ["a"] * 100 + ["b"] * 50 + ["c"]
    parts = seed_parts(categories, 0.2, 0.1, seed=0)
    assert Counter(np.array(categories)[parts == TEST]) == {"a": 20, "b": 10} or parts[-1] == TRAIN
    assert parts[-1] == TRAIN
    assert (seed_parts(categories, 0.2, 0.1, seed=0) == parts).all()
    assert (seed_parts(categories, 0.2, 0.1, seed=1) != parts).any()


@st.composite
def tables(draw):
    """Originals with 0 to 4 paraphrases each, some of them near-copies of other rows."""
    rows = []
    for number in range(draw(st.integers(2, 40))):
        category = draw(st.sampled_from(["a", "b", "c", "d"]))
        text = draw(st.sampled_from(["хорошо", "плохо", f"отзыв номер {number} {'ы' * number}"]))
        rows.append((text, category, str(number), False))
        rows += [(f"копия {n} от {number * 7919}", category, str(number), True) for n in range(draw(st.integers(0, 4)))]
    return pd.DataFrame(rows, columns=["text", "category", "source_id", "synthetic"])


@given(tables(), st.integers(0, 5))
@limits(max_examples=60, deadline=None)
def test_grouped_split_never_leaks_and_shows_each_category_on_both_sides(table, seed):
    groups = leak_groups(table, 90)
    parts = grouped_parts(table, groups, 0.2, 0.1, seed)
    assert len(parts) == len(table)
    assert all(len(set(parts[groups == group])) == 1 for group in set(groups))
    originals = ~table["synthetic"].to_numpy()
    home = {g: Counter(table["category"][originals & (groups == g)]) for g in set(groups)}
    main = {g: min(c, key=lambda name: (-c[name], name)) for g, c in home.items()}
    for category in set(main.values()):
        sides = {parts[groups == g][0] for g in main if main[g] == category}
        several = sum(name == category for name in main.values()) > 1
        assert TRAIN in sides and (TEST in sides) == several
    assert (grouped_parts(table, groups, 0.2, 0.1, seed) == parts).all()


# Texts of a few letters, so that many are near-duplicates at any threshold.
NEAR_TEXTS = st.lists(st.text("абв .", max_size=12), min_size=1, max_size=30)
THRESHOLDS = st.one_of(st.floats(1, 100), st.sampled_from([0.0, 50.0, 66.6, 80.0, 90.0, 100.0]))


def alike(one, other, threshold):
    return fuzz.ratio(normalised(one), normalised(other)) >= threshold


@given(NEAR_TEXTS, THRESHOLDS, st.integers(1, 7))
@limits(max_examples=200, deadline=None)
def test_near_duplicates_are_all_pairs_that_are_alike_and_no_other(texts, threshold, block):
    expected = {(i, j) for i in range(len(texts)) for j in range(i) if alike(texts[i], texts[j], threshold)}
    found = [tuple(sorted(pair, reverse=True)) for pair in near_duplicates(texts, threshold, block)]
    assert sorted(found) == sorted(expected)


@given(NEAR_TEXTS, THRESHOLDS, st.integers(0, 9), st.data())
@limits(max_examples=100, deadline=None)
def test_no_two_rows_that_are_alike_or_of_one_original_stand_in_different_parts(texts, threshold, seed, data):
    sources: list[int] = []
    for n in range(len(texts)):
        sources.append(data.draw(st.sampled_from([*sources, n])))  # a paraphrase of a row above, or an original
    numbered = enumerate(zip(texts, sources, strict=True))
    rows = [(text, "абвг"[source % 4], str(source), source != n) for n, (text, source) in numbered]
    table = pd.DataFrame(rows, columns=["text", "category", "source_id", "synthetic"])
    parts = grouped_parts(table, leak_groups(table, threshold), 0.3, 0.3, seed)
    assert set(parts) <= set(PARTS) and len(parts) == len(texts)
    for i in range(len(texts)):
        for j in range(i):
            if sources[i] == sources[j] or alike(texts[i], texts[j], threshold):
                assert parts[i] == parts[j]


@given(
    st.lists(st.sampled_from("абвгдежзиклмн"), min_size=1, max_size=80),
    st.floats(0.01, 0.9),
    st.floats(0.01, 0.9),
    st.integers(0, 9),
)
@limits(max_examples=200, deadline=None)
def test_seed_split_gives_every_row_a_part_keeps_proportions_and_is_stable(categories, test_share, share, seed):
    parts = seed_parts(categories, test_share, share, seed)
    assert len(parts) == len(categories) and set(parts) <= set(PARTS)
    assert (parts == seed_parts(categories, test_share, share, seed)).all()
    counts = Counter(categories)
    drawn_from = [name for name in categories if counts[name] > 1]
    held = int((parts == TEST).sum())
    for name, n in counts.items():
        own = int((parts[np.array(categories) == name] == TEST).sum())
        expected = held * n / len(drawn_from) if n > 1 else 0
        assert abs(own - expected) < 1 + 1e-9


def test_texts_made_for_labels_that_have_changed_are_left_out_and_counted(capsys):
    labels = pd.DataFrame({"id": ["a", "b"], "text": ["раз", "два"], "category": ["обувь", "посуда"]})
    made = [{"text": source, "category": "обувь", "source_id": source} for source in ("a", "b", "gone")]
    assert len(joined(labels, made[:1])) == 3 and not capsys.readouterr().out
    assert joined(labels, made)["text"].tolist() == ["раз", "два", "a"]
    assert "split: 2 synthetic reviews are left out" in capsys.readouterr().out


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_grouped_split_holds_out_about_the_asked_share(share):
    rows = [(f"уникальный отзыв {'абвгд'[n % 5] * (n % 17)} {n * 7919}", "ab"[n % 4 == 0], str(n)) for n in range(200)]
    table = pd.DataFrame(rows, columns=["text", "category", "source_id"]).assign(synthetic=False)
    parts = grouped_parts(table, np.arange(200), share, 0.1, seed=3)
    for category in "ab":
        held = (parts[table["category"] == category] == TEST).mean()
        assert held == pytest.approx(share, abs=0.02)


def test_example_phrases_are_trained_on_unless_they_nearly_repeat_a_held_out_review():
    taxonomy = [Category("обувь", "всё для ног", ("Сапоги промокли", "Туфли жмут")), Category("посуда")]
    table = pd.DataFrame({"text": ["сапоги промокли!", "туфли  жмут"], "part": [TEST, TRAIN], "category": "обувь"})
    whole = with_examples(table.assign(source_id=["a", "b"], synthetic=False), taxonomy, 90)
    assert whole.iloc[2:].to_dict("records") == [
        {"text": text, "part": TRAIN, "category": "обувь", "source_id": "example", "synthetic": True}
        for text in ("Туфли жмут", "всё для ног")
    ]
