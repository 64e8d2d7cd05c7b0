"""The builder of every report: paragraphs, tables and figures as Markdown and HTML, with CSV and LaTeX."""

import csv
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.files import write_whole
from jax_promptmtl.reporting import typeset, webpage

FIGURES = "figures"


class Page:
    """A report under construction.

    Attributes:
      folder: gets report.md, report.html and figures/.
      parts: paragraphs of Markdown.
      tex: tables in LaTeX.
      panels: {picture: HTML that replaces it in report.html}.
      pictures: shown on the page, as paths relative to the folder.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        """Start an empty page."""
        self.folder = folder
        self.parts: list[str] = []
        self.tex: list[str] = []
        self.panels: dict[str, str] = {}
        self.pictures: list[str] = []
        (folder / FIGURES).mkdir(parents=True, exist_ok=True)

    def say(self, *paragraphs: str) -> None:
        """Add paragraphs of Markdown."""
        self.parts += paragraphs

    def show(self, sheet: typeset.Sheet, caption: str = "") -> None:
        """Add a table; one with a caption is in the LaTeX file too."""
        self.parts.append(typeset.markdown(sheet))
        if caption:
            self.tex.append(typeset.latex(sheet, caption, caption))

    def picture(self, name: str, caption: str, *, panel: str = "") -> pathlib.Path:
        """Add a picture with its caption.

        Args:
          name: of its file in figures/.
          caption: plain text.
          panel: HTML that replaces it in report.html.

        Returns:
          The path at which to draw it before the page is saved.
        """
        path = f"{FIGURES}/{name}"
        words = re.sub(r"([\\\[\]*`])", r"\\\1", caption)
        self.parts.append(f"![{words}](<{path}>)\n\n*{words}*")
        self.pictures.append(path)
        if panel:
            self.panels[path] = panel
        return self.folder / path

    def write_csv(self, name: str, header: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
        """Write a CSV file beside the page."""
        with (self.folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *lines])

    def attempt(self, title: str, write: Callable[[], None]) -> None:
        """Add a section, or the error that prevents it: a failing figure must not lose the measurements."""
        parts, pictures = len(self.parts), len(self.pictures)
        try:
            write()
        except Exception as error:
            said = f"{title} cannot be shown: {type(error).__name__}: {error}"
            print(said, file=sys.stderr)
            del self.parts[parts:], self.pictures[pictures:]
            self.say(f"## {title}", "`" + " ".join(said.replace("`", "'").split()) + "`")

    def save(self) -> pathlib.Path:
        """Write report.md and report.html; returns the path of report.md.

        Raises:
          UserError: a picture that the page shows is not there.
        """
        missing = [name for name in self.pictures if not (self.folder / name).exists()]
        if missing:
            raise UserError(
                f"The report shows {', '.join(missing)}, which {self.folder} does not hold; run the whole job again."
            )
        path = self.folder / "report.md"
        write_whole(path, "\n\n".join(self.parts) + "\n")
        webpage.write_html(path, self.panels)
        return path


def file_name(text: str) -> str:
    """Turn a text into a file name.

    >>> file_name("trade-off-Office Home, 6 shots per class.png")
    'trade-off-office-home-6-shots-per-class.png'
    """
    return re.sub(r"[^a-z0-9.]+", "-", text.lower())
