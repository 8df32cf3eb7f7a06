import pytest

from sirius_helpers.filters import bare, cleaned, cyrillic_share, first_reason, near_duplicate, similarity

ORIGINAL = "Сапоги промокают после первого дождя"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Новый отзыв: Обувь не держит воду", "Обувь не держит воду"),
        ("Конечно, вот перефразированный отзыв: Обувь течёт", "Обувь течёт"),
        ("«Обувь течёт»", "Обувь течёт"),
        ("Отзыв хороший, обувь нет", "Отзыв хороший, обувь нет"),
        ("Вот и обувь пришла: отличная!", "Вот и обувь пришла: отличная!"),
    ],
)
def test_known_openings_are_stripped_and_reviews_left_alone(raw, expected):
    assert cleaned(raw) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "too_short"),
        ("ок", "too_short"),
        ("Извините, я не могу выполнить эту задачу.", "refusal"),
        ("Как языковая модель, я не ношу обувь", "meta_talk"),
        ("Обувь 很好 не течёт", "foreign_script"),
        ("The boots leak after the first rain", "foreign_script"),
        ("сапоги промокают, после первого дождя!", "copy_of_original"),
        ("Купил тарелку: разбилась", "near_duplicate"),
        ("Вода внутри обуви уже через час прогулки", None),
    ],
)
def test_the_first_failing_filter_names_the_reason(settings, text, reason):
    assert first_reason(text, ORIGINAL, [bare("купил тарелку — разбилась")], settings) == reason


def test_a_latin_original_may_have_a_latin_paraphrase(settings):
    assert first_reason("Great little phone, love it", "Nice phone, very good", [], settings) is None


def test_similarity_ignores_case_and_punctuation():
    assert similarity("Привет, мир!", "привет мир") == 100
    assert cyrillic_share("123 !!!") == 1


def test_near_duplicates_respect_the_threshold(settings):
    assert near_duplicate("пришло с браком!", [bare("Пришло с браком")], settings)
    assert not near_duplicate("пришло с опозданием", [bare("Пришло с браком")], settings)
