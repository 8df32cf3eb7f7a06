import time
from dataclasses import replace

import pandas as pd
import pytest

from sirius_helpers.augment import _identity
from sirius_helpers.errors import UserError
from sirius_helpers.llm.filters import (
    FILTERS,
    bare,
    cleaned,
    cyrillic_share,
    first_reason,
    near_duplicate,
    similarity,
    word_runs,
)
from sirius_helpers.settings import BUNDLED

ORIGINAL = "Сапоги промокают после первого дождя, деньги не вернули, продавец молчит вторую неделю"
TEXT_ONLY = ("refusal", "meta_talk", "several_variants", "markup", "placeholder", "foreign_script", "repetition")


@pytest.fixture
def control():
    """The package's control texts: {text: "yes" for a review, "no" for anything else}."""
    return pd.read_csv(BUNDLED / "judge_control.csv", index_col="text")["is_review"].to_dict()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Новый отзыв: Обувь не держит воду", "Обувь не держит воду"),
        ("Конечно, вот перефразированный отзыв: Обувь течёт", "Обувь течёт"),
        ("Другими словами: Обувь течёт", "Обувь течёт"),
        ("Ответ: Обувь течёт", "Обувь течёт"),
        ("«Обувь течёт»", "Обувь течёт"),
        ("> Обувь течёт", "Обувь течёт"),
        ("=====\nОбувь течёт\n---", "Обувь течёт"),
        ('Понял вас. Вот перифразированный вариант:\n\n---\n\n"Обувь течёт"', "Обувь течёт"),
        ("Готово, можно читать:\n\n**Отзыв:**\n\nОбувь течёт", "Обувь течёт"),
        ("Отзыв хороший, обувь нет", "Отзыв хороший, обувь нет"),
        ("Вот и обувь пришла: отличная!", "Вот и обувь пришла: отличная!"),
        ("Другими словами, не советую", "Другими словами, не советую"),
        ("«Мария» на коробке, а внутри «Дарья»", "«Мария» на коробке, а внутри «Дарья»"),
        ("", ""),
    ],
)
def test_known_openings_are_stripped_and_reviews_left_alone(raw, expected):
    assert cleaned(raw) == expected


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("refusal", "Извините, я не могу выполнить эту задачу."),
        ("refusal", "К сожалению, я не могу помочь с этим запросом."),
        ("refusal", "Я не могу создавать отзывы от чужого имени."),
        ("refusal", "Мне жаль, но я не смогу переписать этот текст."),
        ("refusal", "Эта просьба нарушает мои принципы."),
        ("refusal", "Подделка мнений противоречит этическим нормам."),
        ("refusal", "Пожалуйста, пришлите текст, с которым нужно работать."),
        ("refusal", "Вы не указали отзыв. Могли бы вы уточнить?"),
        ("refusal", "Не люблю менять тему разговора, но сейчас придётся."),
        ("meta_talk", "Как языковая модель, я не ношу обувь"),
        ("meta_talk", "Я — искусственный интеллект и сапог не покупаю."),
        ("meta_talk", "Понимаю ваши указания, приступаю."),
        ("meta_talk", "Отзыв про сапоги пересказан другими словами."),
        ("meta_talk", "Буду рад помочь, если появится что-то ещё."),
        ("meta_talk", "Сапоги промокли в первый же день. Смысл сохранён, слова другие."),
        ("meta_talk", "Обувь течёт.\n\nПримечание: тон сделан мягче."),
        ("meta_talk", "Я заменил глаголы и прилагательные: «обувь течёт»."),
        ("meta_talk", "Обувь течёт. Этот вариант сохраняет настроение."),
        ("meta_talk", "Перферазированная версия отзыва про сапоги"),
        ("meta_talk", "Перформулированный текст о сапогах"),
        ("meta_talk", "Обувь течёт. Категория: обувь"),
        ("meta_talk", "Sure! Here is a paraphrased version: обувь течёт, деньги пропали"),
        ("meta_talk", "Уважаемый покупатель, нам важно ваше мнение!"),
        ("meta_talk", "Мне очень жаль слышать о ваших сапогах."),
        ("meta_talk", "Покупатель недоволен качеством обуви."),
        ("meta_talk", "Заказчик был разочарован: обувь течёт"),
        ("meta_talk", "Очень рады, что вам понравилась обувь. Спасибо за покупку в нашем магазине!"),
        ("several_variants", "Вариант 1: обувь течёт. Вариант 2: сапоги мокнут."),
        ("several_variants", "1. Обувь течёт.\n2. Сапоги мокнут."),
        ("markup", "Обувь **течёт** с первого дня"),
        ("markup", "### Сапоги\nТекут с первого дня"),
        ("markup", "Обувь течёт<|im_end|>"),
        ("markup", "Обувь течёт\n\n---\n\nСапоги мокнут"),
        ("placeholder", "Купил [название товара], не держит воду"),
        ("placeholder", "Очень расстроен(а) этими сапогами"),
        ("foreign_script", "Обувь 很好 не течёт"),
        ("foreign_script", "Обувь течёт с первого дня, especially where the seams are, носить невозможно"),
        ("foreign_script", "The boots leak after the first rain"),
        ("repetition", "обувь течёт и мокнет, обувь течёт и мокнет, обувь течёт и мокнет"),
        ("repetition", "хорошо хорошо хорошо хорошо хорошо"),
        ("repetition", "Сапоги! Сапоги, сапоги. Сапоги"),
        ("repetition", "аааааааааааааа"),
        ("repetition", "5 5 5 5"),
        ("too_short", "!!!!!"),
        ("too_short", ". . . . . ."),
        ("too_short", "👍👍👍👍👍👍👍👍👍👍👍👍👍👍👍👍👍👍👍👍👍👍👍👍👍👍👍👍👍👍"),
        ("copy_of_original", "сапоги промокают после первого дождя деньги не вернули. ПРОДАВЕЦ молчит вторую неделю!"),
        ("too_short", ""),
        ("too_short", "ок"),
        ("too_short", "Сапоги текут"),
        (
            "too_long",
            "Вышла утром под мелкий дождь, дошла до остановки, потом пешком через парк, и к вечеру "
            + "промокла " * 3
            + "до нитки; обещали гарантию, а вернуть деньги отказались, и так уже вторую неделю подряд",
        ),
        ("near_duplicate", "Купил тарелку, она разбилась ещё в дороге, продавец молчит"),
        ("prompt_leak", "Обувь течёт. Пиши просто, как пишут покупатели, по-русски."),
    ],
)
def test_each_kind_of_bad_candidate_gets_its_reason(settings, reason, text):
    known = [bare("купил тарелку — она разбилась ещё в дороге: продавец молчит")]
    prompt = frozenset(word_runs("Пиши просто, как пишут покупатели, по-русски", settings.leak_words))
    assert first_reason(text, ORIGINAL, known, settings, prompt) == reason


