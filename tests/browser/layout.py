"""An executed notebook as people see it: opened at desktop and phone width, light and dark, and searched for faults.

    python tests/browser/layout.py checkpoints/sample/notebook.ipynb    # needs chromium; exit code 1 on a fault
    python tests/browser/layout.py checkpoints/sample/notebook.ipynb /tmp/pictures    # and leaves screenshots there

Pages with one deliberate fault each come first: there exactly that fault must be found. What nbconvert itself draws,
code and prompts, is not searched.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from chrome import Page, chromium

WIDTHS = {"desktop": 1280, "phone": 390}  # pixels
THEMES = ("light", "dark")
STRIP = 2000  # a screenshot's height at most, in pixels
SEARCH = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")

# A fault that SEARCH knows -> the body of a page that has it and no other.
_OUTPUT = '<div class="jp-OutputArea-output" data-mime-type="{}">{}</div>'
_DOT = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
_LARGE = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='90' height='90'/%3E"
BROKEN = {
    "broken picture": '<img alt="curves" src="data:image/png;base64,AAAA">',
    "picture without words": f'<img src="{_DOT}">',
    "tiny picture": f'<img alt="curves" width="30" src="{_LARGE}">',
    "wider than the page": '<table><tr><td style="min-width:2000px">cell</table>',
    "cut off": '<div style="width:9em;overflow:hidden;white-space:nowrap">a line longer than the place it has',
    "error output": _OUTPUT.format("application/vnd.jupyter.stderr", "FutureWarning: something will change"),
    "raw object": _OUTPUT.format("text/plain", "VBox(children=(HBox(children=(Dropdown(options=(…))))))"),
    "faint text": '<p style="color:#555">dark on dark, <b style="color:#aaa">light on light',
}
# What a page may have: no fault is to be found.
SOUND = (
    f'<img alt="a dot" src="{_DOT}"><div style="overflow-x:auto"><table><tr><td style="min-width:2000px">cell</table>'
    "</div>" + _OUTPUT.format("text/plain", "&lt;b&gt; at 0.5") + '<p style="color:#777;display:none">hidden'
)


def main() -> int:
    """Prints a line a fault; 1 when there is any, or when a deliberate one is not found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path, help="an executed notebook")
    parser.add_argument("pictures", type=Path, nargs="?", help="a folder for screenshots")
    notebook, pictures = vars(parser.parse_args()).values()
    if not notebook.is_file():
        parser.error(f"{notebook} is missing; make it with: make run")
    with tempfile.TemporaryDirectory() as folder, chromium() as page:
        wrong = trial(page, Path(folder))
        faults = list(searched(page, notebook, Path(folder), pictures))
    print(*wrong, *faults, sep="\n", end="\n" * bool(wrong + faults))
    print(f"{len(BROKEN)} deliberate faults, {len(wrong)} times missed or misnamed; {notebook}: {len(faults)} faults")
    return int(bool(wrong or faults))


def trial(page: Page, folder: Path) -> list[str]:
    """What the search says wrongly of pages whose fault is known, at each width and in each theme."""
    wrong = []
    for fault, body in BROKEN.items() | {"": SOUND}.items():
        path = folder / "trial.html"
        path.write_text(f"<!doctype html><meta charset=utf-8><meta name=color-scheme content='light dark'>{body}")
        for width in WIDTHS.values():
            for theme in THEMES:
                page.open(path.as_uri(), width, dark=theme == "dark")
                found = {line.split(":")[0] for line in page.run(SEARCH)}
                if found != ({fault} if fault else set()):
                    wrong.append(f"trial, {width} px, {theme}: {found or 'nothing'} instead of {fault or 'nothing'}")
    return wrong


def searched(page: Page, notebook: Path, folder: Path, pictures: Path | None):
    """The notebook's faults, a line each."""
    for theme in THEMES:
        path = folder / f"{theme}.html"
        path.write_text(exported(notebook, theme), encoding="utf-8")
        for name, width in WIDTHS.items():
            page.open(path.as_uri(), width, dark=theme == "dark")
            yield from (f"{name}, {theme}: {fault}" for fault in page.run(SEARCH))
            if pictures:
                save_pictures(page, pictures, f"{name}-{theme}")


def exported(notebook: Path, theme: str) -> str:
    """The notebook as nbconvert's page, in JupyterLab's light or dark colours, without the installation's cells."""
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    left_out = Config(TagRemovePreprocessor={"enabled": True, "remove_cell_tags": {"remove-cell"}})
    return HTMLExporter(theme=theme, config=left_out).from_filename(str(notebook))[0]


def save_pictures(page: Page, folder: Path, name: str) -> None:
    """The whole page as strips that a screen can hold."""
    folder.mkdir(parents=True, exist_ok=True)
    height = page.run("document.documentElement.scrollHeight")
    for number, top in enumerate(range(0, height, STRIP)):
        page.picture(folder / f"{name}-{number:02}.png", top, min(STRIP, height - top))


if __name__ == "__main__":
    sys.exit(main())
