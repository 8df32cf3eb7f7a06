"""A TOML file, or one line on what is wrong with it. Knows the format; not what stands in the file.

values = read_toml(folder / "categories.toml")
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from ..errors import UserError
from ..kinds import Json


def read_toml(path: Path) -> Json:
    """The file's content; a UserError names the place in it that is wrong."""
    try:
        return tomllib.loads(read_utf8(path))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}.") from None


def read_utf8(path: Path) -> str:
    """A UTF-8 text; a byte order mark at its start is left out."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8.") from None
