"""The notebook's form: its fields as a profile's settings, and a notebook with its form filled in.

settings, run, inputs = start("t4", {"split": "seed"}, data="data/sample", epochs="20")
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..errors import UserError
from ..extras.contest import data_folder
from ..files.inputs import check_inputs
from ..files.runs import Run, begin, pinned
from ..kinds import Json, JsonView
from ..loaders import load_config, load_tokenizer
from ..models.checks import writes_text
from ..settings import ModelSpec, Settings, choose_profile, settings_for

if TYPE_CHECKING:  # what only names a type need not be installed
    from nbformat import NotebookNode

E5 = re.compile(r"(^|[-_])e5([-_]|$)", re.IGNORECASE)  # encoders that want "query: " before each text
ON_DRIVE = {"checkpoints": "drive/MyDrive/sirius"}  # in Colab's working directory


def start(
    profile: str,
    changes: JsonView,
    *,
    data: str = "",
    run: str = "",
    labels: str = "",
    drive: bool = False,
    contest_address: str = "",
    **fields: Any,
) -> tuple[Settings, Run, pd.DataFrame]:
    """Settings, run and input files, all checked; `changes` of settings outrank `fields` (see `form_changes`)."""
    files = {"data": data_folder(data, contest_address), "run": run, "labels": labels} | (ON_DRIVE if drive else {})
    settings = settings_for(profile, **{**files, **form_changes(profile, **fields), **changes})
    inputs, settings = check_inputs(settings), pinned(settings)
    return settings, begin(settings), inputs


def form_changes(profile: str, *, max_synthetic: str | int = "", epochs: str | int = "", **models: str) -> Json:
    """Changes for `settings_for` from fields of text; an empty one keeps the profile's value.

    Models by hub id or folder: the profile's weight format stays, the rest follows from the model's configuration and
    tokenizer. A labeler that writes text is asked, any other learns from the examples.
    """
    values, _ = choose_profile(profile)
    changes: Json = {role: _named(values[role], name.strip()) for role, name in models.items() if name.strip()}
    if "labeler" in changes:
        changes["labeler_kind"] = "llm" if writes_text(load_config(changes["labeler"])) else "few-shot"
        print(f"labeler {changes['labeler'].name}: {changes['labeler_kind']}")
    for name, value in {"max_synthetic": str(max_synthetic).strip(), "epochs": str(epochs).strip()}.items():
        try:
            if value:
                changes[name] = None if (name, value) == ("max_synthetic", "all") else int(value)
        except ValueError:
            raise UserError(
                f"{name.upper()}={value!r} is not a whole number; empty keeps the profile's value (MAX_SYNTHETIC: or "
                "'all' for the whole quota)."
            ) from None
    return changes


def fill_form(notebook: "NotebookNode", values: Mapping[str, object]) -> "NotebookNode":
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
