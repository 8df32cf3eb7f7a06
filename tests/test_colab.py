"""The notebook's first cells where only its file was opened: another working directory, a machine's own torch, Colab's
module as a stub, and no package. The project comes from a git repository or a zip file made of this checkout."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from conftest import write_csv
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from tiny_models import saved, tiny_qwen2

from sirius_helpers.__main__ import socket_files
from sirius_helpers.settings import PROJECT
from sirius_helpers.show.forms import fill_form

NOTEBOOK = PROJECT / "notebooks" / "sirius_pipeline.ipynb"
# What a user does: fill in form fields, run cell after cell. Argument: a list of [cells to run, their fields].
DRIVER = """
import json, sys
steps, names, said = json.loads(sys.argv[1]), {}, []
if "colab" in sys.argv: import google.colab
notebook = json.load(open("sirius_pipeline.ipynb"))
cells = {cell["id"]: "".join(cell["source"]) for cell in notebook["cells"]}
for ids, fields in steps:
    if "CONTEST_ADDRESS" in fields:
        import sirius_helpers.extras.contest
        sirius_helpers.extras.contest.PAUSE = 0
    try:
        for name in ids:
            exec(cells[name], names)
            names |= {key: value for key, value in fields.items() if key in cells[name]}
        said.append("")
    except (SystemExit, Exception) as error:
        said.append(f"{type(error).__name__}: {error}")
found = {name: str(sys.modules[name].__file__) for name in ("sirius_helpers", "torch") if name in sys.modules}
if "settings" in names: found |= {"folder": str(names["run"].folder), "rows": names["inputs"]["rows"].tolist()}
print(json.dumps({"said": said, **found}))
"""
FORM, DRIVE, INSTALL = "cell-05", "cell-02a", "cell-03"
SETTINGS = [FORM, "cell-07", "cell-08"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project's files as a git repository."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("sirius_helpers", "data", "notebooks"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "contest"))
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, folder)
    for command in ("init", "add .", "-c user.name=a -c user.email=a@b commit -m first"):
        subprocess.run(["git", "-C", folder, *command.split()], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An interpreter that has what this one has, torch among it, except the package; and a stub of `google.colab`."""
    folder = tmp_path_factory.mktemp("machine")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "machine.pth").write_text(str(Path(pytest.__file__).parent.parent))
    (own / "google" / "colab").mkdir(parents=True)
    (own / "google" / "colab" / "__init__.py").touch()
    (own / "google" / "colab" / "drive.py").write_text(
        "import pathlib\ndef mount(path): (pathlib.Path(path) / 'MyDrive').mkdir(parents=True, exist_ok=True)\n"
    )
    (own / "torchao").mkdir()  # as old as Colab's
    (own / "torchao" / "__init__.py").touch()
    old = own / "torchao-0.10.0.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: torchao\nVersion: 0.10.0\n")
    (old / "RECORD").write_text(
        "torchao/__init__.py,,\ntorchao-0.10.0.dist-info/METADATA,,\ntorchao-0.10.0.dist-info/RECORD,,\n"
    )
    return folder / "bin" / "python"


@pytest.fixture
def content(tmp_path):
    """A folder with nothing but the notebook in it."""
    shutil.copy(NOTEBOOK, tmp_path)
    return tmp_path


@pytest.fixture
def drive(content, data, roberta):
    """A user's Drive with reviews and models on it."""
    folder = content / "drive" / "MyDrive"
    folder.mkdir(parents=True)
    data.rename(folder / "reviews")
    things = [f"{thing} {number} не годится" for number in range(12) for thing in ("Обувь", "Чашка")]
    write_csv(folder / "reviews" / "train.csv", "text", things)
    shutil.copytree(roberta, folder / "encoder")
    saved(folder / "chat", tiny_qwen2())
    return folder


def environment():
    own = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "SIRIUS_CHECKPOINTS")}
    return own | {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "HF_HUB_OFFLINE": "1"}


