import io

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import style
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

from sirius_helpers.show import pictures
from sirius_helpers.show.pictures import BLUE, GREEN, GREY, INK, ORANGE, PAPER, png

LABELS = ["обувь", "посуда", "украшения и аксессуары"]
HISTORY = pd.DataFrame(
    {
        "epoch": [1.0, 2.0, 3.0],
        "train_loss": [1.0, 0.5, 0.4],
        "validation_loss": [1.0, 0.9, 0.95],
        "weighted_f1": [0.5, 0.7, 0.6],
        "macro_f1": [0.4, 0.5, 0.5],
        "kept": [False, True, False],
    }
)
ROWS = pd.DataFrame(
    {
        "category": ["обувь", "обувь", "посуда", "посуда"],
        "predicted": ["обувь", "посуда", "посуда", "посуда"],
        "raw_confidence": [0.6, 0.5, 0.7, 0.65],
        "confidence": [0.96, 0.55, 0.99, 0.9],
    }
)


def found(f1):
    return {"per_class": {name: {"rows": n, "f1": f1, "low": 0.1, "high": 0.9} for n, name in enumerate(LABELS, 1)}}


MODELS = {"adapter": found(0.6), "baseline": found(0.4)}


def all_figures():
    """Every picture there is."""
    return {
        "curves": pictures.curves(HISTORY),
        "confusion": pictures.confusion(ROWS["category"], ROWS["predicted"], LABELS),
        "per_class": pictures.per_class(MODELS),
        "confidence": pictures.confidence(ROWS),
        "margins": pictures.margins(pd.Series([0.05, 0.5, 0.9])),
        "growth": pictures.before_and_after(ROWS["category"], pd.Series(["посуда"] * 5)),
        "reasons": pictures.reasons(pd.Series(["too_long", "refusal", "too_long"])),
    }


def test_pictures_have_their_own_paper_and_readable_ink_whatever_the_users_style():
    plain = {name: png(figure) for name, figure in all_figures().items()}
    with style.context("dark_background"), matplotlib.rc_context({"savefig.transparent": True, "font.family": "serif"}):
        assert plain == {name: png(figure) for name, figure in all_figures().items()}
    for name, data in plain.items():
        pixels = imread(io.BytesIO(data), format="png")
        assert pixels[..., 3].min() == 1, name  # opaque
        assert pixels[0, 0, :3] == pytest.approx(to_rgb(PAPER), abs=0.01), name
        assert np.ptp(pixels[..., :3]) > 0.7, name  # ink far from paper


def linear(colour):
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]


def luminance(colour):
    return np.dot(linear(colour), [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    """As the web's accessibility guidelines (WCAG) define it, 1 to 21."""
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def test_text_and_marks_stand_out_from_the_paper():
    assert contrast(INK, PAPER) > 7 and contrast(PAPER, BLUE) > 4.5  # text on a cell of full blue
    assert all(contrast(colour, PAPER) > 3 for colour in (BLUE, ORANGE, GREEN, GREY))


# Machado, Oliveira and Fernandes (2009): linear RGB as seen without red, green or blue cones.
BLINDNESS = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize(("other", "distance"), [(BLUE, 0.3), (GREEN, 0.2)])
@pytest.mark.parametrize("kind", BLINDNESS)
def test_colours_that_stand_beside_each_other_differ_for_colour_blind_readers(kind, other, distance):
    seen = [np.clip(np.array(BLINDNESS[kind]) @ linear(colour), 0, 1) for colour in (other, ORANGE)]
    assert np.linalg.norm(seen[0] - seen[1]) > distance


def test_every_cyrillic_letter_has_a_glyph(recwarn):
    letters = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя АБВГДЕЁЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ"
    png(pictures.confusion([letters], [letters], [letters, "обувь"]))
    assert not [w for w in recwarn if "missing" in str(w.message)]


def test_the_confusion_matrix_counts_by_label_and_prediction():
    figure = pictures.confusion(["обувь", "обувь", "посуда"], ["обувь", "посуда", "посуда"], ["обувь", "посуда"])
    axes = figure.axes[0]
    assert [(text.get_position(), text.get_text()) for text in axes.texts] == [
        ((0, 0), "1"),
        ((1, 0), "1"),
        ((1, 1), "1"),
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["обувь (2)", "посуда (1)"]


def test_the_best_epoch_is_marked_on_the_curves():
    legend = pictures.curves(HISTORY).axes[1].get_legend()
    assert "best: epoch 2" in [text.get_text() for text in legend.get_texts()]


def test_categories_stand_by_their_number_of_reviews_the_most_frequent_on_top():
    axes = pictures.per_class(MODELS).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "украшения и аксессуары (3)"
    assert [line.get_xdata()[0] for line in axes.lines] == [0.6, 0.4]


def test_thresholds_too_close_to_each_other_are_not_labelled_twice():
    same = ROWS.assign(confidence=0.97)
    assert [text.get_text() for text in pictures.confidence(same).axes[1].texts] == ["all"]
    apart = [text.get_text() for text in pictures.confidence(ROWS).axes[1].texts]
    assert apart[0] == "all" and "≥ 0.95" in apart


def test_the_report_holds_its_pictures(tmp_path):
    pictures.save_report(tmp_path / "report", ROWS, LABELS, HISTORY, MODELS)
    names = {"curves", "confusion", "per_class", "confidence"}
    assert {path.stem for path in (tmp_path / "report").iterdir()} == names
    assert all(np.ptp(imread(path)) > 0.5 for path in (tmp_path / "report").iterdir())


def test_figures_need_no_plotting_backend():
    assert all(isinstance(figure, Figure) for figure in all_figures().values())


def test_counts_before_and_after_stand_by_size_and_say_both_numbers():
    originals = pd.Series(["обувь"] * 30 + ["посуда"] * 2)
    axes = pictures.before_and_after(originals, pd.Series(["посуда"] * 18)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["посуда", "обувь"]
    assert [text.get_text() for text in axes.texts] == ["2 → 20", "30"]


def test_margins_count_the_labels_whose_second_choice_is_close():
    axes = pictures.margins(pd.Series([0.0, 0.19, 0.2, 1.0])).axes[0]
    assert [text.get_text() for text in axes.texts] == ["2 of 4 below 0.2"]


def test_reasons_stand_by_number_the_most_frequent_on_top():
    axes = pictures.reasons(pd.Series(["copy", "refusal", "refusal"])).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["copy", "refusal"]
    assert [text.get_text() for text in axes.texts] == ["1", "2"]
