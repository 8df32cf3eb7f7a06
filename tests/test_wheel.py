"""The package as a wheel: all that it needs is in it, and it works where no checkout is."""

import os
import shutil
import subprocess
import sys
from zipfile import ZipFile

import nbformat
import pandas as pd
import pytest
from conftest import write_csv
from tiny_models import tiny_qwen2

from sirius_helpers.embedded.folders import model_folder
from sirius_helpers.settings import ENCODER, NOTEBOOK, PROJECT
from sirius_helpers.show.forms import fill_form

NO_HOME = "/sys"  # where not even root may make a folder
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
STAGES = """
import os
from pathlib import Path

import sirius_helpers
from sirius_helpers.__main__ import main
from sirius_helpers.augment import augment
from sirius_helpers.embedded.folders import model_folder
from sirius_helpers.errors import UserError
from sirius_helpers.evaluate import evaluate
from sirius_helpers.files.runs import begin
from sirius_helpers.label import label
from sirius_helpers.settings import ENCODER, ModelSpec
from sirius_helpers.predict import predict
from sirius_helpers.settings import how_to_install, settings_for
from sirius_helpers.split import split
from sirius_helpers.train import train

models = {"labeler": ModelSpec("encoder"), "writer": ModelSpec("chat", chat=True), "classifier": ModelSpec("encoder")}
models = {role: ModelSpec(str(Path(spec.name).absolute()), chat=spec.chat) for role, spec in models.items()}
models["second_labeler"] = models["labeler"]
settings = settings_for("cpu", data="reviews", run="mine", **models, epochs=1, max_synthetic=0, near_duplicate=100)
begin(settings)
for stage in (label, augment, split, train):
    stage(settings)
here = os.getcwd()
os.chdir("/")
for stage in (evaluate, predict):
    stage(settings)
os.chdir(here)
try:
    model_folder(ENCODER)
except UserError as error:
    print(error)
print(sirius_helpers.__file__, how_to_install("cpu"), sep="\\n")
assert main([]) == 2
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that the checkout stays as it is and nothing that lies about there gets in."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "sirius_helpers", source / "sirius_helpers", ignore=ignored)
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    subprocess.run([sys.executable, "-c", BUILD, built], cwd=source, check=True, capture_output=True)
    (path,) = built.glob("*.whl")
    return path


def test_the_wheel_holds_every_module_the_data_and_the_licence(wheel):
    package = [path for path in (PROJECT / "sirius_helpers").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    with ZipFile(wheel) as archive:
        found = {name.split("/", 1)[1] if ".dist-info/" in name else name for name in archive.namelist()}
        (metadata,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA")]
    notes = {"METADATA", "RECORD", "WHEEL", "licenses/LICENSE", "top_level.txt"}
    assert found == {path.relative_to(PROJECT).as_posix() for path in package} | notes
    assert {"sirius_helpers/data/categories.toml", "sirius_helpers/data/judge_control.csv"} <= found
    assert "License-Expression: MIT" in metadata and "Requires-Dist: torch>=" in metadata


def write_reviews(folder):
    (folder / "reviews").mkdir()
    things = [f"{thing} {number} не годится" for number in range(12) for thing in ("Сапоги", "Тарелка")]
    write_csv(folder / "reviews" / "train.csv", "text", things)
    write_csv(folder / "reviews" / "test.csv", "text", ["Ботинки малы", "Чашка с трещиной"])


def save_models(folder, roberta):
    shutil.copytree(roberta, folder / "encoder")
    for part in tiny_qwen2():
        part.save_pretrained(folder / "chat")


def test_an_installed_wheel_goes_from_csvs_to_a_submission_in_a_folder_of_its_own(wheel, tmp_path, roberta, other_disk):
    """Blanks and Cyrillic letters in its path, nothing written to the home, and the last stages from elsewhere.

    The system's folder for what is temporary lies on another disk.
    """
    site, here = tmp_path / "мои пакеты", tmp_path / "Новая папка (2)"
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--target", site]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, wheel], check=True)
    here.mkdir()
    write_reviews(here)
    (here / "reviews" / "categories.txt").write_text("обувь\nпосуда\n", encoding="utf-8")  # examples: the wheel's own
    save_models(here, roberta)
    environment = {name: value for name, value in os.environ.items() if name != "SIRIUS_CHECKPOINTS"}
    environment |= {"PYTHONPATH": str(site), "HOME": NO_HOME, "TMPDIR": str(other_disk)}
    environment.pop("SIRIUS_CACHE", None)
    done = subprocess.run([sys.executable, "-c", STAGES], cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3_000:]
    assert done.stdout.splitlines()[-3].startswith("/sys/.cache")
    assert "is no place for the embedded models (Operation not permitted). Set SIRIUS_CACHE to a folder" in done.stdout
    assert done.stdout.splitlines()[-2:] == [
        str(site / "sirius_helpers" / "__init__.py"),
        'pip install "sirius-helpers[cpu]"',
    ]
    assert done.stderr.splitlines()[-1].startswith(
        f"Error: {here}/notebooks/sirius_pipeline.ipynb is missing: the wheel"
    )
    submission = pd.read_csv(here / "checkpoints" / "mine" / "submission.csv")
    assert len(submission) == 2 and set(submission["category"]) <= {"обувь", "посуда"}


@pytest.fixture
def checkout(tmp_path, roberta):
    """A copy of the project's package and notebook with reviews; the form names tiny models."""
    shutil.copytree(PROJECT / "sirius_helpers", tmp_path / "sirius_helpers", ignore=shutil.ignore_patterns("*.pyc"))
    write_reviews(tmp_path)
    (tmp_path / "reviews" / "categories.toml").write_text(
        '[[category]]\nlabel = "обувь"\nexamples = ["сапоги промокли", "тапки малы"]\n'
        '[[category]]\nlabel = "посуда"\nexamples = ["чашка треснула", "ложка гнётся"]\n',
        encoding="utf-8",
    )
    save_models(tmp_path, roberta)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    models = {"LABELER": f"{tmp_path}/encoder", "PARAPHRASER": f"{tmp_path}/chat", "CLASSIFIER": f"{tmp_path}/encoder"}
    changes = {"epochs": 1, "max_synthetic": 2, "max_attempts": 1, "max_new_tokens": 4, "near_duplicate": 100}
    (tmp_path / "notebooks").mkdir()
    nbformat.write(fill_form(notebook, models | {"CHANGES": changes}), tmp_path / "notebooks" / NOTEBOOK.name)
    return tmp_path


