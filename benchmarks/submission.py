"""A submission from every labelled original: the recipe of a run, but nothing held out, so nothing to score it by.

What to expect of it is what `quality.py` finds on repeated splits, where the same recipe learns from 72 % of the rows.

    python benchmarks/submission.py --data FOLDER --labels CSV --run everything
"""

import argparse

import pandas as pd
from common import labelled
from sklearn.model_selection import train_test_split

from sirius_helpers.encoder import trainer
from sirius_helpers.files.categories import read_categories
from sirius_helpers.files.reviews import write_csv
from sirius_helpers.files.runs import Run
from sirius_helpers.predict import predict
from sirius_helpers.settings import Settings, settings_for
from sirius_helpers.split import TRAIN, VALIDATION, joined, with_examples
from sirius_helpers.train import train


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("data", "labels", "run"):
        ask.add_argument(f"--{name}", required=True)
    settings = settings_for("auto", **vars(ask.parse_args()))
    trainer.MIN_EPOCH_SHARE = 1  # the last epoch is kept: there is nothing to choose by
    write_csv(Run(settings.folder).path("split.csv"), everything(labelled(settings), settings))
    train(settings)
    print(predict(settings)["category"].value_counts())


def everything(originals: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """split.csv with all originals and example phrases in training.

    Training wants a validation part too: it is a share of the same rows. So its scores mean nothing, and with the
    temperature fitted on it the confidence is too high.
    """
    table = joined(originals, []).assign(part=TRAIN)
    seen, _ = train_test_split(table, train_size=settings.validation_share, random_state=settings.seed)
    taught = with_examples(table, read_categories(settings.data), settings.near_duplicate)
    return pd.concat([taught, seen.assign(part=VALIDATION)], ignore_index=True)


if __name__ == "__main__":
    main()
