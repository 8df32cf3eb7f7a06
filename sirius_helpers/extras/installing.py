"""The installation on Colab, by the standard library alone: what is missing is added, the machine's own PyTorch stays.

install(Path("sirius"))                # a checkout of this project
"""

import importlib.util
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, distributions, version
from pathlib import Path


def install(home: Path) -> None:
    """Install a checkout's requirements; SystemExit says in plain words what is then left to do."""
    before, arguments = installed(), ["-r", str(home / "requirements.txt")]
    if not shutil.which("nvidia-smi"):  # the small models too
        arguments += tomllib.loads((home / "pyproject.toml").read_text())["project"]["optional-dependencies"]["cpu"]
    if importlib.util.find_spec("torch"):  # this machine's stays as it is
        pinned = home / "torch-as-installed.txt"
        pinned.write_text(f"torch=={version('torch')}\n")
        arguments += ["-c", str(pinned)]
    _pip("install", *arguments)
    from packaging.version import Version  # by now a requirement has brought it

    if importlib.util.find_spec("torchao") and Version(version("torchao")) < Version("0.16.0"):
        print(f"torchao {version('torchao')} is taken out: peft refuses to work beside it, and nothing here uses it.")
        _pip("uninstall", "-y", "torchao")
    if replaced := replaced_in_use(before):
        raise SystemExit(
            f"{', '.join(replaced)} was in use when it was upgraded. Restart the runtime (Runtime → Restart session), "
            "then run all cells again."
        )


def installed() -> dict[str, str]:
    """Package -> version; of one that lies in several folders of the path the first, which an import finds."""
    return {found.metadata["Name"]: found.version for found in reversed([*distributions()])}


def replaced_in_use(before: dict[str, str]) -> list[str]:
    """Packages with another version than `before` (name -> version) of which this process has modules loaded."""
    loaded = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    importlib.invalidate_caches()
    changed = [name for name, found in installed().items() if before.get(name, found) != found]
    files = {name: distribution(name).files or () for name in changed}
    return sorted(name for name in changed if any(str(file.locate()) in loaded for file in files[name]))


def _pip(command: str, *arguments: str) -> None:
    pip = subprocess.run([sys.executable, "-m", "pip", command, "-q", *arguments], capture_output=True, text=True)
    if pip.returncode:
        raise SystemExit(f"The installation failed; mend what pip says and run this cell again.\n{pip.stderr}")
