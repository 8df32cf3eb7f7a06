"""Tables of reviews, labels and corrections, and CSV files of our own; which reviews are copies, or nearly.

Row numbers in messages count from 1 without the header, because a review may hold line breaks.

    train = read_reviews(settings.data / "train.csv")      # columns id, text
    labels = read_csv(run.need("labels.csv"))              # what `write_csv` wrote
"""

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rapidfuzz import fuzz, process
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..errors import UserError
from ..kinds import Json
from ..settings import Settings
from .categories import Category, by_any_name, labels_named, read_categories
from .decoding import composed, read_text, tell
from .journal import read_records, write_atomically
from .lock import run_lock
from .runs import Run
from .tables import listed, numbered, read_table

CORRECTIONS = "corrections.csv"  # id or text, category: a run's labels set right by hand
BY_HAND = "corrected by hand"  # the labeler of a corrected label
TRAIN, VALIDATION, TEST = PARTS = ("train", "validation", "test")  # of split.csv
EXAMPLE = "example"  # the source_id of a category's own phrase
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e\+?\d+)?")
_MISSING = re.compile(r"\s*(?:nan|none|null|<na>)?\s*", re.IGNORECASE)  # as programs write a text that is not there
# Columns beside text in the exports of Label Studio and doccano that are not the category.
BOOKKEEPING = {"id", "annotation_id", "annotator", "created_at", "updated_at", "lead_time", "comments"}
# Columns of our own tables that hold text, also where it looks like a number or like nothing.
WORDS = ["id", "text", "category", "labeler", "source_id", "part", "predicted", "suggested"]
WORDS += ["other", "nearest", "phrase"]


def read_reviews(path: Path) -> pd.DataFrame:
    """Training reviews: columns id, text. Rows without text are left out, and it says so."""
    table = _with_text(path, read_table(path, ["text"]))
    return pd.DataFrame({"id": review_ids(table["text"]), "text": table["text"]}).reset_index(drop=True)


def read_labels(run: Run) -> pd.DataFrame:
    """What the labeler said: columns id, text, category, labeler, probabilities (a dictionary), margin."""
    return pd.DataFrame(read_records(run.need("labels.jsonl")))


def read_texts(path: Path) -> list[str]:
    """Texts to classify: every row, in order, empty ones too, because each gets a prediction."""
    return read_table(path, ["text"])["text"].tolist()


def review_ids(texts: Iterable[str]) -> list[str]:
    """An id for each text, from the text alone, so that adding rows changes no other row's id.

    One that a spreadsheet would take for a number gets a letter in front; a repeated text gets -2, -3, … after it.
    """
    hashes = (hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12] for text in texts)
    stems = pd.Series([f"r{stem}" if _NUMBER.fullmatch(stem) else stem for stem in hashes])
    earlier = stems.groupby(stems).cumcount()
    return [stem if not n else f"{stem}-{n + 1}" for stem, n in zip(stems, earlier, strict=True)]


def normalised(text: str) -> str:
    """A text without case, spacing and ways of writing a letter: what makes two copies of one review equal."""
    return composed(text).casefold()


def leak_groups(table: pd.DataFrame, threshold: float) -> np.ndarray:
    """A group number for each row: an original, its paraphrases, and all near-duplicates of any of them."""
    source = pd.factorize(table["source_id"])[0]
    first = pd.Series(range(len(table))).groupby(source).transform("first")
    links = [*enumerate(first), *near_duplicates(table["text"].tolist(), threshold)]
    graph = coo_array((np.ones(len(links)), tuple(np.array(links).T)), shape=(len(table), len(table)))
    groups: np.ndarray = connected_components(graph, directed=False)[1]
    return groups


def near_duplicates(texts: Sequence[str], threshold: float, block: int = 1_000) -> Iterator[tuple[int, int]]:
    """Pairs of positions whose normalised texts have a rapidfuzz ratio (0..100) of `threshold` or more.

    The ratio is 2·m / (a + b) with m at most the shorter length, so each block of the texts, sorted by length, meets
    the rows up to the length where the threshold is out of reach.
    """
    order = sorted(range(len(texts)), key=lambda i: len(normalised(texts[i])))
    plain = [normalised(texts[i]) for i in order]
    lengths = np.array([len(text) for text in plain])
    reach = lengths * (200 - threshold) / threshold if threshold else np.full(len(plain), np.inf)
    for start in range(0, len(plain), block):
        rows = plain[start : start + block]
        others = plain[start : int(np.searchsorted(lengths, reach[start + len(rows) - 1], side="right"))]
        scores = process.cdist(rows, others, scorer=fuzz.ratio, score_cutoff=threshold, workers=-1)
        for one, other in zip(*np.nonzero(np.triu(scores >= threshold, k=1)), strict=True):
            yield order[start + one], order[start + other]