def run(python, content, *steps, colab=True):
    command = [python, "-c", DRIVER, json.dumps(steps), *["colab"] * colab]
    result = subprocess.run(command, cwd=content, env=environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def run_all(python, content, fields):
    """Fill in the form fields and run every cell in a kernel; returns what the cells put out."""
    notebook = fill_form(nbformat.read(content / NOTEBOOK.name, as_version=4), fields)
    lines = {line for cell in notebook.cells for line in cell.source.split("\n")}
    for name, value in fields.items():
        assert any(line.startswith(f"{name} = {value!r}  # @param") for line in lines), name
    notebook.cells.insert(0, nbformat.v4.new_code_cell("import google.colab"))  # Colab's kernels begin with it
    code = "import sirius_helpers, torch\nprint(torch.__file__, sirius_helpers.__file__)"
    notebook.cells.append(nbformat.v4.new_code_cell(code))
    with socket_files() as config:
        kernel = AsyncKernelManager(config=config)
        kernel.kernel_spec.argv[0] = str(python)
        here = {"metadata": {"path": str(content)}}
        NotebookClient(notebook, km=kernel, resources=here).execute(env=environment())
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def zipped(project, content, name):
    with zipfile.ZipFile(content / name, "w") as archive:
        for path in project.rglob("*"):
            if ".git" not in path.parts:
                archive.write(path, Path("sirius-main") / path.relative_to(project))


def test_from_the_repository_to_the_settings_with_the_machines_torch_and_the_drive(python, content, project):
    fields = {"REPOSITORY": project.as_uri(), "DRIVE": True}
    contest = fields | {"DATA": "contest", "CONTEST_ADDRESS": "http://127.0.0.1:9"}
    found = run(python, content, [[FORM, DRIVE, INSTALL], fields], [SETTINGS, contest], [SETTINGS, fields])
    assert found["said"][0] == found["said"][2] == ""
    assert "train.csv could not be fetched" in found["said"][1]  # the address is the one given
    assert found["sirius_helpers"] == str(content / "sirius" / "sirius_helpers" / "__init__.py")
    assert found["rows"] == [240, 120, 9, 360]  # the bundled sample, whatever the working directory
    assert found["folder"] == str(content / "drive" / "MyDrive" / "sirius" / "sample")
    assert Path(found["folder"], "run.json").exists() and not (content / "sirius" / "checkpoints").exists()
    pinned = content / "sirius" / "torch-as-installed.txt"
    assert pinned.read_text() == f"torch=={version('torch')}\n"


def test_from_an_uploaded_zip_file_and_after_a_restart_from_what_it_left(python, content, project):
    zipped(project, content, "sirius-main.zip")
    assert run(python, content, [[FORM, DRIVE, INSTALL], {}])["said"] == [""]
    (content / "sirius-main.zip").unlink()
    found = run(python, content, [[FORM, DRIVE, INSTALL], {}])
    assert found["said"] == [""] and found["sirius_helpers"].startswith(str(content / "sirius"))
    assert not list(python.parents[1].glob("lib/*/site-packages/torchao*"))  # peft would refuse to work beside it


def test_a_zip_file_on_the_drive_is_found(python, content, project):
    (content / "drive" / "MyDrive").mkdir(parents=True)
    zipped(project, content / "drive" / "MyDrive", "sirius.zip")
    assert run(python, content, [[FORM, DRIVE, INSTALL], {}])["said"] == [""]
    assert (content / "sirius" / "pyproject.toml").exists()


def test_a_folder_that_is_in_the_way_is_named(python, content, project):
    (content / "sirius" / "sirius-main").mkdir(parents=True)
    (said,) = run(python, content, [[FORM, DRIVE, INSTALL], {}])["said"]
    assert said.startswith(f"SystemExit: {content / 'sirius'} is in the way")


@pytest.mark.parametrize("there", ["nothing", "a torn zip file", "a wrong address", "a folder that is another"])
def test_what_to_do_is_said_where_the_package_cannot_be_had(python, content, there):
    if there == "a torn zip file":
        (content / "sirius.zip").write_bytes(b"PK half of it")
    if there == "a folder that is another":
        (content / "sirius").mkdir()
    address = {"REPOSITORY": (content / "none").as_uri()} if there == "a wrong address" else {}
    (said,) = run(python, content, [[FORM, DRIVE, INSTALL], address])["said"]
    assert said.startswith("SystemExit: The package is not here. Put the address of the project's git repository")
    assert "upload the project as a zip file named sirius.zip" in said


def test_a_requirement_that_would_replace_torch_is_refused_with_pips_words(python, content, project):
    zipped(project, content, "sirius.zip")
    assert run(python, content, [[FORM, DRIVE, INSTALL], {}])["said"] == [""]
    (content / "sirius" / "requirements.txt").write_text("torch>=999\n")
    (said,) = run(python, content, [[FORM, DRIVE, INSTALL], {}])["said"]
    assert said.startswith("SystemExit: The installation failed") and "torch>=999" in said


def test_the_drive_is_refused_outside_colab_in_plain_words(python, content):
    said = run(python, content, [[FORM, DRIVE], {"DRIVE": True}], colab=False)["said"]
    assert "SystemExit: DRIVE is for Colab" in said[0]


def test_every_cell_runs_to_the_submission_on_the_drive(python, content, project, drive):
    fields = {"REPOSITORY": project.as_uri(), "DRIVE": True, "DATA": "drive/MyDrive/reviews", "RUN": "mine"}
    fields |= {"LABELER": "drive/MyDrive/chat", "PARAPHRASER": "drive/MyDrive/chat", "MAX_SYNTHETIC": "4"}
    fields |= {"CLASSIFIER": "drive/MyDrive/encoder", "EPOCHS": "2", "DROP_DOWNS": True, "BUTTONS": True}
    fields |= {"CHANGES": {"max_new_tokens": 8, "max_attempts": 2, "bootstrap": 50, "near_duplicate": 100}}
    outputs = run_all(python, content, fields)
    printed = [output for output in outputs if output.output_type == "stream"]
    assert not [output.text for output in printed if output.name == "stderr"]
    package = content / "sirius" / "sirius_helpers" / "__init__.py"
    assert printed[-1].text.split() == [importlib.util.find_spec("torch").origin, str(package)]
    submission = pd.read_csv(drive / "sirius" / "mine" / "submission.csv")
    assert len(submission) == 2 and set(submission["category"]) <= {"обувь", "посуда"}
    assert not (content / "sirius" / "checkpoints").exists()
