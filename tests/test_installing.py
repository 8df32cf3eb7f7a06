import importlib
import sys

import pytest

from sirius_helpers import installing


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
    ("loaded", "later", "replaced"),
    [(True, "2.0", ["mypack"]), (True, "1.0", []), (False, "2.0", [])],
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
