"""What the linear model says about synthetic reviews and doubtful labels: cheap enough to ask on many splits.

`synthetic`: five splits of the originals (those of quality.py, all else in training), synthetic reviews beside
their originals, scored on held-out originals; the difference to none. `labels`: three inner folds of the training rows
of each split, the labels that confident learning doubts dropped, weighted or replaced; the difference to leaving them.
Held-out rows play no part in the second. Brackets hold Student's 95 % interval of the mean over splits or folds.

    python benchmarks/linear.py synthetic --data FOLDER --labels CSV --files FILE …
    python benchmarks/linear.py labels --data FOLDER --labels CSV
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from common import half_width, labelled
from quality import parts, read_synthetic
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold

from sirius_helpers.encoder.embedding import frozen_embeddings
from sirius_helpers.encoder.label_noise import confident_suggestions, out_of_fold
from sirius_helpers.files.categories import labels_of, phrases, read_categories
from sirius_helpers.files.reviews import leak_groups
from sirius_helpers.settings import Settings, settings_for
from sirius_helpers.split import TEST

REPEATS, FOLDS = 5, 3
Scores = dict[str, tuple[float, float]]  # of a way of doing it: weighted and macro F1


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("what", choices=["synthetic", "labels"])
    ask.add_argument("--data", required=True)
    ask.add_argument("--labels", default="")
    ask.add_argument(
        "--files", nargs="*", type=Path, default=[], help="a run's synthetic.jsonl, or the reference's CSV"
    )
    given = ask.parse_args()
    settings = settings_for("auto", data=given.data, labels=given.labels, run="linear")
    originals = labelled(settings)
    examples = pd.DataFrame(phrases(read_categories(settings.data)), columns=["text", "category"])
    tables = {"originals": originals, "examples": examples}
    tables |= {str(path): pd.DataFrame(read_synthetic(path)) for path in given.files}
    texts = [text for table in tables.values() for text in table["text"]]
    vectors = iter(np.split(frozen_embeddings(texts, settings), np.cumsum([len(t) for t in tables.values()])))
    embedded = {name: next(vectors) for name in tables}
    rounds = by_synthetic if given.what == "synthetic" else by_label_noise
    print(differences(list(rounds(tables, embedded, settings))).to_string())


def by_synthetic(tables: dict, vectors: dict, settings: Settings) -> Iterator[Scores]:
    """Each split's scores without synthetic reviews and with each file's."""
    originals, examples = tables.pop("originals"), tables.pop("examples")
    for repeat in range(REPEATS):
        held_out = (parts(originals, repeat) == TEST).to_numpy()
        test = vectors["originals"][held_out], originals["category"][held_out]
        rows = [vectors["originals"][~held_out], vectors["examples"]]
        names = [*originals["category"][~held_out], *examples["category"]]
        found = {"none": scores(np.vstack(rows), names, *test, settings)}
        for name, table in tables.items():
            taught = table["source_id"].isin(originals["id"][~held_out]).to_numpy()
            more = [*names, *table["category"][taught]]
            found[name] = scores(np.vstack([*rows, vectors[name][taught]]), more, *test, settings)
        yield found


def by_label_noise(tables: dict, vectors: dict, settings: Settings) -> Iterator[Scores]:
    """Each inner fold's scores, with the doubtful labels of its training rows left as they are and otherwise."""
    originals, labels = tables["originals"], np.array(labels_of(read_categories(settings.data)))
    for repeat in range(REPEATS):
        ours = (parts(originals, repeat) != TEST).to_numpy()
        rows, all_names = vectors["originals"][ours], originals["category"][ours].to_numpy()
        groups = leak_groups(originals[ours].assign(source_id=originals["id"][ours]), settings.near_duplicate)
        for learned, scored in StratifiedKFold(FOLDS, shuffle=True, random_state=repeat).split(rows, all_names):
            x, names, test = rows[learned], all_names[learned], (rows[scored], all_names[scored])
            chances = out_of_fold(x, names, groups[learned], labels, settings.baseline_c, repeat)
            given = np.array([list(labels).index(name) for name in names])
            suggested = confident_suggestions(chances, given)
            fine = suggested == given
            yield {
                "as they are": scores(x, names, *test, settings),
                "dropped": scores(x[fine], names[fine], *test, settings),
                "half the weight": scores(x, names, *test, settings, np.where(fine, 1, 0.5)),
                "weighted by probability": scores(x, names, *test, settings, chances[np.arange(len(x)), given]),
                "suggested instead": scores(x, labels[suggested], *test, settings),
            }


def scores(x, names, x_test, names_test, settings: Settings, weight=None) -> tuple[float, float]:
    """Weighted and macro F1 of the linear model on other rows."""
    model = LogisticRegression(C=settings.baseline_c, max_iter=2_000).fit(x, list(names), sample_weight=weight)
    guess = model.predict(x_test)
    return tuple(f1_score(list(names_test), guess, average=kind, zero_division=0) for kind in ("weighted", "macro"))


def differences(rounds: list[Scores]) -> pd.DataFrame:
    """The first way's mean scores, and the others' mean difference to it, with 95 % intervals of the means."""
    found = np.array([[way[name] for name in rounds[0]] for way in rounds])  # rounds × ways × scores
    found[:, 1:] -= found[:, :1]
    mean = found.mean(axis=0)
    half = half_width(found)
    table = {}
    for n, score in enumerate(("weighted F1", "macro F1")):
        table[score] = [f"{m:+.3f} [{m - h:+.3f}, {m + h:+.3f}]" for m, h in zip(mean[:, n], half[:, n], strict=True)]
    return pd.DataFrame(table, index=list(rounds[0]))


if __name__ == "__main__":
    main()
