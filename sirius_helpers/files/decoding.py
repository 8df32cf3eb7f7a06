"""The bytes of a text file to text: UTF-8, UTF-16 with its mark, or Windows-1251 where that is certain.

Anything else is refused: wrong letters that nobody notices are worse than no answer.

    text, notes = read_text(Path("train.csv"))             # notes: what was not plain UTF-8
"""

import codecs
import re
import tomllib
import unicodedata
from pathlib import Path

from ..errors import UserError, refusal
from ..kinds import Json

NOT_TEXT = {
    b"PK\x03\x04": ("an Excel workbook or another zip archive", "save the sheet as 'CSV UTF-8', or unpack it"),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook", "open it and save the sheet as 'CSV UTF-8'"),
    b"\x1f\x8b": ("a gzip archive", "unpack it"),
    b"version https://git-lfs": ("a Git LFS pointer and not the file itself", "run 'git lfs pull'"),
    b"<": ("a web page (HTML or XML)", "download the file itself again"),
}
SAVE_AGAIN = "open it in the program that made it and save it as 'CSV UTF-8'"
# A word holds letters and whatever else lies beyond ASCII, except the marks of Russian typography.
_WORD = re.compile(r"[A-Za-z]*[^\x00-\x7f\xa0«»„“”‘’–—…№°](?:[A-Za-z]|[^\x00-\x7f\xa0«»„“”‘’–—…№°])*")
_RUSSIAN = re.compile(r"[А-ЯЁ]?[а-яё]+|[А-ЯЁ]+")
# UTF-8 that was once read as Windows-1251 or -1252: each letter became one of these four and a rare character.
_SPOILT = re.compile(r"(?:[РСÐÑ][^\x00-\x7fА-Яа-я]){4,}")
_WITH_MARKS = re.compile(r"[^\W\d_][\u0300-\u036f]+")  # й as и and a breve, which is how macOS writes file names


def read_text(path: Path) -> tuple[str, list[str]]:
    """The text of a file, letters composed and NUL characters left out, and a note on each thing that was not right."""
    text, encoding = _decoded(path, _read_bytes(path))
    notes = [f"read as {encoding}"] * (encoding != "utf-8")
    if nuls := text.count("\0"):
        if nuls > len(text) / 20:
            raise UserError(f"{path} is a binary file, or UTF-16 without a byte order mark; {SAVE_AGAIN}.")
        notes.append(f"NUL characters removed: {nuls}")
    if spoilt := _SPOILT.search(text):  # a few such reviews stand in real files, as their writers sent them
        line = text.count("\n", 0, spoilt.start()) + 1
        if sum(map(len, _SPOILT.findall(text))) > len(text) / 10:
            raise UserError(
                f"{path}, line {line}: {spoilt.group()[:20]!r} is UTF-8 that was once read in a wrong encoding; "
                "export the file from its source again, as 'CSV UTF-8'."
            )
        notes.append(f"letters spoilt by a wrong encoding kept as they are (first in line {line})")
    text, length = text.replace("\0", ""), len(text) - nuls
    if not unicodedata.is_normalized("NFC", text):
        text = _WITH_MARKS.sub(lambda found: unicodedata.normalize("NFC", found[0]), text)
    notes += [f"letters written as two characters composed: {length - len(text)}"] * (len(text) < length)
    return text, notes


def composed(text: str) -> str:
    """A text with its letters composed and single blanks in place of a spreadsheet's odd spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def tell(path: Path, notes: list[str]) -> None:
    """Say in one line what was repaired, if anything was."""
    if notes:
        print(f"{path.name}: {'; '.join(notes)}.")


def read_toml(path: Path) -> Json:
    """The content of a TOML file; a UserError names the place in it that is wrong."""
    text, notes = read_text(path)
    tell(path, notes)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}.") from None


def reads_as_russian(text: str) -> bool:
    """Whether the text, ASCII aside, is plainly Russian: words in letters of one case, in the usual proportions.

    The ten commonest letters make up 63 % of Russian, and about a third of Russian read in a wrong encoding.
    """
    words = _WORD.findall(text)
    russian = "".join(word for word in words if _RUSSIAN.fullmatch(word)).lower()
    alien = sum(map(len, words)) - len(russian)
    common = sum(russian.count(letter) for letter in "оеаинтсрвл")
    return len(russian) >= 40 and alien < 0.05 * len(russian) and common > 0.5 * len(russian)


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, and a file is needed.") from None
    except FileNotFoundError:
        what = "is a link to a file that does not exist" if path.is_symlink() else "does not exist"
        raise UserError(f"{path} {what}; put the file there, or correct DATA (or LABELS).") from None
    except OSError as error:
        _, reason, remedy = refusal(error) or ("", error.strerror, "Copy it anew")
        raise UserError(f"{path} cannot be read: {reason}. {remedy}, then try again.") from None
    for start, (kind, remedy) in NOT_TEXT.items():
        if data[:1_000].lstrip().startswith(start):
            raise UserError(f"{path} is {kind}; {remedy}.")
    return data


def _decoded(path: Path, data: bytes) -> tuple[str, str]:
    """The text, and the encoding that gave it."""
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
    try:
        return data.decode(encoding), encoding
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
    if encoding == "utf-16":
        raise UserError(f"{path} begins as UTF-16 and is damaged in line {line}; {SAVE_AGAIN}.")
    # Measured on 20,994 files of 1 to 100 real reviews in each of five encodings, as they were, in lower case and in
    # capitals: none was read as other letters; of those in Windows-1251 with ten reviews 4 in 1,000 were refused.
    text, start = data.decode("cp1251", "replace"), data[:100_000]
    rivals = {start.decode(name) for name in ("koi8-r", "cp866", "mac-cyrillic")} - {text[:100_000]}
    if "\ufffd" in text or not reads_as_russian(text) or _SPOILT.search(text) or any(map(reads_as_russian, rivals)):
        raise UserError(f"{path} is not UTF-8 (line {line}), and no other encoding is certain; {SAVE_AGAIN}.")
    return text, "cp1251"
