import errno
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from conftest import no_file_longer_than
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from sirius_helpers.errors import UserError
from sirius_helpers.files import journal as journal_module
from sirius_helpers.files.journal import Journal, fingerprint, read_records, write_atomically, writing


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


BATCHES = st.lists(st.lists(st.text("аёb\n🦔", max_size=4), min_size=1, max_size=4), min_size=1, max_size=4)


@given(st.lists(st.tuples(BATCHES, st.floats(0, 1)), min_size=1, max_size=4))
@limits(max_examples=100, deadline=None)
def test_torn_again_and_again_a_journal_holds_whole_batches_from_the_beginning_on(lives):
    """A life appends batches and ends torn at any byte; the next one finds as many whole batches as lie before it."""
    with tempfile.TemporaryDirectory() as folder:
        path, written, ends = Path(folder, "a.jsonl"), [], []
        for batches, share in lives:
            journal = Journal(path, "f1")
            assert [record["text"] for record in journal.records] == [text for batch in written for text in batch]
            for batch in batches:
                journal.append({"text": text} for text in batch)
                ends.append(path.stat().st_size)
            size = round(share * path.stat().st_size)
            os.truncate(path, size)
            ends = [end for end in ends if end <= size]
            written = [*written, *batches][: len(ends)]


def test_another_fingerprint_sets_the_file_aside_and_the_old_one_brings_it_back(tmp_path):
    path = tmp_path / "a.jsonl"
    Journal(path, "old").append([{"n": 1}])
    new = Journal(path, "new")
    assert new.records == [] and new.set_aside == tmp_path / "a.old.jsonl"
    new.append([{"n": 2}])
    assert numbers(Journal(path, "old")) == [1]
    assert numbers(Journal(path, "new")) == [2]


@pytest.mark.parametrize("left", [b"", b'{"n": 2, "fing', '{"text": "ё'.encode()[:-1]])
def test_a_file_without_a_whole_record_does_not_hide_the_old_one(tmp_path, left):
    """Settings changed, the first batch was killed, settings changed back: the old records must be there."""
    path = tmp_path / "a.jsonl"
    Journal(path, "old").append([{"n": 1}])
    Journal(path, "new")
    path.write_bytes(left)
    assert numbers(Journal(path, "old")) == [1]


def test_cutting_an_unfinished_batch_leaves_the_other_bytes_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    journal = Journal(path, "f1")
    journal.append([{"n": 1}, {"n": 2}])
    whole = path.read_bytes()
    journal.append([{"n": 3}, {"n": 4}])
    path.write_bytes(path.read_bytes()[:-1])
    Journal(path, "f1")
    assert path.read_bytes() == whole


def test_an_append_that_the_disk_stops_halfway_leaves_nothing_and_can_be_repeated(tmp_path):
    path = tmp_path / "a.jsonl"
    journal = Journal(path, "f1")
    journal.append([{"n": 1}])
    whole = path.read_bytes()
    with no_file_longer_than(len(whole) + 90), pytest.raises(UserError) as stopped:
        journal.append([{"n": 2}, {"n": 3}, {"n": 4}])
    for part in (str(path), "could not be written: File too large", "MiB free", "Free some space", "is kept"):
        assert part in str(stopped.value)
    assert path.read_bytes() == whole and numbers(journal) == [1]
    journal.append([{"n": 2}])
    assert numbers(Journal(path, "f1")) == [1, 2]


def test_an_append_that_is_interrupted_leaves_nothing(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "a.jsonl", "f1")
    journal.append([{"n": 1}])

    def interrupt(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(journal_module.os, "fsync", interrupt)
        journal.append([{"n": 2}])
    journal.append([{"n": 3}])
    assert numbers(journal) == numbers(Journal(tmp_path / "a.jsonl", "f1")) == [1, 3]


@pytest.mark.parametrize("change", [lambda p: p.write_bytes(p.read_bytes() * 2), lambda p: p.unlink()])
def test_records_are_not_put_into_a_file_that_something_else_changed(tmp_path, change):
    path = tmp_path / "a.jsonl"
    journal = Journal(path, "f1")
    journal.append([{"n": 1}])
    change(path)
    with pytest.raises(UserError, match="was changed by something else"):
        journal.append([{"n": 2}])


def test_a_folder_that_went_away_is_told_in_one_line(tmp_path):
    journal = Journal(tmp_path / "run" / "a.jsonl", "f1")
    shutil.rmtree(tmp_path / "run")
    for write in (lambda: journal.append([{"n": 1}]), lambda: write_atomically(tmp_path / "run" / "b", b"")):
        with pytest.raises(UserError, match=r"No such file or directory\. Bring the folder back"):
            write()
    assert not (tmp_path / "run").exists()  # it may be the mount point of a drive


def test_damage_in_the_middle_names_the_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"n": 1}\nnot json\n{"n": 3}\n')
    with pytest.raises(UserError, match="line 2 is not a JSON record"):
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


def test_an_atomic_write_that_the_disk_stops_keeps_the_old_content(tmp_path):
    path = tmp_path / "x.csv"
    write_atomically(path, b"old")
    with no_file_longer_than(100), pytest.raises(UserError, match="File too large"):
        write_atomically(path, b"new" * 100)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.csv"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device .* Free some space"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), "Read-only file system .* Make the folder writable"),
        (Exception("I/O error: No space left on device (os error 28)"), "No space left .* Free some space"),
        (Exception('IoError(Os { code: 28, kind: StorageFull, message: "No space" })'), "No space left"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), "No space left"),
        (RuntimeError("basic_ios::clear: iostream error"), "No space left"),
    ],
    ids=repr,
)
def test_what_a_disk_refuses_is_one_line_however_a_library_says_it(tmp_path, error, said):
    message = f"{tmp_path} could not be written: .*{said}.*run the stage again"
    with pytest.raises(UserError, match=message), writing(tmp_path):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        UserError("out of memory"),
        ValueError("ours"),
        RuntimeError("CUDA"),
        OSError("no number"),
        ChildProcessError(10, "x"),
    ],
)
def test_other_errors_stay_what_they_are(tmp_path, error):
    with pytest.raises(type(error)) as raised, writing(tmp_path):
        raise error
    assert raised.value is error


def test_a_missing_file_that_was_to_be_read_is_no_trouble_of_the_disk(tmp_path):
    with pytest.raises(FileNotFoundError), writing(tmp_path):
        (tmp_path / "none.csv").read_text()
