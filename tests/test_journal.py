import json

import pytest

from sirius_helpers.errors import UserError
from sirius_helpers.journal import Journal, fingerprint, read_records, write_atomically


def numbers(journal):
    return [record["n"] for record in journal.records]


def test_records_survive_reopening(tmp_path):
    journal = Journal(tmp_path / "a.jsonl", "f1")
    journal.append([{"n": 1, "text": "ёж 🦔"}])
    journal.append([{"n": 2}, {"n": 3}])
    again = Journal(tmp_path / "a.jsonl", "f1")
    assert again.records == journal.records and numbers(again) == [1, 2, 3]
    assert again.records[0]["text"] == "ёж 🦔"


def test_a_torn_file_loses_only_its_unfinished_batch_at_every_byte(tmp_path):
    path = tmp_path / "a.jsonl"
    whole = Journal(path, "f1")
    whole.append([{"n": 1, "text": "первый"}])
    first = path.stat().st_size
    whole.append([{"n": 2, "text": "второй"}, {"n": 3, "text": "третий"}])
    data = path.read_bytes()
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        journal = Journal(path, "f1")
        expected = [1, 2, 3] if cut == len(data) else [1] if cut >= first else []
        assert numbers(journal) == expected, cut
        journal.append([{"n": 9}])
        assert numbers(Journal(path, "f1")) == [*expected, 9], cut


def test_another_fingerprint_sets_the_file_aside_and_the_old_one_brings_it_back(tmp_path):
    path = tmp_path / "a.jsonl"
    Journal(path, "old").append([{"n": 1}])
    new = Journal(path, "new")
    assert new.records == [] and new.set_aside == tmp_path / "a.old.jsonl"
    new.append([{"n": 2}])
    assert numbers(Journal(path, "old")) == [1]
    assert numbers(Journal(path, "new")) == [2]


def test_damage_in_the_middle_names_the_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"n": 1}\nnot json\n{"n": 3}\n')
    with pytest.raises(UserError, match="line 2 is not valid JSON"):
        read_records(path)


def test_replace_keeps_the_chosen_records_in_the_given_order(tmp_path):
    journal = Journal(tmp_path / "a.jsonl", "f1")
    journal.append([{"n": 1}, {"n": 2}, {"n": 3}])
    journal.replace([journal.records[2], journal.records[0]])
    assert numbers(Journal(tmp_path / "a.jsonl", "f1")) == [3, 1]


def test_fingerprints_tell_settings_apart_and_ignore_key_order():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint("a", "b") != fingerprint("ab")


def test_an_atomic_write_leaves_no_part_behind(tmp_path):
    write_atomically(tmp_path / "x.json", json.dumps({"a": 1}).encode())
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
