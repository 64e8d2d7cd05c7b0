"""Colours, fonts and the canvas of every figure.

The palette is that of Okabe and Ito, safe for colour-blind readers; right and wrong also differ by their marks.
"""

import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
INK, FAINT, RIGHT, WRONG = "#222222", "#8A8A8A", "#00805E", "#C04A00"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same glyphs on every machine
    "font.size": 9,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0,
    "ytick.major.width": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.solid_capstyle": "round",
}


@contextmanager
def canvas(path: str | pathlib.Path, width: float, height: float) -> Iterator[Figure]:
    """Yield a styled figure of `width` by `height` inches, then save it, without pyplot's global state."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
        FigureCanvasAgg(figure)
        yield figure
        figure.savefig(path, dpi=160, facecolor="white")


def shorten(name: str, width: int = 15) -> str:
    """Return a label of at most `width` characters.

    >>> shorten("cat"), shorten("a very long class name")
    ('cat', 'a very long cl…')
    """
    return name if len(name) <= width else name[: width - 1].rstrip() + "…"
