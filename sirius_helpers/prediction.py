"""Predictions for the test file, and the submission.

Writes `predictions.csv` (text, category, probability of every label) and `submission.csv`.

    predictions = predict(settings)        # stage "predict"
"""

from __future__ import annotations

import pandas as pd

from .classifier import Classifier
from .journal import fingerprint
from .reviews import read_texts, write_csv, write_submission
from .runs import Run, digest
from .settings import Settings


def predict(settings: Settings) -> pd.DataFrame:
    """Stage "predict": a category for every row of test.csv, in order."""
    run = Run(settings.folder)
    source = settings.data / "test.csv"
    texts = read_texts(source)
    mark = fingerprint("predict", digest(run.need("adapter")), digest(source))
    if run.is_finished("predict", mark):
        return pd.read_csv(run.path("predictions.csv"), keep_default_na=False)
    with run.stage("predict", mark, ["predictions.csv", "submission.csv"]):
        with Classifier.load(run.path("adapter"), settings.device) as classifier:
            rows = classifier(texts, settings.tokens_per_batch, what="predict")
            labels = classifier.labels
        best = rows.argmax(1)
        table = pd.DataFrame({"text": texts, "category": [labels[i] for i in best], "confidence": rows.max(1)})
        table[[f"p_{name}" for name in labels]] = rows
        write_csv(run.path("predictions.csv"), table.round(6))
        write_submission(run.path("submission.csv"), table["category"])
    return table
