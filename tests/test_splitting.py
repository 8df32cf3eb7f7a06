import dataclasses
import json
from collections import Counter
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from rapidfuzz import fuzz

from sirius_helpers.errors import UserError
from sirius_helpers.files.categories import Category
from sirius_helpers.files.journal import Journal
from sirius_helpers.files.reviews import BY_HAND, PARTS, TEST, TRAIN, leak_groups, near_duplicates, normalised
from sirius_helpers.files.runs import Run
from sirius_helpers.split import grouped_parts, joined, seed_parts, soft_labels, split, with_examples


def test_joined_table_marks_synthetic_rows_with_their_source():
    labels = pd.DataFrame({"id": ["a"], "text": ["раз"], "category": ["обувь"], "labeler": ["x"]})
    table = joined(labels, [{"text": "два", "category": "обувь", "source_id": "a", "p_yes": 1}])
    assert table.to_dict("records") == [
        {"text": "раз", "category": "обувь", "source_id": "a", "synthetic": False},
        {"text": "два", "category": "обувь", "source_id": "a", "synthetic": True},
    ]


def test_soft_labels_are_the_probabilities_of_labels_that_nobody_set_by_hand():
    chances = [{"обувь": 0.604, "посуда": 0.356, "одежда": 0.04}, {"обувь": 0.9, "посуда": 0.1, "одежда": 0.0}, None]
    given = pd.DataFrame({"id": ["a", "b", "c"], "probabilities": chances})
    found = soft_labels(given, pd.DataFrame({"labeler": ["x", BY_HAND, "x"]}))
    assert found.to_dict("index") == {"a": {"p_обувь": 0.6, "p_посуда": 0.36, "p_одежда": 0.0}}
    assert soft_labels(given.tail(1), pd.DataFrame({"labeler": ["x"]})).empty


@pytest.mark.parametrize("soft", [True, False])
def test_the_split_carries_them_for_originals_and_their_paraphrases(settings, soft):
    run = Run(settings.folder)
    row = {"category": "обувь", "labeler": "x", "probabilities": {"обувь": 0.7, "посуда": 0.3}, "margin": 0.4}
    labels = [row | {"id": name, "text": f"{name} {name * 9}"} for name in "abcdefgh"]
    Journal(run.path("labels.jsonl"), "x").append(labels)
    copies = [{"source_id": "a", "copy": 1, "category": "обувь", "text": "совсем иное"}]
    Journal(run.path("synthetic.jsonl"), "x").append(copies)
    table = split(dataclasses.replace(settings, soft_labels=soft)).set_index("text")
    assert ("p_обувь" in table) == soft
    if soft:
        chances = table[["p_обувь", "p_посуда"]].to_numpy().tolist()
        assert chances[:9] == [[0.7, 0.3]] * 9 and chances[9:] == [[0.0, 0.0]] * len(chances[9:])  # phrases


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
    assert Counter(np.array(categories)[parts == TEST]) == {"a": 21, "b": 10}
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


@given(tables(), st.sampled_from([0.01, 0.2, 0.4, 0.8]), st.integers(0, 5))
@limits(max_examples=60, deadline=None)
def test_grouped_split_never_leaks_and_shows_each_category_on_both_sides(table, share, seed):
    groups = leak_groups(table, 90)
    parts = grouped_parts(table, groups, share, 0.3, seed)
    assert len(parts) == len(table)
    assert all(len(set(parts[groups == group])) == 1 for group in set(groups))
    originals = ~table["synthetic"].to_numpy()
    held = [set(groups[originals & (table["category"] == name)]) for name in set(table["category"])]
    sides = [set(parts[np.isin(groups, list(own))]) for own in held]
    assert all(TRAIN in own for own in sides)
    assert sum(TEST in own for own in sides) == most_in_test(held)
    assert (grouped_parts(table, groups, share, 0.3, seed) == parts).all()


