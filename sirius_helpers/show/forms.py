"""What the notebook's form fields say, as changes of a profile's settings; and a notebook with its form filled in.

An empty field keeps the profile's value.

Knows the profiles; of a model that is named it reads configuration and tokenizer, no weights.

    settings_for("t4", **form_changes("t4", epochs="20"))
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..kinds import Json
from ..loaders import is_causal_lm, load_tokenizer
from ..models import ModelSpec
from ..profiles import choose_profile

if TYPE_CHECKING:  # what only names a type need not be installed
    from nbformat import NotebookNode

WHOLE = "all"
E5 = re.compile(r"(^|[-_])e5([-_]|$)", re.IGNORECASE)  # encoders that want "query: " before each text


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

    A model's name replaces the profile's in the same role; how its weights lie in memory stays, and the rest follows
    from the model: a labeler that writes text is asked, any other learns from the examples.
    """
    values, _ = choose_profile(profile)
    names = {"labeler": labeler, "writer": writer, "classifier": classifier}
    changes: Json = {role: _named(values[role], name.strip()) for role, name in names.items() if name.strip()}
    if "labeler" in changes:
        changes["labeler_kind"] = "llm" if is_causal_lm(changes["labeler"]) else "few-shot"
        print(f"labeler {changes['labeler'].name}: {changes['labeler_kind']}")
    if str(max_synthetic).strip() == WHOLE:
        changes["max_synthetic"] = None
    elif str(max_synthetic).strip():
        changes["max_synthetic"] = _whole("MAX_SYNTHETIC", max_synthetic, f" or {WHOLE!r} for the whole quota")
    if str(epochs).strip():
        changes["epochs"] = _whole("EPOCHS", epochs)
    return changes


def fill_form(notebook: NotebookNode, values: Mapping[str, object]) -> NotebookNode:
    """The notebook with these values in its form fields: the lines `NAME = …  # @param …`."""
    for cell in notebook.cells:
        for name, value in values.items() if cell.cell_type == "code" else ():
            filled = f"{name} = {value!r}".replace("\\", r"\\")  # a template of re
            cell.source = re.sub(rf"^{name} = .*?(?=  # @param)", filled, cell.source, flags=re.MULTILINE)
    return notebook


def _named(old: ModelSpec, name: str) -> ModelSpec:
    """The model of that name: in chat form where its tokenizer has a template for it; says what was found."""
    spec = replace(old, name=name, revision=None, text_prefix="query: " if E5.search(Path(name).name) else "")
    spec = replace(spec, chat=bool(load_tokenizer(spec).chat_template))
    print(f"{name}: chat template {'found' if spec.chat else 'none'}, prefix {spec.text_prefix!r}")
    return spec


def _whole(name: str, value: str | int, also: str = "") -> int:
    try:
        return int(str(value))
    except ValueError:
        raise UserError(f"{name}={value!r} is not a whole number{also}; empty keeps the profile's value.") from None
