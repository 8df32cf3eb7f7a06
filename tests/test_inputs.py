from dataclasses import replace

import pytest
from tiny_models import NO_SYSTEM, OWN_SYSTEM, SWITCHED, tiny_gemma3, tiny_qwen2

from sirius_helpers import loaders
from sirius_helpers.__main__ import main
from sirius_helpers.errors import UserError
from sirius_helpers.files.inputs import check_inputs
from sirius_helpers.files.reviews import CORRECTIONS, read_reviews
from sirius_helpers.label import label
from sirius_helpers.settings import PROJECT, ModelSpec, settings_for


def test_good_inputs_are_summed_up(settings):
    summary = check_inputs(settings)
    assert dict(zip(summary["file"], summary["rows"], strict=True)) == {"train.csv": 8, "test.csv": 2, "categories": 2}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test.csv", None, "test.csv does not exist"),
        ("train.csv", "", "train.csv is empty"),
        ("train.csv", "review\nx\n", "train.csv has no column 'text'"),
        ("categories.toml", None, "neither categories.toml nor categories.txt"),
        ("human_labels.csv", "text,category\nx,мебель\n", "human_labels.csv, row 1: 'мебель' is not a category"),
    ],
)
def test_bad_input_is_refused_before_any_model_loads(settings, monkeypatch, name, content, message):
    monkeypatch.setattr(loaders, "load_model", lambda *_: pytest.fail("a model was loaded"))
    path = settings.data / name
    path.unlink() if content is None else path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        check_inputs(settings)


def test_unknown_category_in_imported_labels_names_file_and_row(settings, data):
    (data / "mine.csv").write_text("text,category\nx,обувь\ny,космос\n", encoding="utf-8")
    changed = settings_for("cpu", data=data, run="test", labels=data / "mine.csv")
    with pytest.raises(UserError, match="mine.csv, row 2: 'космос' is not a category; allowed are обувь, посуда"):
        check_inputs(changed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,category\n{id},обувь\nnobody,обувь\n", "row 2: no review has the id 'nobody'; correct the row"),
        ("id,category\n{id},мебель\n", "row 1: 'мебель' is not a category; allowed are обувь, посуда"),
        ("text,category\nтакого нет,обувь\n", "row 1: no review has the text 'такого нет'"),
        ("review,category\nx,обувь\n", "needs a column 'id' or 'text' beside 'category'"),
    ],
)
def test_corrections_that_fit_no_review_or_category_are_refused(settings, content, message):
    (first, *_) = read_reviews(settings.data / "train.csv")["id"]
    settings.folder.mkdir(parents=True)
    (settings.folder / CORRECTIONS).write_text(content.format(id=first), encoding="utf-8")
    with pytest.raises(UserError, match=f"{CORRECTIONS}.*{message}"):
        check_inputs(settings)


@pytest.fixture
def bare_list(settings):
    """A plain list in place of the taxonomy: labels of one's own, without examples."""
    (settings.data / "categories.toml").unlink()
    (settings.data / "categories.txt").write_text("возврат\nоплата\n", encoding="utf-8")
    return settings


def test_labels_without_examples_are_refused_where_the_few_shot_labeler_is_to_learn_them(bare_list):
    asked = replace(bare_list, labeler_kind="llm", labeler=bare_list.writer)
    for changed in (bare_list, replace(asked, second_labeler=bare_list.labeler, second_weight=0.5)):
        with pytest.raises(UserError, match="categories.txt: .* no example phrases for: возврат, оплата. Write"):
            check_inputs(changed)


def test_labels_without_examples_will_do_where_no_few_shot_labeler_reads_them(bare_list):
    llm = replace(bare_list, labeler_kind="llm", labeler=bare_list.writer)
    imported = {"labels": mine(bare_list.data)}
    pooled = replace(llm, second_labeler=bare_list.labeler, second_weight=0.5)
    for changed in (llm, replace(bare_list, **imported), replace(pooled, **imported)):
        assert check_inputs(changed)["rows"].tolist()[:3] == [8, 2, 2]


