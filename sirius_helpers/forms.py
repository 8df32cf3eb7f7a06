"""What the notebook's form fields say, as changes of a profile's settings. An empty field keeps the profile's value.

Knows the profiles; loads no model.

    settings_for("t4", **form_changes("t4", epochs="20"))
"""

from __future__ import annotations

from dataclasses import replace

from .errors import UserError
from .kinds import Json
from .profiles import choose_profile

WHOLE = "all"


def form_changes(
    profile: str,
    *,
    labeler: str = "",
    writer: str = "",
    classifier: str = "",
    max_synthetic: str | int = "",
    epochs: str | int = "",
) -> Json:
    """Changes for `settings_for`: models by hub id or folder, the rest as whole numbers (max_synthetic also "all").

    A model's name replaces the profile's in the same role; how its weights lie in memory stays.
    """
    values, _ = choose_profile(profile)
    names = {"labeler": labeler, "writer": writer, "classifier": classifier}
    changes: Json = {
        role: replace(values[role], name=name.strip(), revision=None) for role, name in names.items() if name.strip()
    }
    if str(max_synthetic).strip() == WHOLE:
        changes["max_synthetic"] = None
    elif str(max_synthetic).strip():
        changes["max_synthetic"] = _whole("MAX_SYNTHETIC", max_synthetic, f" or {WHOLE!r} for the whole quota")
    if str(epochs).strip():
        changes["epochs"] = _whole("EPOCHS", epochs)
    return changes


def _whole(name: str, value: str | int, also: str = "") -> int:
    try:
        return int(str(value))
    except ValueError:
        raise UserError(f"{name}={value!r} is not a whole number{also}; empty keeps the profile's value.") from None
