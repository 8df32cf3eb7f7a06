"""What labels are worth: learned from as they are or as probabilities, and set right by a person, in which order.

The reviews that people labelled are labelled anew by a profile's labeler, and a linear model learns from two thirds of
them and from the example phrases; it is scored on the rest against people, or against the labels in `--truth`. These
choose nothing here: `soft` compares ways of learning, `curve` plays a person who corrects the first labels of an order.
Each mean has half of Student's 95 % interval beside it, over the random parts.

    python benchmarks/corrections.py soft
    python benchmarks/corrections.py soft --profile chat --data FOLDER --truth CSV --reviews 600
    python benchmarks/corrections.py curve --picture docs/corrections.png
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from common import half_width
from matplotlib.figure import Figure
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split

from sirius_helpers.encoder.embedding import fit_linear, frozen_embeddings
from sirius_helpers.encoder.label_noise import out_of_fold, second_opinions
from sirius_helpers.encoder.scores import calibrated
from sirius_helpers.files.categories import labels_of, phrases, read_categories
from sirius_helpers.files.reviews import read_labelled
from sirius_helpers.llm.labelers import loaded_labeler
from sirius_helpers.llm.quotas import most_multiplied
from sirius_helpers.review import contradicted
from sirius_helpers.settings import PROJECT, Settings, settings_for
from sirius_helpers.split import UNLIKELY

PARTS, COUNTS = 30, (0, 25, 50, 100, 150)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("what", choices=["soft", "curve"])
    ask.add_argument("--data", default=str(PROJECT / "data" / "sample"), help="a folder with categories")
    ask.add_argument("--truth", type=Path, help="labels to score against; otherwise the folder's human_labels.csv")
    ask.add_argument("--profile", default="cpu", help="whose labeler is asked")
    ask.add_argument("--reviews", type=int, help="so many, drawn at random")
    ask.add_argument("--picture", type=Path)
    given = ask.parse_args()
    settings = settings_for(given.profile, data=given.data, run="corrections")
    sample = Sample(settings, given.truth or settings.data / "human_labels.csv", given.reviews)
    print(f"labels as in the truth: {np.mean(sample.given == sample.truth):.3f} of {len(sample.truth)}")
    rows = pd.DataFrame((soft if given.what == "soft" else curve)(sample), columns=["way", "labels", "part", "score"])
    table = rows.groupby(["way", "labels"], sort=False)["score"].agg(["mean", half_width]).round(3)
    print(table.to_string())
    if given.picture:
        drawn(table).savefig(given.picture, dpi=110, bbox_inches="tight")


class Sample:
    """Reviews with what the truth and the labeler say of them, and all texts as vectors."""

    def __init__(self, settings: Settings, truth: Path, count: int | None) -> None:
        taxonomy = read_categories(settings.data)
        right = pd.Series(read_labelled(truth, taxonomy))
        right = right.sample(count, random_state=1) if count else right
        right = right[right.map(right.value_counts()) > 1]  # a single one cannot be in both parts
        self.settings, self.known, self.labels = settings, phrases(taxonomy), labels_of(taxonomy)
        self.texts, self.truth = right.index.tolist(), right.to_numpy(dtype=object)
        self.chances = np.zeros((len(self.texts), len(self.labels)))
        with loaded_labeler(taxonomy, settings) as labeler:
            labeler(self.texts, self._keep)
        self.given = np.array(self.labels, dtype=object)[self.chances.argmax(1)]
        vectors = frozen_embeddings([*self.texts, *(text for text, _ in self.known)], settings)
        self.vectors, self.taught = np.split(vectors, [len(self.texts)])

    def _keep(self, batch: list[int], rows: np.ndarray) -> None:
        self.chances[batch] = rows

    def hard(self, names) -> np.ndarray:
        return (np.asarray(names, dtype=object)[:, None] == np.array(self.labels, dtype=object)).astype(float)

    def parts(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        for number in range(PARTS):
            everyone = np.arange(len(self.texts))
            yield number, *train_test_split(everyone, test_size=1 / 3, random_state=number, stratify=self.truth)

    def score(self, learned: np.ndarray, targets: np.ndarray, asked: np.ndarray) -> float:
        """Weighted F1 against people of a model that learns these targets, (rows, labels), and the phrases."""
        targets = np.vstack([targets, self.hard([name for _, name in self.known])])
        row, label = targets.nonzero()
        names, rows = [self.labels[i] for i in label], np.vstack([self.vectors[learned], self.taught])[row]
        model = fit_linear(rows, names, self.labels, self.settings.baseline_c, targets[row, label])
        guess = np.array(self.labels, dtype=object)[model(self.vectors[asked]).argmax(1)]
        return f1_score(list(self.truth[asked]), list(guess), average="weighted", zero_division=0)


def soft(sample: Sample) -> Iterator[tuple]:
    """Hard, smoothed and soft labels, these also sharper and flatter than the labeler's own calibration says."""
    for number, learned, asked in sample.parts():
        hard = sample.hard(sample.given[learned])
        ways = {"hard": hard, "smoothed by 0.1": 0.9 * hard + 0.1 / len(sample.labels)}
        for name, factor in (("soft, temperature halved", 0.5), ("soft", 1.0), ("soft, temperature doubled", 2.0)):
            rows = calibrated(sample.chances[learned], factor)
            ways[name] = np.where(rows >= UNLIKELY, rows, 0)
        ways["soft, smoothed by 0.1"] = 0.9 * ways["soft"] + 0.1 / len(sample.labels)
        ways["the right labels"] = sample.hard(sample.truth[learned])
        scores = {name: sample.score(learned, targets, asked) for name, targets in ways.items()}
        for name, score in scores.items():
            yield name, "score", number, score
            yield name, "difference to hard", number, score - scores["hard"]


