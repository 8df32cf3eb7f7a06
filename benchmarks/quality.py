"""Adapter against linear baseline over repeated splits of the original reviews, with the pipeline's own stages.

For each repeat the originals are split 80/20, stratified by category (`random_state` 0, 1, …); a tenth of the larger
part picks the best epoch. Synthetic reviews are trained on where their original is. Scores are those of the held-out
originals; intervals are Student's, over the repeats. A repeat that is finished is not done again. To choose settings,
ask for `--inner`: what a repeat would hold out is put away first, and its training rows are split in their place.

    python benchmarks/quality.py --data FOLDER --labels CSV --run none
    python benchmarks/quality.py --data FOLDER --labels CSV --run own --synthetic checkpoints/RUN/synthetic.jsonl
    python benchmarks/quality.py --data FOLDER --labels CSV --run reference --synthetic CSV --set max_tokens=64
    python benchmarks/quality.py --data FOLDER --labels CSV --run rank8 --inner --splits 0 --set lora_rank=8
"""

import argparse
import ast
from pathlib import Path

import pandas as pd
from common import half_width, labelled
from sklearn.model_selection import train_test_split

from sirius_helpers.encoder.scores import ORIGINAL, SCORES
from sirius_helpers.evaluate import evaluate
from sirius_helpers.files.categories import read_categories
from sirius_helpers.files.journal import read_records
from sirius_helpers.files.reviews import review_ids, write_csv
from sirius_helpers.files.runs import Run
from sirius_helpers.files.tables import read_table
from sirius_helpers.settings import Settings, settings_for
from sirius_helpers.split import TEST, TRAIN, VALIDATION, joined, with_examples
from sirius_helpers.train import train


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--data", required=True)
    ask.add_argument("--labels", default="")
    ask.add_argument("--run", required=True, help="the repeats go to checkpoints/<run>-0, -1, …")
    ask.add_argument("--synthetic", type=Path, help="a run's synthetic.jsonl, or the reference's CSV")
    ask.add_argument("--splits", nargs="*", type=int, default=range(5), help="which repeats")
    ask.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings")
    ask.add_argument("--inner", action="store_true", help="an inner fold of the training rows instead")
    given = ask.parse_args()
    changes = {name: ast.literal_eval(value) for name, _, value in (item.partition("=") for item in given.set)}
    rows = []
    for repeat in given.splits:
        run = f"{given.run}-{repeat}"
        settings = settings_for("auto", data=given.data, labels=given.labels, run=run, **changes)
        rows += one_repeat(settings, given.synthetic, repeat, given.inner)
        print(summary(pd.DataFrame(rows)), flush=True)


def one_repeat(settings: Settings, synthetic: Path | None, repeat: int, inner: bool = False) -> list[dict]:
    """Train and score on one split: a row for the baseline and one for the adapter."""
    write_split(labelled(settings), settings, synthetic, repeat, inner)
    train(settings)
    scores = evaluate(settings)["scores"][ORIGINAL]
    return [{"model": model} | {name: scores[model][name]["value"] for name in SCORES} for model in scores]


def write_split(
    originals: pd.DataFrame, settings: Settings, synthetic: Path | None, repeat: int, inner: bool = False
) -> pd.DataFrame:
    """The run's split.csv for one repeat."""
    if inner:
        originals = originals[(parts(originals, repeat) != TEST).to_numpy()].reset_index(drop=True)
    table = joined(originals, read_synthetic(synthetic)) if synthetic else joined(originals, [])
    part = parts(originals, repeat)
    table["part"] = table["source_id"].map(part)
    table = table[~table["synthetic"] | (table["part"] == TRAIN)]
    table = with_examples(table, read_categories(settings.data), settings.near_duplicate)
    write_csv(Run(settings.folder).path("split.csv"), table)
    return table


def parts(originals: pd.DataFrame, repeat: int) -> pd.Series:
    """The part of each original, by its id."""
    rest, test = train_test_split(originals, test_size=0.2, random_state=repeat, stratify=originals["category"])
    several = rest[rest.groupby("category")["id"].transform("size") > 1]
    _, validation = train_test_split(several, test_size=0.1, random_state=repeat, stratify=several["category"])
    part = pd.Series(TRAIN, index=originals["id"])
    part[test["id"]], part[validation["id"]] = TEST, VALIDATION
    return part


def read_synthetic(path: Path) -> list[dict]:
    """Synthetic reviews with their original's id: from a run, or from the reference's file."""
    if path.suffix == ".jsonl":
        return read_records(path)
    table = read_table(path, ["text", "correct_category", "original_review"])
    originals = table["original_review"].drop_duplicates()
    ids = dict(zip(originals, review_ids(originals), strict=True))
    names = {"correct_category": "category"}
    return table.assign(source_id=table["original_review"].map(ids)).rename(columns=names).to_dict("records")


def summary(rows: pd.DataFrame) -> str:
    """Mean, standard deviation and 95 % interval of each score."""
    lines = []
    for model, part in rows.groupby("model"):
        for name in SCORES:
            mean, sd, n = part[name].mean(), part[name].std(), len(part)
            half = half_width(part[name])
            lines.append(f"{model:9} {name:12} {mean:.3f} ± {sd:.3f}  [{mean - half:.3f}, {mean + half:.3f}]  n={n}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
