import io

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.image import imread

from sirius_helpers import pictures

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


def all_figures():
    return {
        "curves": pictures.curves(HISTORY),
        "confusion": pictures.confusion(ROWS["category"], ROWS["predicted"], LABELS),
        "per_class": pictures.per_class({"adapter": found(0.6), "baseline": found(0.4)}),
        "confidence": pictures.confidence(ROWS),
    }


@pytest.mark.parametrize("theme", ["default", "dark_background"])
def test_pictures_are_dark_on_white_whatever_the_users_style(theme):
    with style.context(theme), matplotlib.rc_context({"savefig.transparent": True}):
        data = {name: pictures.png(figure) for name, figure in all_figures().items()}
    for name, png in data.items():
        pixels = imread(io.BytesIO(png), format="png")
        assert pixels[..., 3].min() == 1, name  # opaque
        assert (pixels[0, 0, :3] == 1).all() and pixels[..., :3].min() < 0.2, name
    assert data == {name: pictures.png(figure) for name, figure in all_figures().items()}


def test_every_cyrillic_letter_has_a_glyph(recwarn):
    letters = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя АБВГДЕЁЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ"
    pictures.png(pictures.confusion([letters], [letters], [letters, "обувь"]))
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
    axes = pictures.per_class({"adapter": found(0.6), "baseline": found(0.4)}).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "украшения и аксессуары (3)"
    assert [line.get_xdata()[0] for line in axes.lines] == [0.6, 0.4]


def test_thresholds_too_close_to_each_other_are_not_labelled_twice():
    same = ROWS.assign(confidence=0.97)
    assert [text.get_text() for text in pictures.confidence(same).axes[1].texts] == ["all"]
    apart = [text.get_text() for text in pictures.confidence(ROWS).axes[1].texts]
    assert apart[0] == "all" and "≥ 0.95" in apart


def test_the_report_holds_a_file_for_each_picture(tmp_path):
    models = {"adapter": found(0.6), "baseline": found(0.4)}
    pictures.save_report(tmp_path / "report", ROWS, LABELS, HISTORY, models)
    assert {path.stem for path in (tmp_path / "report").iterdir()} == set(all_figures())
    assert all(np.ptp(imread(path)) > 0.5 for path in (tmp_path / "report").iterdir())


def test_figures_need_no_plotting_backend():
    assert all(isinstance(figure, Figure) for figure in all_figures().values())
