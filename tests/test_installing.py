import ast
import importlib
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from sirius_helpers.extras import installing
from sirius_helpers.settings import PROJECT


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that puts a version of the package `mypack` where this process finds it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mypack", raising=False)

    def put(version):
        for old in tmp_path.glob("mypack-*"):
            old.rename(tmp_path / f"mypack-{version}.dist-info")
        folder = tmp_path / f"mypack-{version}.dist-info"
        folder.mkdir(exist_ok=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: mypack\nVersion: {version}\n")
        (folder / "RECORD").write_text("mypack.py,,\n")
        (tmp_path / "mypack.py").write_text("")

    return put


@pytest.mark.parametrize(
    ("loaded", "later", "replaced"), [(True, "2.0", ["mypack"]), (True, "1.0", []), (False, "2.0", [])]
)
def test_a_restart_is_asked_for_only_where_a_loaded_package_was_replaced(package, loaded, later, replaced):
    package("1.0")
    if loaded:
        importlib.import_module("mypack")
    package(later)
    assert installing.replaced_in_use({"mypack": "1.0"}) == replaced


def test_the_cell_ends_with_the_words_to_restart(package, monkeypatch, tmp_path):
    package("1.0")
    importlib.import_module("mypack")
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / "pyproject.toml").write_text("[project.optional-dependencies]\ncpu = []\n")
    monkeypatch.setattr(installing, "_pip", lambda *_: package("2.0"))
    with pytest.raises(SystemExit, match="mypack was in use when it was upgraded. Restart the runtime"):
        installing.install(tmp_path)


def required(lines):
    """Package -> requirement, of the lines that hold one."""
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(one.name): one for one in found}


def lines_of(name):
    return (PROJECT / name).read_text().splitlines()


EXTRAS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
BROUGHT = {  # by the extras `notebook` (and Colab) and `scaleout`, and by transformers
    *("ipywidgets", "nbclient", "nbconvert", "nbformat", "traitlets"),
    *("fsspec", "pyarrow"),
    "packaging",
}


def test_every_package_that_is_imported_is_required():
    imported = set()
    for path in (PROJECT / "sirius_helpers").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
    homes = packages_distributions()
    packages = {canonicalize_name(homes[name][0]) for name in imported & set(homes)} - {"sirius-helpers"}
    wanted = set(required(lines_of("requirements.txt") + sum(EXTRAS.values(), []))) | BROUGHT
    assert len(packages) > 20 and packages <= wanted


def test_the_oldest_versions_that_are_tested_are_the_floors_of_what_is_required():
    tested = required(lines_of("constraints-floor.txt"))
    for name, one in required(lines_of("requirements.txt") + EXTRAS["cpu"] + EXTRAS["scaleout"]).items():
        for floor in (Version(part.version) for part in one.specifier if part.operator == ">="):
            assert tested[name].specifier.contains(floor), name