def repeating(texts: Sequence[str], others: Sequence[str], threshold: float) -> set[int]:
    """Positions of the texts that nearly repeat one of the others."""
    pairs = near_duplicates([*texts, *others], threshold)
    return {min(pair) for pair in pairs if min(pair) < len(texts) <= max(pair)}


def read_labelled(path: Path, taxonomy: list[Category]) -> dict[str, str]:
    """Labels somebody else made, in a CSV or an annotation tool's export: normalised text -> category.

    The category, or its alias, stands in the column `category` or the only one beside `text`. UserError where one is
    lacking or annotators disagree.
    """
    table = _exported(path) if path.suffix in (".json", ".jsonl") else read_table(path, ["text"])
    others = [name for name in table.columns if name != "text" and name not in BOOKKEEPING]
    if "category" not in others and len(others) != 1:
        raise UserError(f"{path} needs a column 'category' beside 'text'; it has {listed(list(table.columns))}.")
    table = _with_text(path, table.rename(columns={} if "category" in others else {others[0]: "category"}))
    keys, given = table["text"].map(normalised), table["category"].str.strip()
    blank = given == ""
    lacking = given.index[blank & ~keys.isin(keys[~blank])] + 1
    keys, given = keys[~blank], given[~blank]
    names, rows = by_any_name(taxonomy), given.index + 1
    labels = labels_named(given, names, lambda wrong: f"{path}, {numbered(rows[[n - 1 for n in wrong]])}")
    found = pd.DataFrame({"label": labels, "row": rows}, index=keys)
    several = found.groupby(level=0)["label"].nunique()
    faults = [f"no category in {numbered(lacking)}"] * (len(lacking) > 0)
    faults += [
        f"several for the text of {numbered(found['row'][key])} ({', '.join(found['label'][key])})"
        for key in several.index[several > 1]
    ]
    if faults:
        raise UserError(
            f"{path}: {'; '.join(faults[:8])}{'; …' * (len(faults) > 8)}. Leave each text one category; a text that is "
            "to have none goes, from train.csv too where these are LABELS."
        )
    if blank.any():
        print(f"{path.name}: {blank.sum()} rows without a category left out: other rows have one for their texts.")
    for (name, label), count in Counter(zip(given, labels, strict=True)).items():
        if name != label:
            print(f"{path.name}: {count} x {name!r} filed under {label!r}.")
    return dict(zip(keys, labels, strict=True))


