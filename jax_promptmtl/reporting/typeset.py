"""Tables as text for a terminal, Markdown and LaTeX. Plain data in, text out."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$"}  # noqa: RUF001
TEX |= {character: "\\" + character for character in "&%$#_{}"} | {"<": "$<$", ">": "$>$", "×": r"$\times$"}  # noqa: RUF001


@dataclass(frozen=True)
class Cell:
    """A text and its rank in the column: 1 is set in bold, 2 underlined, others plain."""

    text: str
    rank: int = 0


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
      header: texts of the C columns.
      rows: lines of C cells.
      words: number of leading text columns, aligned left; the others are numbers.
      summary: whether the last line summarises those above.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    words: int = 1
    summary: bool = False


def escape(text: str) -> str:
    r"""Escape a text for LaTeX.

    >>> escape("100 % of A_1")
    '100 \\% of A\\_1'
    """
    return "".join(TEX.get(character, character) for character in text)


def console(sheet: Sheet, *, least: Sequence[int] = (), ruled: bool = True) -> str:
    """Return a table for a terminal; the best of a column is marked with *.

    Args:
      sheet: the table.
      least: minimum column widths, to align tables printed one after the other.
      ruled: whether to draw a rule below the header and above a summary.

    >>> print(console(Sheet(("method", "acc"), [(Cell("a"), Cell("9.5", 1)), (Cell("bb"), Cell("10.5"))])))
    method   acc
    ─────────────
    a        9.5*
    bb      10.5
    """
    lines = [list(sheet.header)] + [[cell.text + ("*" if cell.rank == 1 else "") for cell in row] for row in sheet.rows]
    starred = [any(line[c].endswith("*") for line in lines) for c in range(len(sheet.header))]
    for line in lines:
        for c, text in enumerate(line):
            line[c] = text + " " if starred[c] and not text.endswith("*") and c >= sheet.words else text
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    widths = [max(pair) for pair in itertools.zip_longest(widths, least[: len(widths)], fillvalue=0)]
    texts = [_align(line, widths, sheet.words) for line in lines]
    if ruled:
        rule = "─" * max(map(len, texts))
        texts = [texts[0], rule, *(_set_off(texts[1:], rule) if sheet.summary else texts[1:])]
    return "\n".join(texts)


def _align(line: Sequence[str], widths: Sequence[int], words: int) -> str:
    pairs = enumerate(zip(line, widths, strict=True))
    return "  ".join(text.ljust(width) if c < words else text.rjust(width) for c, (text, width) in pairs).rstrip()


def _set_off(lines: Sequence[str], rule: str) -> list[str]:
    """Return lines with a rule above the last."""
    return [*lines[:-1], rule, *lines[-1:]]


def markdown(sheet: Sheet) -> str:
    """Return a table in Markdown.

    >>> print(markdown(Sheet(("method", "acc"), [(Cell("a|b"), Cell("9.5", 1))])))
    | method | acc |
    |:--|--:|
    | a\\|b | **9.5** |
    """
    lines = [
        [text.replace("|", "\\|") for text in sheet.header],
        *([_mark(cell) for cell in row] for row in sheet.rows),
    ]
    if sheet.summary:
        lines[-1] = [_mark(Cell(cell.text, 1)) for cell in sheet.rows[-1]]
    rule = "|" + "".join(":--|" if c < sheet.words else "--:|" for c in range(len(sheet.header)))
    texts = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([texts[0], rule, *texts[1:]])


def _mark(cell: Cell) -> str:
    text = cell.text.replace("|", "\\|")
    return {1: "**{}**", 2: "<u>{}</u>"}.get(cell.rank, "{}").format(text) if text else ""


def latex(sheet: Sheet, caption: str, label: str) -> str:
    r"""Return a table in LaTeX, for the package booktabs.

    >>> print(latex(Sheet(("method", "acc"), [(Cell("a_b"), Cell("9.5", 1))]), "All", "all"))
    \begin{table}
      \centering
      \begin{tabular}{lr}
        \toprule
        method & acc \\
        \midrule
        a\_b & \textbf{9.5} \\
        \bottomrule
      \end{tabular}
      \caption{All}
      \label{tab:all}
    \end{table}
    """
    marks = {1: r"\textbf{%s}", 2: r"\underline{%s}"}
    rows = [[marks.get(cell.rank, "%s") % escape(cell.text) for cell in row] for row in sheet.rows]
    columns = "l" * sheet.words + "r" * (len(sheet.header) - sheet.words)
    lines = [" & ".join(row) + r" \\" for row in [[*map(escape, sheet.header)], *rows]]
    listed = _set_off(lines[1:], "\\midrule") if sheet.summary else lines[1:]
    body = ["\\toprule", lines[0], "\\midrule", *listed, "\\bottomrule"]
    return "\n".join(
        [
            "\\begin{table}",
            "  \\centering",
            f"  \\begin{{tabular}}{{{columns}}}",
            *("    " + line for line in body),
            "  \\end{tabular}",
            f"  \\caption{{{escape(caption)}}}",
            f"  \\label{{tab:{re.sub(r'[^a-z0-9]+', '-', label.lower())}}}",
            "\\end{table}",
        ]
    )