def most_in_test(held):
    """How many categories can have a group in test while each has one in train, by trying all ways.

    `held`: the groups of each category. All with two or more groups, but for duplicates that tie them together.
    """
    shared = sorted(g for g in set().union(*held) if sum(g in own for own in held) > 1)
    best = 0
    for bits in product((False, True), repeat=len(shared)):
        test = dict(zip(shared, bits, strict=True))
        fixed = [[test[g] for g in own if g in test] for own in held]
        free = [len(own) - len(known) for own, known in zip(held, fixed, strict=True)]
        if all(n or not all(known) for n, known in zip(free, fixed, strict=True)):
            both = [n + len(set(known)) > 1 for n, known in zip(free, fixed, strict=True)]
            best = max(best, sum(both))
    return best


ALIKE = ["хорошо", "Хорошо!!"]
TIED = {
    "a category's text is also, more often, another's": (
        [("хорошо", "X"), ("сапоги промокли", "X"), *[(text, "Y") for text in ALIKE]],
        {"X", "Y"},
    ),
    "both texts of a category are": (
        [(text, name) for text in ("хорошо", "сапоги промокли") for name in "XYY"],
        {"X", "Y"},
    ),
    "its only text is": ([("хорошо", "X"), *[(text, "Y") for text in ALIKE]], {"Y"}),
    "three categories, each two of which share one of three texts": (
        [("хорошо", "X"), ("хорошо", "Y"), ("сапоги промокли", "Y"), ("сапоги промокли", "Z"), ("чашка", "Z"),
         ("чашка", "X")],
        2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("share", [0.1, 0.2, 0.4, 0.9])
@pytest.mark.parametrize(("rows", "held_out"), TIED.values(), ids=TIED)
def test_duplicates_in_other_categories_keep_none_off_a_side_where_it_can_be(rows, held_out, share):
    more = [(f"отзыв {'ы' * n} {n * 7919}", "Y") for n in range(6)] if isinstance(held_out, set) else []
    table = pd.DataFrame([*rows, *more], columns=["text", "category"]).assign(synthetic=False)
    table["source_id"] = [str(n) for n in range(len(table))]
    groups = leak_groups(table, 85)
    for seed in (*range(8), 17, 34):
        parts = grouped_parts(table, groups, share, 0.5, seed)
        seen = {name: set(parts[table["category"] == name]) for name in set(table["category"])}
        in_test = {name for name, sides in seen.items() if TEST in sides}
        assert all(TRAIN in sides for sides in seen.values())
        assert held_out in (in_test, len(in_test))


def test_a_split_names_the_categories_that_no_held_out_review_has(settings, capsys):
    labels = [("сапоги малы", "обувь"), ("туфли жмут мне", "обувь"), ("чашка бита", "посуда"), ("ЧАШКА бита", "посуда")]
    write_run(settings, labels)
    table = split(settings)
    assert set(table["category"][table["part"] == TEST]) == {"обувь"}
    assert "no original review of посуда is held out" in capsys.readouterr().out


@pytest.mark.parametrize("way", ["seed", "grouped"])
def test_a_split_that_would_hold_out_no_review_is_refused(settings, way):
    write_run(settings, [("сапоги малы", "обувь"), ("чашка бита", "посуда")])
    with pytest.raises(UserError, match="none of the 2 original reviews falls into the test part.*Label more reviews"):
        split(dataclasses.replace(settings, split=way))
    assert not Run(settings.folder).path("split.csv").exists()


def write_run(settings, labels):
    """A run with these labels, (text, category), and no synthetic review."""
    run = Run(settings.folder)
    run.folder.mkdir(parents=True)
    told = {"probabilities": {}, "margin": 1.0, "labeler": "x"}
    records = [{"id": str(n), "text": text, "category": name} | told for n, (text, name) in enumerate(labels)]
    run.path("labels.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    run.path("synthetic.jsonl").write_bytes(b"")


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
