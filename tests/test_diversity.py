import numpy as np
import pandas as pd
import pytest

from sirius_helpers.llm.diversity import chrf, discriminability, distinct, diversity


def test_distinct_counts_different_words_among_all():
    assert distinct(["Сапоги малы", "сапоги, велики!"], 1, size=4) == 3 / 4
    assert distinct(["да нет да нет"], 2, size=3) == pytest.approx(2 / 3)
    assert np.isnan(distinct(["да"], 2))


def test_distinct_does_not_depend_on_how_many_texts_there_are():
    texts = [f"слово{n % 30} слово{n * 7 % 30}" for n in range(60)]
    assert distinct(texts * 4, 1) == pytest.approx(distinct(texts, 1), abs=0.05)


def test_chrf_is_one_for_equal_words_and_falls_with_distance():
    assert chrf("Сапоги промокают!", "сапоги  промокают") == 1
    near, far = chrf("Сапоги промокли", "Сапоги промокают"), chrf("Тарелка разбилась", "Сапоги промокают")
    assert 1 > near > 0.5 > far >= 0
    assert chrf("", "Сапоги") == 0


def test_chrf_of_a_hand_worked_pair():
    # "аб" in "абв": one gram of 2 of 2, of 3; two-gram 1 of 1, of 2; n = 3 has no gram in the shorter text
    f1, f2 = 5 * 1 * (2 / 3) / (4 * 1 + 2 / 3), 5 * 1 * 0.5 / (4 * 1 + 0.5)
    assert chrf("аб", "абв") == pytest.approx((f1 + f2) / 2)


def pairs(rows):
    return pd.DataFrame(rows, columns=["category", "original", "text"])


def test_the_table_has_a_row_a_category_and_one_for_all():
    table = diversity(pairs([("обувь", "Сапоги малы", "Сапожки жмут мне"), ("посуда", "Чашка бита", "Чашка бита")]))
    assert table["category"].tolist() == ["обувь", "посуда", "all"]
    assert table["texts"].tolist() == [1, 1, 2]
    assert table["length ratio"].tolist() == pytest.approx([16 / 11, 1, (16 / 11 + 1) / 2])
    assert table["chrF to original"][1] == 1
    assert diversity(pairs([])).empty


def test_texts_of_another_style_are_told_apart_and_shuffled_ones_are_not():
    words = ["сапоги", "туфли", "платье", "чашка", "лампа", "сумка", "куртка", "шапка", "ремень", "плед"]
    plain = [f"{a} и {b} норм" for a in words for b in words if a != b]
    formal = [("x", text, f"Данное изделие: {text.split()[0]}; качество удовлетворительное.") for text in plain]
    assert discriminability(pairs(formal), seed=0) > 0.99
    half = len(plain) // 2
    same = [("x", one, other) for one, other in zip(plain[:half], reversed(plain[half:]), strict=True)]
    assert 0.2 < discriminability(pairs(same), seed=0) < 0.8


@pytest.mark.parametrize(("texts", "originals"), [(19, 19), (20, 1)])
def test_too_few_texts_or_originals_say_nothing_of_the_style(texts, originals):
    rows = [("x", f"сапоги {n % originals}", f"туфли {n}") for n in range(texts)]
    assert discriminability(pairs(rows), seed=0) is None
