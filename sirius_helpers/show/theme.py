"""How every picture looks: one style on light and on dark paper, and both as PNG.

The paper is opaque and every colour set here, whatever the user's matplotlib style: a transparent picture is
unreadable in one theme or the other. Colours are from Okabe and Ito's palette, told apart by colour-blind readers,
and markers differ as well. The font that comes with matplotlib has Cyrillic letters.

    images = pngs(curves, history)         # {"light": b"…", "dark": b"…"}
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass

from matplotlib import style
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Theme:
    """Colours of a picture."""

    name: str
    paper: str
    ink: str
    grid: str
    grey: str
    blue: str
    orange: str
    green: str
    on_blue: str  # text on a cell of full blue

    @property
    def shades(self) -> Colormap:
        """From paper, 0, to blue, 1."""
        return LinearSegmentedColormap.from_list(self.name, [self.paper, self.blue])


LIGHT = Theme("light", "#ffffff", "#111111", "#e4e4e4", "#6e6e6e", "#0072B2", "#D55E00", "#009E73", "#ffffff")
DARK = Theme("dark", "#181818", "#e8e8e8", "#383838", "#9c9c9c", "#56B4E9", "#E69F00", "#2FC79A", "#000000")
THEMES = (LIGHT, DARK)


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """A function that draws takes its colours from `theme`, the light one where none is given."""

    @functools.wraps(draw)
    def drawn(*data: object, theme: Theme = LIGHT) -> Figure:
        with style.context(["default", _options(theme)]):
            return draw(*data, theme=theme)

    return drawn


def pngs(draw: Callable[..., Figure], *data: object) -> dict[str, bytes]:
    """The picture that a styled function makes of the data, as a PNG for each theme's name."""
    return {theme.name: png(draw(*data, theme=theme)) for theme in THEMES}


def png(figure: Figure) -> bytes:
    """The figure as a PNG file's content, on its own paper."""
    buffer = io.BytesIO()
    with style.context("default"):
        figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight", facecolor=figure.get_facecolor())
    return buffer.getvalue()


def _options(theme: Theme) -> dict[str, object]:
    """matplotlib's settings for a theme."""
    ink = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "xtick.labelcolor", "ytick.labelcolor")
    paper = ("figure.facecolor", "axes.facecolor")
    return {
        **dict.fromkeys(ink, theme.ink),
        **dict.fromkeys(paper, theme.paper),
        "font.family": "DejaVu Sans",
        "text.parse_math": False,  # a price in dollars in a category's name is no formula
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": theme.grey,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "grid.color": theme.grid,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
    }
