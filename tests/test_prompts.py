from collections import Counter
from dataclasses import replace

import pytest
from tiny_models import CHATML, NO_SYSTEM, OWN_SYSTEM, SWITCHED, THINKING, tiny_gemma3, tiny_qwen2

from sirius_helpers.errors import UserError
from sirius_helpers.models.text_tokens import PromptTokens
from sirius_helpers.prompts import PROMPTS, Template, answer_end, split_prompt, template_for
from sirius_helpers.settings import settings_for


class BaseTokenizer:
    bos_token = "<bos>"


JUDGE = Template("judge", system="Правила.", user="Текст: $review\nЭто отзыв?")
APART = "<|im_start|>system\nПравила.<|im_end|>\n<|im_start|>user\nТекст: "
JOINED = "<|im_start|>user\nПравила.\n\nТекст: "
ANSWER = "\nЭто отзыв?<|im_end|>\n<|im_start|>assistant\n"


def chat_tokenizer(template, make=tiny_qwen2):
    tokenizer = make()[1]
    tokenizer.name_or_path, tokenizer.chat_template = "some/model", template
    return tokenizer


@pytest.mark.parametrize(
    ("template", "prefix", "tail"),
    [
        (CHATML, APART, ANSWER),
        (OWN_SYSTEM, APART, ANSWER),
        (CHATML.replace("message['content']", "message['content'] | trim"), APART, ANSWER),
        ("{% if messages[0].role == 'system' %}{{ raise_exception('No.') }}{% endif %}" + CHATML, JOINED, ANSWER),
        ("{% set messages = messages[-1:] %}" + CHATML, JOINED, ANSWER),  # leaves the system text out
        (SWITCHED, APART, ANSWER + "<think>\n\n</think>\n\n"),
        (THINKING, APART, ANSWER + "<think>\n\n</think>\n\n"),
    ],
)
def test_a_chat_prompt_is_split_exactly_at_the_review_whatever_the_template_makes_of_it(template, prefix, tail):
    assert split_prompt(JUDGE, chat_tokenizer(template), chat=True) == (prefix, tail)


def test_a_beginning_token_that_the_template_writes_is_not_doubled():
    tokenizer = chat_tokenizer(NO_SYSTEM, tiny_gemma3)
    prefix, tail = split_prompt(JUDGE, tokenizer, chat=True)
    assert prefix == "<bos><start_of_turn>user\nПравила.\n\nТекст: "
    assert tail == "\nЭто отзыв?<end_of_turn>\n<start_of_turn>model\n"
    ids = PromptTokens(tokenizer, prefix, tail).prefix_ids
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "Cannot use chat template functions"),
        ("{{ raise_exception('Only tools here. Sorry') }}", "Only tools here"),
        ("{{ messages[0].content + 1 }}", "can only concatenate"),
        ("{% for", "unexpected|Expected"),
        (CHATML.replace("message['content']", "message['content'] | upper"), "leaves out, doubles or changes"),
        (CHATML.replace("message['content']", "message['content'] | replace(' ', '_')"), "leaves out, doubles or"),
        (CHATML.replace("message['content']", "message['content'][:12]"), "leaves out, doubles or changes"),
        (CHATML + CHATML, "leaves out, doubles or changes what the messages say"),
    ],
)
def test_a_template_that_cannot_hold_the_prompt_is_refused_with_the_models_name_and_the_remedy(template, message):
    expected = rf"^some/model: its chat template cannot hold the prompt: .*({message}).*\. Choose .* chat=False"
    with pytest.raises(UserError, match=expected) as error:
        split_prompt(JUDGE, chat_tokenizer(template), chat=True)
    assert "\n" not in str(error.value)


def test_an_answer_ends_as_the_template_ends_a_turn():
    assert answer_end(chat_tokenizer(CHATML), chat=True) == "<|im_end|>"
    gemma = chat_tokenizer(NO_SYSTEM, tiny_gemma3)
    assert (gemma.eos_token, answer_end(gemma, chat=True)) == ("<eos>", "<end_of_turn>")
    assert answer_end(chat_tokenizer("{{ raise_exception('') }}"), chat=True) == "<|im_end|>"
    assert answer_end(gemma, chat=False) == "\n"


SHOWN = replace(JUDGE, examples=(("Чайник течёт", "да"), ("Не могу, $ 5", "нет")))  # a sign in an example is data
AS_TEXT = "Правила.\n\nТекст: Чайник течёт\nЭто отзыв? да\n\nТекст: Не могу, $ 5\nЭто отзыв? нет\n\nТекст: "


@pytest.mark.parametrize(
    ("template", "prefix"),
    [
        (
            CHATML,
            "<|im_start|>system\nПравила.<|im_end|>\n"
            "<|im_start|>user\nТекст: Чайник течёт\nЭто отзыв?<|im_end|>\n<|im_start|>assistant\nда<|im_end|>\n"
            "<|im_start|>user\nТекст: Не могу, $ 5\nЭто отзыв?<|im_end|>\n<|im_start|>assistant\nнет<|im_end|>\n"
            "<|im_start|>user\nТекст: ",
        ),
        (
            "{% if messages[0].role == 'system' %}{{ raise_exception('No.') }}{% endif %}" + CHATML,
            "<|im_start|>user\nПравила.\n\nТекст: Чайник течёт\nЭто отзыв?<|im_end|>\n"
            "<|im_start|>assistant\nда<|im_end|>\n"
            "<|im_start|>user\nТекст: Не могу, $ 5\nЭто отзыв?<|im_end|>\n<|im_start|>assistant\nнет<|im_end|>\n"
            "<|im_start|>user\nТекст: ",
        ),
        ("{% set messages = messages[-1:] %}" + CHATML, f"<|im_start|>user\n{AS_TEXT}"),
        ("{% if messages | length > 1 %}{{ raise_exception('') }}{% endif %}" + CHATML, f"<|im_start|>user\n{AS_TEXT}"),
    ],
    ids=["turns", "no system text", "last turn only", "single turn only"],
)
def test_examples_are_turns_of_a_chat_or_one_text_where_a_template_holds_a_single_turn(template, prefix):
    assert split_prompt(SHOWN, chat_tokenizer(template), chat=True) == (prefix, ANSWER)


