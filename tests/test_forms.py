import nbformat
import pytest
from tiny_models import saved, tiny_gemma3, tiny_qwen2

from sirius_helpers.errors import UserError
from sirius_helpers.settings import cpu, settings_for
from sirius_helpers.show.forms import fill_form, form_changes


def test_empty_fields_change_nothing():
    assert form_changes("cpu") == form_changes("cpu", labeler=" ", epochs=" ", max_synthetic="") == {}


def test_a_models_name_keeps_the_profiles_way_of_holding_it_and_the_rest_follows_from_the_model(tmp_path, capsys):
    chat, base = saved(tmp_path / "chat", tiny_qwen2()), saved(tmp_path / "base", tiny_gemma3())
    changes = form_changes("cpu", labeler=f" {chat} ", writer=base)
    assert changes["labeler_kind"] == "llm" and changes["labeler"].chat and changes["labeler"].text_prefix == ""
    assert changes["writer"].weights == cpu()["writer"].weights and not changes["writer"].chat
    assert "classifier" not in changes and f"labeler {chat}: llm" in capsys.readouterr().out
    settings = settings_for("cpu", **changes)
    assert settings.labeler.name == chat and settings.classifier == cpu()["classifier"]


@pytest.mark.parametrize(("name", "prefix"), [("my-e5-small", "query: "), ("rubert2e5x", "")])
def test_an_encoder_learns_from_the_examples_and_only_an_e5_takes_the_prefix(tmp_path, roberta, name, prefix):
    (tmp_path / name).symlink_to(roberta)
    changes = form_changes("cpu", labeler=str(tmp_path / name), classifier=str(tmp_path / name))
    assert changes["labeler_kind"] == "few-shot" and not changes["classifier"].chat
    assert changes["labeler"].text_prefix == changes["classifier"].text_prefix == prefix


@pytest.mark.parametrize(("field", "value"), [("12", 12), (12, 12), ("0", 0), ("all", None)])
def test_the_cap_on_synthetic_reviews_is_a_number_or_all(field, value):
    assert form_changes("cpu", max_synthetic=field) == {"max_synthetic": value}


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"epochs": "many"}, "EPOCHS='many' is not a whole number;"),
        ({"max_synthetic": "1.5"}, "or 'all' for the whole"),
    ],
)
def test_what_is_no_number_is_refused_in_one_line(field, message):
    with pytest.raises(UserError, match=message):
        form_changes("cpu", **field)


def test_the_settings_check_the_numbers():
    with pytest.raises(UserError, match="epochs=0: Input should be greater"):
        settings_for("cpu", **form_changes("cpu", epochs="0"))


def test_a_filled_form_keeps_its_fields_and_every_other_line(tmp_path):
    form = 'DATA = "data/sample"  # @param {type:"string"}\nDRIVE = False  # @param {type:"boolean"}\nDATA = DATA'
    cells = [nbformat.v4.new_code_cell(form), nbformat.v4.new_markdown_cell(form)]
    notebook = fill_form(nbformat.v4.new_notebook(cells=cells), {"DATA": r"C:\new \1", "DRIVE": True})
    filled, prose = (cell.source for cell in notebook.cells)
    names: dict = {}
    exec(filled, names)
    assert names["DATA"] == r"C:\new \1" and names["DRIVE"] is True and filled.count("# @param {type:") == 2
    assert prose == form
