import pytest

from sirius_helpers.errors import UserError
from sirius_helpers.forms import form_changes
from sirius_helpers.profiles import cpu
from sirius_helpers.settings import settings_for


def test_empty_fields_change_nothing():
    assert form_changes("cpu") == form_changes("cpu", labeler=" ", epochs=" ", max_synthetic="") == {}


def test_a_models_name_keeps_the_profiles_way_of_holding_it():
    changes = form_changes("cpu", labeler=" my/encoder ", writer="models/mine")
    assert changes["labeler"].name == "my/encoder"
    assert changes["labeler"].text_prefix == cpu()["labeler"].text_prefix
    assert changes["writer"].weights == cpu()["writer"].weights and "classifier" not in changes
    settings = settings_for("cpu", **changes)
    assert settings.writer.name == "models/mine" and settings.classifier == cpu()["classifier"]


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
    with pytest.raises(UserError, match="epochs=0 must be at least 1"):
        settings_for("cpu", **form_changes("cpu", epochs="0"))