def test_a_base_model_gets_the_examples_as_text_that_begins_with_bos_and_ends_without_a_space():
    prefix, tail = split_prompt(SHOWN, BaseTokenizer(), chat=False)
    assert prefix == f"<bos>{AS_TEXT}"
    assert tail == "\nЭто отзыв?"  # a space here would split the answer's first token


def test_a_variable_without_a_value_is_an_error_that_names_it():
    template = Template("label", system="Категории: $categories и $examples", user="$review")
    with pytest.raises(UserError, match=r"prompt 'label' uses \$examples, which nothing fills"):
        template.conversation(categories="обувь", review="x")


def test_every_prompt_has_the_review_once_and_only_known_variables():
    assert set(PROMPTS) == {"label", "paraphrase", "judge"}
    for name, template in PROMPTS.items():
        assert template.name == name
        assert template.user.count("$review") == 1
        system, turns = template.conversation(review="Сапоги", categories="- обувь")  # knows no other variable
        assert "$" not in system and len(turns) == len(template.examples) + 1
        assert "Сапоги" in turns[-1][0] and turns[-1][1] == ""


def test_the_judge_is_shown_as_many_texts_of_each_kind():
    judge = PROMPTS["judge"]
    assert Counter(answer for _, answer in judge.examples) == {judge.yes: 22, judge.no: 22}


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"lable": {}}, "unknown prompt lable"),
        ({"judge": {"usr": "x"}}, "has the parts 'system', 'examples', 'user', 'yes', 'no'; got"),
        ({"judge": {"user": 5}}, "prompt 'judge': user must be text"),
        ({"judge": {"user": "no slot"}}, "must stand exactly once"),
        ({"judge": {"system": "$review"}}, "must stand exactly once"),
        ({"judge": {"yes": "бот"}}, "yes and no must be two different words; got 'бот', 'бот'"),
        ({"judge": {"no": " "}}, "yes and no must be two different words"),
        ({"judge": {"examples": [["Ну", "бот"], ["Да", "кот"]]}}, "an example answers 'кот', which is neither yes nor"),
        ({"judge": {"yes": "да", "no": "нет"}}, "an example answers '(покупатель|бот)', which is neither yes nor no"),
        *(
            ({"judge": {"examples": wrong}}, "'judge': examples must be pairs of a text and its answer, such as")
            for wrong in ("Ну — бот", ["Ну", "бот"], [["Ну"]], [["Ну", "бот", "да"]], [["Ну", 1]], {"Ну": "бот"})
        ),
    ],
)
def test_a_bad_replacement_is_refused_in_one_line(replaced, message):
    with pytest.raises(UserError, match=message.replace("$", r"\$")) as error:
        template_for("judge", replaced)
    assert "\n" not in str(error.value)


def test_a_replaced_part_leaves_the_other_parts_alone():
    template = template_for("judge", {"judge": {"user": "Ну? $review"}})
    assert template == replace(PROMPTS["judge"], user="Ну? $review")
    assert template_for("paraphrase", {"paraphrase": {"examples": []}}).examples == ()


def test_only_the_judge_has_answers_to_replace():
    answers = {"yes": "yes", "no": "no", "examples": [["Lamp broke", "yes"], ["I cannot", "no"]]}
    template = template_for("judge", {"judge": answers})
    assert (template.yes, template.no, template.system) == ("yes", "no", PROMPTS["judge"].system)
    assert template.examples == (("Lamp broke", "yes"), ("I cannot", "no"))
    with pytest.raises(UserError, match="prompt 'label' has the parts 'system', 'examples', 'user'; got"):
        template_for("label", {"label": {"yes": "yes"}})


def test_a_data_folder_brings_its_own_prompts_and_changes_come_before_them(data):
    text = '[judge]\nuser = "Text: $review\\nReal?"\n[paraphrase]\nsystem = "In English."\n'
    (data / "prompts.toml").write_text(text, encoding="utf-8")
    settings = settings_for("cpu", data=data, prompts={"paraphrase": {"system": "Mine."}})
    assert settings.prompts == {"judge": {"user": "Text: $review\nReal?"}, "paraphrase": {"system": "Mine."}}
    assert template_for("judge", settings.prompts).user.endswith("Real?")


@pytest.mark.parametrize(
    ("content", "message"), [('judge = "x"', r"\[judge\] must be a table of texts"), ("[judge", "valid TOML")]
)
def test_a_bad_prompts_file_is_refused_with_its_name(data, content, message):
    (data / "prompts.toml").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=f"prompts.toml.*{message}"):
        settings_for("cpu", data=data)