def mine(folder):
    (folder / "mine.csv").write_text("text,category\nx,возврат\n", encoding="utf-8")
    return folder / "mine.csv"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[label]\nsystem = "Выбери: $categores"', r"'label' uses \$categores, .*: \$categories, \$review"),
        ('[judge]\nsystem = "$categories"', r"'judge' uses \$categories, which nothing fills; it may use: \$review"),
        ('[paraphrase]\nuser = "Отзыв: $reviews"', r"'paraphrase': \$review must stand exactly once"),
        ('[paraphrase]\nuser = "Отзыв: $$review"', r"'paraphrase': \$review must stand exactly once"),
        ("[judge]\nuser = 5", "'judge': user must be text"),
        ('[judge]\nexamples = [["Чайник течёт", "да"]]', "'judge': an example answers 'да', which is neither"),
        ('[label]\nexamples = ["обувь"]', "'label': examples must be pairs of a text and its answer"),
        ('[judge]\nsystem = "Дешевле $5?"', r"'judge' holds a \$ that begins no variable; write \$\$"),
    ],
)
def test_a_broken_prompt_is_refused_with_its_file(settings, content, message):
    (settings.data / "prompts.toml").write_text(content, encoding="utf-8")
    changed = settings_for("cpu", data=settings.data, run="test", checkpoints=settings.checkpoints)
    with pytest.raises(UserError, match=rf"prompts\.toml: prompt {message}"):
        check_inputs(changed)
    with pytest.raises(UserError, match=rf"^CHANGES: prompt {message}"):
        (settings.data / "prompts.toml").unlink()
        check_inputs(changed)


def chat_folder(folder, template, make=tiny_qwen2):
    model, tokenizer = make()
    tokenizer.chat_template = template
    model.save_pretrained(folder), tokenizer.save_pretrained(folder)
    return ModelSpec(str(folder), chat=True)


@pytest.mark.parametrize(
    ("template", "make"), [(NO_SYSTEM, tiny_gemma3), (OWN_SYSTEM, tiny_qwen2), (SWITCHED, tiny_qwen2)]
)
def test_any_chat_template_is_tried_before_the_first_stage_and_works_in_it(settings, tmp_path, capsys, template, make):
    spec = chat_folder(tmp_path / "model", template, make)
    asked = replace(settings, labeler=spec, labeler_kind="llm", writer=spec)
    check_inputs(asked)
    assert ("asked to answer without thinking first" in capsys.readouterr().out) == (template is SWITCHED)
    labels = label(asked)
    assert all(sum(row.values()) == pytest.approx(1, abs=1e-4) for row in labels["probabilities"])


@pytest.mark.parametrize("role", ["labeler", "writer"])
@pytest.mark.parametrize("template", [None, "{{ raise_exception('System role not supported') }}"])
def test_a_chat_template_that_cannot_be_rendered_is_refused_before_weights_are_there(
    settings, tmp_path, role, template
):
    spec = chat_folder(tmp_path / "model", template)
    (tmp_path / "model" / "model.safetensors").unlink()
    asked = replace(settings, **{role: spec}, labeler_kind="llm" if role == "labeler" else "few-shot")
    with pytest.raises(UserError, match="model: its chat template cannot hold the prompt: .*set chat=False"):
        check_inputs(asked)


def test_a_base_model_taken_for_a_chat_model_is_refused(settings):
    with pytest.raises(UserError, match="gemma-3-270m: its chat template .*set chat=False"):
        check_inputs(replace(settings, writer=replace(settings.writer, chat=True)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "gpu"], "Error: PROFILE='gpu' is not one of: auto, t4, cpu, chat, rehearsal."),
        (["--data", "no/such/folder"], "there is no folder"),
        (["--run", "a/b"], "is not a plain folder name"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(PROJECT)
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == "" and message in said.err and len(said.err.splitlines()) == 1