def _with_text(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The rows that have a text, under the numbers that they had."""
    blank = table["text"].map(lambda text: bool(_MISSING.fullmatch(text)))
    if blank.all():
        raise UserError(f"{path}: every cell of the column 'text' is empty.")
    if blank.any():
        print(f"{path.name}: {blank.sum()} rows without text left out ({numbered(table.index[blank] + 1)}).")
    return table[~blank]


def _exported(path: Path) -> pd.DataFrame:
    """Columns of text from an export of Label Studio or doccano; a row per annotation, its categories joined by #."""
    text, notes = read_text(path)
    tell(path, notes)
    if not text.lstrip().startswith("["):  # an object per line
        text = "[" + ",\n".join(line for line in text.split("\n") if line.strip()) + "]"
    try:
        rows = [row for record in json.loads(text) for row in _annotations(record)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is no export of Label Studio or doccano ({error}). Export it again.") from None
    table = pd.DataFrame(rows).fillna("")
    if "text" not in table:
        raise UserError(f"{path} has no 'text'; it has {listed(list(table.columns))}. Give the text that name there.")
    return table


def _annotations(record: Json) -> list[Json]:
    """The rows of one record: of Label Studio's JSON the annotations that were not cancelled, or a blank one."""
    if "annotations" not in record:
        return [{name.casefold(): _cell(value) for name, value in record.items()}]
    given = [found["result"] for found in record["annotations"] if not found.get("was_cancelled")]
    choices = [[name for part in result for name in part["value"].get("choices", [])] for result in given]
    return [{"text": _cell(record["data"].get("text")), "category": _cell(names)} for names in choices or [[]]]


def _cell(value: object) -> str:
    if isinstance(value, dict) and "choices" in value:
        value = value["choices"]
    return "#".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def read_corrections(path: Path, taxonomy: list[Category], reviews: pd.DataFrame) -> dict[str, str]:
    """The id of each corrected review -> its category by hand, the later of two; `reviews` have id and text."""
    table = read_table(path, ["category"])
    key = key_column(table, path)
    labels = labels_named(table["category"], by_any_name(taxonomy), lambda rows: f"{path}, {numbered(rows)}")
    # Ids of older runs had no letter in front, which keeps spreadsheets from taking them for numbers.
    plain = (lambda id: normalised(id).removeprefix("r")) if key == "id" else normalised
    ids = {str(value): list(found) for value, found in reviews["id"].groupby(reviews[key].map(plain))}
    hits = [ids.get(plain(value), []) or (_shown_as(value, ids) if key == "id" else []) for value in table[key]]
    if wrong := {row: table[key][row - 1] for row, found in enumerate(hits, start=1) if not found}:
        raise UserError(
            f"{path}, {numbered(wrong)}: no review has the {key} {listed([*wrong.values()])}; correct the row: ids and "
            "texts stand in labels.csv."
        )
    if rewritten := sum(plain(value) not in ids for value in table[key]):
        print(f"{path.name}: {rewritten} ids that a spreadsheet took for numbers found all the same.")
    return {i: label for found, label in zip(hits, labels, strict=True) for i in found}


def _shown_as(value: str, ids: dict[str, list[str]]) -> list[str]:
    """The only review whose id a spreadsheet shows as this number: without leading zeros, with six digits or more."""
    shown = value.strip().lower().replace(",", ".")
    if not _NUMBER.fullmatch(shown):
        return []
    digits = max(6, len(re.sub(r"e.*|\D", "", shown)))
    alike = [i for i in ids if _NUMBER.fullmatch(i) and float(f"{float(i):.{digits - 1}e}") == float(shown)]
    return ids[alike[0]] if len(alike) == 1 else []


def key_column(corrections: pd.DataFrame, path: Path) -> str:
    """The column that says which review a row is about."""
    for name in ("id", "text"):
        if name in corrections.columns:
            return name
    raise UserError(f"{path} needs a column 'id' or 'text' beside 'category'.")


def corrected(settings: Settings) -> dict[str, str]:
    """The id of each review that was corrected so far -> its category by hand."""
    run = Run(settings.folder)
    if not run.path(CORRECTIONS).exists():
        return {}
    return read_corrections(run.path(CORRECTIONS), read_categories(settings.data), read_labels(run))


def correct(settings: Settings, id: str, category: str) -> pd.DataFrame:
    """Write a review's right category down, in place of an earlier correction; returns all, columns as in the file."""
    run = Run(settings.folder)
    texts = read_labels(run).set_index("id")["text"]
    if id not in texts:
        raise UserError(f"no review has the id {id!r}; see the column id of the labels.")
    (right,) = labels_named([category], by_any_name(read_categories(settings.data)), lambda _: f"review {id}")
    path, row = run.path(CORRECTIONS), {"id": id, "text": texts[id], "category": right}
    with run_lock(run.folder):
        table = read_table(path, ["category"]) if path.exists() else pd.DataFrame(columns=["id", "category"])
        key = key_column(table, path)
        table = table[table[key].map(normalised) != normalised(row[key])].reset_index(drop=True)
        table.loc[len(table)] = [row.get(name, "") for name in table.columns]
        write_csv(path, table)
    return table


def correct_new(settings: Settings, right: Mapping[str, str]) -> None:
    """`correct` for each id that has no correction yet: done once more, this undoes nobody's later choice."""
    given = corrected(settings)
    for id, category in right.items():
        if id not in given:
            correct(settings, id, category)
        elif given[id] != category:
            print(f"{id} stays {given[id]!r}: it was corrected before, and CORRECT does not undo that.")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table in one step, so that a killed run leaves no half of it."""
    text = table.to_csv(index=False, lineterminator="\n")
    if "\r" in text:  # Python before 3.13 leaves a cell with a lone carriage return unquoted
        text = table.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    write_atomically(path, text.encode("utf-8", "surrogatepass"))


def read_csv(
    path: Path, columns: list[str] | None = None, skiprows: Callable[[int], bool] | None = None
) -> pd.DataFrame:
    """A table that `write_csv` wrote: texts to the letter (WORDS), the rest as numbers and truth values."""
    types = dict.fromkeys(WORDS, str)
    return pd.read_csv(path, usecols=columns, keep_default_na=False, dtype=types, skiprows=skiprows)