def make_run(checkout, **environment):
    """What `make run` calls, with a home that is read-only or cannot be."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SIRIUS_")}
    kept |= {"PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"} | environment
    command = [sys.executable, "-m", "sirius_helpers", "--data", "reviews", "--run", "mine", "--profile", "cpu"]
    return subprocess.run(command, cwd=checkout, env=kept, capture_output=True, text=True)


def test_make_run_needs_no_home_and_no_temporary_folder_on_the_runs_disk(checkout, other_disk):
    cache = model_folder(ENCODER).parent  # what the form's models take the place of is checked before
    done = make_run(checkout, HOME=f"{NO_HOME}/none", SIRIUS_CACHE=str(cache), TMPDIR=str(other_disk))
    assert done.returncode == 0, done.stderr[-3_000:]
    run = checkout / "checkpoints" / "mine"
    assert len(pd.read_csv(run / "submission.csv")) == 2
    outputs = [o for cell in nbformat.read(run / "notebook.ipynb", as_version=4).cells for o in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not list(other_disk.glob("sirius-*"))  # the kernel's sockets went with it


@pytest.mark.parametrize("home", [NO_HOME, f"{NO_HOME}/none"], ids=["read-only", "absent"])
def test_make_run_says_where_models_could_go_where_the_home_cannot_hold_them(checkout, home):
    done = make_run(checkout, HOME=home)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith(f"Error: {NO_HOME}/")
    assert "is no place for the embedded models (Operation not permitted). Set SIRIUS_CACHE" in line
    assert not (checkout / "checkpoints").exists()