def curve(sample: Sample) -> Iterator[tuple]:
    """Scores after so many labels of each order were set right."""
    for number, learned, asked in sample.parts():
        for name, order in orders(sample, learned, number).items():
            for count in COUNTS:
                targets = sample.chances[learned].copy()
                targets[targets < UNLIKELY] = 0
                targets[order[:count]] = sample.hard(sample.truth[learned][order[:count]])
                yield name, count, number, sample.score(learned, targets, asked)


def orders(sample: Sample, learned: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """The learned rows in the orders in which a person may look at them."""
    given, chances = sample.given[learned], np.sort(sample.chances[learned], axis=1)
    margin = chances[:, -1] - chances[:, -2]
    mine = [sample.labels.index(name) for name in given]
    unseen = out_of_fold(
        sample.vectors[learned], given, np.arange(len(given)), sample.labels, sample.settings.baseline_c, seed
    )
    table = pd.DataFrame({"id": learned.astype(str), "text": [sample.texts[i] for i in learned], "category": given})
    table = table.assign(probabilities=None, labeler="few-shot")
    against = table["id"].isin(contradicted(second_opinions(table, sample.known, sample.settings), table)).to_numpy()
    rare = table["category"].isin(most_multiplied(list(given))).to_numpy()
    return {
        "at random": np.random.default_rng(seed).permutation(len(learned)),
        "least margin": np.argsort(margin),
        "most doubt (out of fold)": np.argsort(unseen[np.arange(len(given)), mine]),
        "rare first": np.lexsort((margin, ~rare)),
        "contradicted rare labels, then least margin": np.lexsort((margin, ~(rare & against))),
        "contradicted labels, then least margin": np.lexsort((margin, ~against)),
    }


def drawn(table: pd.DataFrame) -> Figure:
    """Mean scores by how many labels were set right."""
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    for (name, part), marker in zip(table.groupby(level=0, sort=False), "osD^vP", strict=True):
        axes.plot(part.index.get_level_values(1), part["mean"], marker=marker, label=name)
    axes.set(xlabel="labels set right by a person, of 240", ylabel="weighted F1 against people, other reviews")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    main()
