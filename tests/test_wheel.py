"""The package as a wheel: all that it needs is in it, and it works where no checkout is."""

import os
import shutil
import subprocess
import sys
from zipfile import ZipFile

import pandas as pd
import pytest
from conftest import write_csv
from tiny_models import saved, tiny_qwen2

from sirius_helpers.settings import PROJECT

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


def test_an_installed_wheel_goes_from_csvs_to_a_submission_in_a_folder_of_its_own(wheel, tmp_path, roberta):
    """Blanks and Cyrillic letters in its path, nothing written to the home, and the last stages from elsewhere."""
    site, here = tmp_path / "мои пакеты", tmp_path / "Новая папка (2)"
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--target", site]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, wheel], check=True)
    (here / "reviews").mkdir(parents=True)
    things = [f"{thing} {number} не годится" for number in range(12) for thing in ("Сапоги", "Тарелка")]
    write_csv(here / "reviews" / "train.csv", "text", things)
    write_csv(here / "reviews" / "test.csv", "text", ["Ботинки малы", "Чашка с трещиной"])
    (here / "reviews" / "categories.txt").write_text("обувь\nпосуда\n", encoding="utf-8")  # examples: the wheel's own
    shutil.copytree(roberta, here / "encoder")
    saved(here / "chat", tiny_qwen2())
    environment = {name: value for name, value in os.environ.items() if name != "SIRIUS_CHECKPOINTS"}
    environment |= {"PYTHONPATH": str(site), "HOME": "/sys"}  # where not even root may make a folder
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