@pytest.mark.parametrize(
    "text",
    [
        "Извините, но за такие деньги это издевательство",
        "Не могу оставить отзыв, товар так и не пришёл",
        "Продавец не смог выполнить мою просьбу и положил другой цвет",
        "Мой запрос на возврат отклонили, это нарушает закон",
        "К сожалению, не могу рекомендовать",
        "Пылесос с искусственным интеллектом, сам объезжает кота",
        "Голосовой ассистент понимает через раз",
        "Модель маломерит, текст на груди с ошибкой",
        "Переписываюсь с продавцом вторую неделю, ответа нет",
        "Переписала отзыв после стирки: села на два размера",
        "Продавец просил изменить отзыв, не дождётся",
        "Как вариант на дачу сойдёт, взяла два варианта цвета",
        "Хорошая юбка, вот только длинновата",
        "Спасибо за отзывы, девочки, помогли с размером!",
        "Жаль, что вы прислали не тот цвет",
        "Если у вас рост больше 170, не берите",
        "Продавец всегда готов помочь, ответил сразу",
        "Уважаемый продавец, верните деньги",
        "В наших магазинах такие сапоги втрое дороже, рада, что вы быстро прислали",
        "Понимаю, что за триста рублей чуда не бывает",
        "Перфоратор бьёт ровно, перфорация на ремне кривая",
        "Наушники JBL Tune сели, iPhone видит сразу",
        "Полное г**но, такая х***я за мои деньги",
        "Очень, очень, очень довольна, супер супер супер",
        "Дёшево и сердито)))))))) 5+++++++",
        "Суууупер 👍👍👍",
        "Ооочень, ну ооочень, ооочень тепло",
    ],
)
def test_a_real_review_that_looks_like_a_refusal_passes(settings, text):
    wide = replace(settings, min_length_ratio=0)
    assert first_reason(cleaned(text), ORIGINAL, [], wide) is None


