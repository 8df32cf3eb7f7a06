"""Train, validation and test parts after augmentation: the reference's way and a leak-free one.

Writes `split.csv` (text, category, source_id, synthetic, part, and p_<label>, the labels' probabilities where they are
learned from). `test` is held out for the scores, `validation` picks the best checkpoint. The categories' example
phrases join the training part.

    table = split(settings)                # stage "split"
"""

import math
import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import Bounds, LinearConstraint, milp
from sklearn.model_selection import train_test_split

from .errors import UserError
from .files.categories import Category, phrases, read_categories
from .files.journal import read_records
from .files.reviews import (
    BY_HAND,
    EXAMPLE,
    TEST,
    TRAIN,
    VALIDATION,
    leak_groups,
    read_csv,
    read_labels,
    repeating,
    write_csv,
)
from .files.runs import Run, digest, stage_mark, told
from .kinds import Json
from .review import review
from .settings import Settings

UNLIKELY = 0.05  # a category of less probability is not taught


@told
def split(settings: Settings) -> pd.DataFrame:
    """Stage "split": join originals and synthetic reviews, and give each row a part; UserError if none is held out."""
    run = Run(settings.folder, settings)
    labels = review(settings)  # with the latest corrections
    inputs = [run.path("labels.csv"), run.need("synthetic.jsonl")]
    shares = (settings.test_share, settings.validation_share)
    options = [settings.split, shares, settings.near_duplicate, settings.seed]
    taxonomy = read_categories(settings.data)
    chances = soft_labels(read_labels(run), labels).iloc[:, : None if settings.soft_labels else 0]
    mark = stage_mark("split", [digest(path) for path in inputs], phrases(taxonomy), options, chances.to_csv())
    if not run.is_finished("split", mark):
        with run.stage("split", mark):
            table = joined(labels, read_records(inputs[1]))
            if settings.split == "seed":
                table["part"] = seed_parts(table["category"].tolist(), *shares, settings.seed)
            else:
                groups = leak_groups(table, settings.near_duplicate)
                table["part"] = grouped_parts(table, groups, *shares, settings.seed)
            _tell_what_is_not_held_out(table)
            rows = with_examples(table, taxonomy, settings.near_duplicate)
            write_csv(run.path("split.csv"), rows.join(chances, on="source_id").fillna(0.0))
    return read_csv(run.path("split.csv"))


def joined(labels: pd.DataFrame, synthetic: list[Json]) -> pd.DataFrame:
    """Originals, then the synthetic reviews that still fit theirs: columns text, category, source_id, synthetic."""
    category = dict(zip(labels["id"], labels["category"], strict=True))
    fitting = [record for record in synthetic if category.get(record["source_id"]) == record["category"]]
    if left_out := len(synthetic) - len(fitting):
        why = "their originals have another category now or are gone; run 'augment' to have others written"
        print(f"split: {left_out} synthetic reviews are left out, because {why} in their place.")
    originals = labels.rename(columns={"id": "source_id"})[["text", "category", "source_id"]]
    made = pd.DataFrame(fitting, columns=["text", "category", "source_id"])
    return pd.concat([originals.assign(synthetic=False), made.assign(synthetic=True)], ignore_index=True)


