"""The notebook's source: linear, without outputs, no second home for logic. Its full run is in test_pipeline.py."""

import ast
import re

import nbformat
import pytest

from sirius_helpers.settings import PROJECT

NOTEBOOK = PROJECT / "notebooks" / "sirius_pipeline.ipynb"
STAGES = ["1. Label", "1b. Review", "2. Augment", "3. Split", "4. Train", "5. Evaluate", "6. Predict"]


@pytest.fixture(scope="module")
def cells():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    return notebook.cells


def test_source_is_kept_without_outputs(cells):
    assert not [c for c in cells if c.cell_type == "code" and (c.outputs or c.execution_count)]


def test_stages_stand_in_order_under_their_own_headings(cells):
    headings = [line for c in cells if c.cell_type == "markdown" for line in re.findall("^##+ .*", c.source, re.M)]
    headings = [heading.strip("# ") for heading in headings]
    assert headings == ["Settings", *STAGES]


def test_the_parameters_cell_holds_what_make_run_sets(cells):
    (parameters,) = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    names = [node.targets[0].id for node in ast.parse(parameters.source).body]
    assert names[:4] == ["DATA", "RUN", "PROFILE", "LABELS"]


def test_whatever_a_user_fills_in_is_a_form_field_with_a_default(cells):
    """A line of plain assignment to a name in capitals, in any cell."""
    for cell in cells:
        lines = [line for line in cell.source.splitlines() if cell.cell_type == "code" and re.match("[A-Z_]+ = ", line)]
        for line in lines:
            assert "# @param" in line, line


def test_only_the_drive_cell_knows_of_colab(cells):
    assert sum("google.colab" in cell.source for cell in cells) == 1
    sources = [path.read_text(encoding="utf-8") for path in (PROJECT / "sirius_helpers").rglob("*.py")]
    assert not [text for text in sources if "google.colab" in text]


def test_cells_are_short_and_define_no_functions(cells):
    for cell in cells:
        if cell.cell_type == "code":
            tree = ast.parse(cell.source)
            assert not [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
            assert len(cell.source.splitlines()) <= 25


def test_the_installations_plumbing_is_folded_everywhere_and_no_other_cells_code(cells):
    code = [c for c in cells if c.cell_type == "code"]
    folded = [c for c in code if c.metadata.get("jupyter", {}).get("source_hidden")]
    assert [c.id for c in folded] == ["cell-02a", "cell-03"]
    assert all(c.metadata.cellView == "form" and "remove-cell" in c.metadata.tags for c in folded)
    assert all(c.source.startswith("# @title ") for c in code if "cellView" in c.metadata)


def test_a_cell_imports_from_stage_files_and_show_in_at_most_two_lines(cells):
    stages = {"label", "review", "augment", "split", "train", "evaluate", "predict"}
    for cell in cells:
        if cell.cell_type == "code" and "remove-cell" not in cell.metadata.get("tags", []):
            imports = [n for n in ast.walk(ast.parse(cell.source)) if isinstance(n, (ast.Import, ast.ImportFrom))]
            assert len(imports) <= 2, cell.source
            assert {n.module for n in imports} <= {"sirius_helpers.show", *(f"sirius_helpers.{s}" for s in stages)}


def test_no_stage_uses_a_variable_of_an_earlier_stage(cells):
    """After the settings cells each stage stands alone: every name it reads is its own, or of the settings."""
    shared, own, stage = set(dir(__builtins__)) | set(__builtins__), set(), None
    for cell in cells:
        if cell.cell_type == "markdown":
            heading = re.search("^##+ (.*)", cell.source, re.M)
            if heading and heading[1] in STAGES:
                stage, own = heading[1], set()
            continue
        tree = ast.parse(cell.source)
        stored, loaded = set(), set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                (stored if isinstance(node.ctx, ast.Store) else loaded).add(node.id)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                stored |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        own |= stored
        if stage is None:
            shared |= own
        assert loaded <= shared | own, (stage, loaded - shared - own)