def test_the_reviews_of_the_judges_control_set_pass_and_more_than_half_of_the_rest_does_not(settings, control):
    """What passes of the rest reads like ordinary prose and is left to the judge. Emoji say nothing to learn from."""
    wide = replace(settings, min_length_ratio=0, max_length_ratio=1_000)
    passed = {text: first_reason(cleaned(text), ORIGINAL, [], wide) is None for text in control}
    assert all(passed[text] for text, is_review in control.items() if is_review == "yes" and text != "👍👍👍")
    assert sum(passed[text] for text, is_review in control.items() if is_review == "no") <= 57


def test_a_short_original_may_grow_by_the_slack_and_a_long_one_by_the_ratio(settings):
    limits = replace(settings, length_slack=60, max_length_ratio=2.0, min_length_ratio=0.3)
    too_long, too_short = FILTERS["too_long"], FILTERS["too_short"]
    assert not too_long("о" * 65, "о" * 5, limits) and too_long("о" * 66, "о" * 5, limits)
    assert not too_long("о" * 400, "о" * 200, limits) and too_long("о" * 401, "о" * 200, limits)
    assert not too_short("о" * 60, "о" * 200, limits) and too_short("о" * 59, "о" * 200, limits)


def test_a_list_is_fine_where_the_original_has_one(settings):
    text = "1. Цвет не тот\n2. Размер не тот"
    assert first_reason(text, "1. Прислали синие\n2. Малы", [], settings) is None
    assert first_reason(text, "Прислали синие, да ещё и малы", [], settings) == "several_variants"


def test_a_latin_original_may_have_a_latin_paraphrase(settings):
    assert first_reason("Great little phone, love it", "Nice phone, very good", [], settings) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("User cannot open the page", None),
        ("I can't help feeling ignored", None),
        ("user\nThe page does not open", "markup"),
        ("assistant Sure, the page does not open", "markup"),
        ("I can't help with this page", "meta_talk"),
        ("As a language model, I open no pages", "meta_talk"),
    ],
)
def test_an_english_text_is_refused_for_a_models_words_and_not_for_a_customers(settings, text, reason):
    assert first_reason(text, "The page stays closed since Monday", [], settings) == reason


def test_each_threshold_decides(settings):
    assert first_reason("Супер", "Хорошо", [], replace(settings, min_chars=6)) == "too_short"
    assert first_reason("Sony звук супер", "Звук хороший", [], replace(settings, min_cyrillic=0.9)) == "foreign_script"
    twice = "очень хорошие тёплые удобные сапоги на зиму, очень хорошие тёплые удобные сапоги на зиму"
    assert first_reason(twice, "Отличные сапоги", [], replace(settings, length_slack=90)) == "repetition"
    assert first_reason(twice, "Отличные сапоги", [], replace(settings, length_slack=90, max_repeated=0.9)) is None
    leak = frozenset(word_runs("пиши просто", 2))
    assert first_reason("Пиши просто, звук супер", "Звук хороший", [], replace(settings, leak_words=2), leak)


def test_every_threshold_is_part_of_the_stages_fingerprint(settings):
    new = {
        "min_chars": 7, "min_length_ratio": 0.1, "max_length_ratio": 5.0, "length_slack": 7, "min_cyrillic": 0.9,
        "max_repeated": 0.9, "leak_words": 9, "max_copy_similarity": 70.0,
    }  # fmt: skip
    for name, value in new.items():
        assert _identity(replace(settings, **{name: value})) != _identity(settings), name


@pytest.mark.parametrize(
    ("name", "value"),
    [("min_length_ratio", 1.5), ("max_length_ratio", 0.5), ("length_slack", -1), ("min_cyrillic", 2),
     ("max_repeated", -0.1), ("leak_words", 0), ("max_copy_similarity", 101)],
)  # fmt: skip
def test_a_threshold_out_of_range_is_refused_by_name(settings, name, value):
    with pytest.raises(UserError, match=name):
        replace(settings, **{name: value})


def test_similarity_ignores_case_and_punctuation():
    assert similarity("Привет, мир!", "привет мир") == 100
    assert cyrillic_share("123 !!!") == 1


def test_near_duplicates_respect_the_threshold(settings):
    assert near_duplicate("пришло с браком!", [bare("Пришло с браком")], settings)
    assert not near_duplicate("пришло с опозданием", [bare("Пришло с браком")], settings)


@pytest.mark.parametrize("piece", ["\n", "не могу ", "ваш отзыв ", "1) ", "- \n", "вот отзыв: \n", "----", "(", "**а "])
def test_no_text_keeps_the_patterns_busy(settings, piece):
    begin = time.perf_counter()
    text = cleaned(piece * 1_000)
    for name in TEXT_ONLY:
        FILTERS[name](text, ORIGINAL, settings)
    assert time.perf_counter() - begin < 2