def soft_labels(given: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """What the labeler said (`given`) of each label that nobody set by hand: by id, a column p_<label> per category."""
    kept = given[(labels["labeler"] != BY_HAND).to_numpy() & given["probabilities"].notna().to_numpy()]
    rows = pd.DataFrame(kept["probabilities"].tolist(), index=kept["id"]).add_prefix("p_")
    return rows.where(rows >= UNLIKELY, 0).round(2)  # what a batch of another shape changes is far below


def seed_parts(categories: Sequence[str], test_share: float, validation_share: float, seed: int) -> np.ndarray:
    """The reference's way: rows drawn at random, stratified by category; paraphrases may stand on both sides."""
    names = np.asarray(categories)
    parts = np.full(len(names), TRAIN, dtype=object)
    for part, share in ((TEST, test_share), (VALIDATION, validation_share)):
        left = np.flatnonzero(parts == TRAIN)
        counts = Counter(names[left].tolist())
        rows = [i for i in left if counts[names[i]] > 1]
        least = len(set(names[rows]))
        size = max(math.ceil(share * len(left)), least)  # rounds up, as scikit-learn does
        if len(rows) - size >= least:  # or they are too few to stratify, and all stay in train
            _, chosen = train_test_split(rows, test_size=size, random_state=seed, stratify=names[rows])
            parts[chosen] = part
    return parts


def grouped_parts(
    table: pd.DataFrame, groups: np.ndarray, test_share: float, validation_share: float, seed: int
) -> np.ndarray:
    """Whole groups go to one part, stratified by category over the original rows.

    Every category stands in train, and one held by two or more groups in test too. Validation takes from train.
    """
    originals = ~table["synthetic"].to_numpy()
    home = {}  # group -> its originals' most frequent category
    sizes = {}  # group -> how many originals
    holders: dict[str, list[int]] = {}  # category -> groups with an original of it
    for group, names in table["category"][originals].groupby(groups[originals]):
        counts = Counter(names)
        home[group], sizes[group] = min(counts, key=lambda name: (-counts[name], name)), len(names)
        for name in counts:
            holders.setdefault(name, []).append(group)
    part_of = dict.fromkeys(home, TRAIN)
    for part, share in ((TEST, test_share), (VALIDATION, validation_share)):
        for category in sorted(set(home.values())):
            left = sorted(g for g in home if home[g] == category and part_of[g] == TRAIN)
            random.Random(f"{seed}:{part}:{category}").shuffle(left)
            part_of |= dict.fromkeys(_take({g: sizes[g] for g in left}, share), part)
        if part == TEST:
            test = _on_both_sides(sizes, list(holders.values()), {g for g in home if part_of[g] == TEST})
            part_of = {g: TEST if g in test else TRAIN for g in home}
    for held in holders.values():  # a group of another home may have been the last in train
        if all(part_of[g] != TRAIN for g in held):
            part_of[min((g for g in held if part_of[g] == VALIDATION), key=sizes.__getitem__)] = TRAIN
    return np.array([part_of[group] for group in groups], dtype=object)


def _take(sizes: dict[int, int], share: float) -> list[int]:
    """Groups, in the given order, that make up about `share` of the rows: never none of several, never all."""
    wanted = max(1, round(share * sum(sizes.values())))
    taken: list[int] = []
    rows = 0
    for group, size in sizes.items():
        fits = rows + size <= wanted or not taken and size == min(sizes.values())
        if fits and len(taken) + 1 < len(sizes):
            taken.append(group)
            rows += size
    return taken


def _on_both_sides(sizes: dict[int, int], holders: list[list[int]], test: set[int]) -> set[int]:
    """The test groups, with as few rows moved as possible, so that each category has a group on either side.

    An integer program: x, the groups in test, and y, the categories seen there. A category never loses its last group
    in train; where duplicates tie categories so that not all can be in test, as many as possible are.
    """
    inside = [sum(g in test for g in held) for held in holders]
    if all(min(1, len(held) - 1) <= n < len(held) for n, held in zip(inside, holders, strict=True)):
        return test
    groups, width = sorted(sizes), len(holders)
    holds = np.array([np.isin(groups, held) for held in holders], dtype=float)
    rows, drawn = np.array([sizes[g] for g in groups]), np.isin(groups, list(test))
    cost = np.concatenate([np.where(drawn, -rows, rows), np.full(width, -rows.sum() - 1)])
    some_in_train = LinearConstraint(np.hstack([holds, np.zeros((width, width))]), ub=holds.sum(1) - 1)
    seen_in_test = LinearConstraint(np.hstack([holds, -np.eye(width)]), lb=0)
    found = milp(cost, integrality=np.ones(len(cost)), bounds=Bounds(0, 1), constraints=[some_in_train, seen_in_test])
    return {g for g, x in zip(groups, found.x, strict=False) if x > 0.5}


def _tell_what_is_not_held_out(table: pd.DataFrame) -> None:
    originals = table[~table["synthetic"]]
    held_out = set(originals["category"][originals["part"] == TEST])
    if not held_out:
        raise UserError(
            f"none of the {len(originals)} original reviews falls into the test part, so no score could be computed. "
            "Label more reviews (with split='grouped' two that differ in a category are enough) or raise test_share."
        )
    if missing := sorted(set(originals["category"]) - held_out):
        print(f"split: no original review of {', '.join(missing)} is held out: too few, or copies of other reviews.")


def with_examples(table: pd.DataFrame, taxonomy: list[Category], near_duplicate: float) -> pd.DataFrame:
    """Below the table the example phrases that repeat no row held out, as training rows of the source "example"."""
    rows = pd.DataFrame(phrases(taxonomy), columns=["text", "category"])
    rows = rows.assign(source_id=EXAMPLE, synthetic=True, part=TRAIN)
    held_out = table.loc[table["part"] != TRAIN, "text"].tolist()
    repeats = repeating(rows["text"].tolist(), held_out, near_duplicate)
    return pd.concat([table, rows.drop(index=list(repeats))], ignore_index=True)
