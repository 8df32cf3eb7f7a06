import json
import sys

import pandas as pd

from sirius_helpers.files.reviews import review_ids
from sirius_helpers.settings import PROJECT, settings_for
from sirius_helpers.split import TEST, TRAIN, VALIDATION

sys.path.insert(0, str(PROJECT / "benchmarks"))
import quality
import submission

ORIGINALS = pd.DataFrame(
    {"id": [f"{name}{n}" for name in "ab" for n in range(30)], "category": ["обувь"] * 30 + ["посуда"] * 30}
)


def test_each_repeat_is_another_stratified_split_of_the_originals():
    first, second = quality.parts(ORIGINALS, 0), quality.parts(ORIGINALS, 1)
    assert first.value_counts().to_dict() == {TRAIN: 43, TEST: 12, VALIDATION: 5}
    assert first.index[first == TEST].str[0].value_counts().to_dict() == {"a": 6, "b": 6}
    assert not first.equals(second) and first.equals(quality.parts(ORIGINALS, 0))


def test_a_category_with_one_review_outside_the_test_part_stays_in_training():
    few = pd.concat([ORIGINALS, pd.DataFrame({"id": ["c0", "c1"], "category": "текстиль"})], ignore_index=True)
    for repeat in range(5):
        part = quality.parts(few, repeat)[["c0", "c1"]]
        assert VALIDATION not in set(part) or (part != TEST).all()


def test_the_references_file_gives_each_synthetic_review_the_id_of_its_original(tmp_path):
    path = tmp_path / "synthetic.csv"
    path.write_text(
        "text,correct_category,original_review\nраз,обувь,сапоги\nдва,обувь,сапоги\nтри,посуда,чашка\n",
        encoding="utf-8",
    )
    rows = quality.read_synthetic(path)
    boots, cup = review_ids(["сапоги", "чашка"])
    assert [(r["text"], r["category"], r["source_id"]) for r in rows] == [
        ("раз", "обувь", boots), ("два", "обувь", boots), ("три", "посуда", cup),
    ]  # fmt: skip
    path = tmp_path / "synthetic.jsonl"
    path.write_text(json.dumps({"text": "раз", "source_id": "a", "fingerprint": "f"}) + "\n", encoding="utf-8")
    assert [row["text"] for row in quality.read_synthetic(path)] == ["раз"]


def test_the_summary_gives_mean_spread_and_interval_of_each_model():
    scores = [{"model": "adapter", "weighted_f1": x, "macro_f1": x / 2, "accuracy": x} for x in (0.8, 0.9, 1.0)]
    line = quality.summary(pd.DataFrame(scores)).splitlines()[0]
    assert line == "adapter   weighted_f1  0.900 ± 0.100  [0.652, 1.148]  n=3"


def test_a_submission_learns_from_every_original():
    originals = ORIGINALS.assign(text=ORIGINALS["id"])
    table = submission.everything(originals, settings_for("cpu"))
    parts = table.groupby("part")["source_id"].agg(set)
    assert parts[TRAIN] == {*originals["id"], "example"} and parts[VALIDATION] < set(originals["id"])
    assert set(table["part"]) == {TRAIN, VALIDATION} and len(parts[VALIDATION]) == 6
