"""Files to text; what messy CSV files hold beyond that is in test_tables.py."""

from pathlib import Path

import pandas as pd
import pytest

from sirius_helpers.errors import UserError
from sirius_helpers.files.decoding import read_text, reads_as_russian
from sirius_helpers.settings import PROJECT

SAMPLE = pd.read_csv(PROJECT / "data" / "sample" / "train.csv", dtype=str, keep_default_na=False)["text"].tolist()


def test_a_folder_and_missing_or_dangling_files_are_told_apart(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "gone.csv")
    for name, message in {
        "folder": "is a folder",
        "link": "is a link to a file that does not",
        "none": "does not exist",
    }.items():
        with pytest.raises(UserError, match=f"{name}.csv {message}"):
            read_text(tmp_path / f"{name}.csv")


def test_a_file_that_may_not_be_read_says_why(tmp_path, monkeypatch):
    path = tmp_path / "test.csv"
    path.write_text("text\na\n")

    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # changed modes do not stop root, who runs tests in containers
    with pytest.raises(UserError, match="test.csv cannot be read: Permission denied. Give yourself the right to"):
        read_text(path)


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "cp866", "mac-cyrillic", "iso8859-5"])
@pytest.mark.parametrize("change", [str, str.lower, str.upper])
def test_no_review_in_a_legacy_encoding_is_ever_read_as_other_letters(tmp_path, encoding, change):
    path = tmp_path / "test.csv"
    read = 0
    for text in SAMPLE:
        data = change(text).encode(encoding, "replace")  # emoji become question marks, as Excel writes them
        path.write_bytes(data)
        try:
            found, _ = read_text(path)
        except UserError:
            continue
        assert found == data.decode(encoding)
        read += 1
    assert encoding != "cp1251" or read > len(SAMPLE) / 4


def test_russian_is_told_from_what_wrong_encodings_make_of_it():
    text = "\n".join(SAMPLE)
    data = text.encode("cp1251", "replace")
    assert reads_as_russian(text) and reads_as_russian(text.upper()) and reads_as_russian(data.decode("cp1251"))
    for wrong in ("koi8-r", "cp866", "mac-cyrillic", "iso8859-5", "latin-1"):
        assert not reads_as_russian(data.decode(wrong))
    assert not reads_as_russian("Сапоги")  # right, but too short to be certain
