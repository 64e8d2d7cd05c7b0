"""Shared parts of the pages of single runs: how to repeat the run, and predictions of two models."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jax_promptmtl.core.versions import versions
from jax_promptmtl.reporting import figures
from jax_promptmtl.reporting.examples import Examples, example_grid, gallery
from jax_promptmtl.reporting.formatting import format_duration
from jax_promptmtl.reporting.page import Page
from jax_promptmtl.reporting.typeset import Cell, Sheet

RUN_FILES = {  # what any run may leave in its work directory
    "config.json": "the resolved config",
    "metrics.jsonl": "loss and accuracy of every log step",
    "tensorboard": "the same for TensorBoard",
    "grouping.json": "similarities, groups and how sure they are",
    "checkpoints": "trained parameters, for resuming and evaluation",
}


@dataclass(frozen=True)
class Provenance:
    """The provenance of a run.

    Attributes:
      command: exactly as typed.
      config: flat {key: value}.
      timings: {stage: seconds}.
      files: {path relative to the work directory: what it is}; those that are there are listed.
    """

    command: str
    config: Mapping[str, Any]
    timings: Mapping[str, float]
    files: Mapping[str, str]


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix of C classes.

    Attributes:
      title: of the task or of the model.
      classes: C names.
      matrix: int[C, C], examples by true (row) and predicted class (column).
      mistakes: the most frequent ones: true class, predicted class, count.
    """

    title: str
    classes: Sequence[str]
    matrix: np.ndarray
    mistakes: Sequence[tuple[str, str, str]]


def typed_command() -> str:
    """Return the command that started this run."""
    return shlex.join(["python", "-m", "jax_promptmtl.main", *sys.argv[1:]])


def finish_page(page: Page, made: Provenance) -> str:
    """Add provenance, settings, versions and files, and save the page; returns a sentence with its path.

    Raises:
      UserError: a picture that is not there.
    """
    seconds = sum(made.timings.values())
    page.say("## How to repeat it", f"```\n{made.command}\n```")
    page.show(_pairs(("stage", "time"), {**made.timings, "all": seconds}, format_duration, words=1))
    page.say("## Settings")
    page.show(_pairs(("key", "value"), made.config, lambda value: f"`{value}`"))
    page.say("## Versions")
    page.show(_pairs(("package", "version"), versions(), str))
    page.say("## Files")
    there = {name: what for name, what in made.files.items() if (page.folder / name).exists()}
    page.say("\n".join(f"- [{name}](<{name}>): {what}" for name, what in there.items()))
    path = page.save()
    return f"{path} has the pictures, report.html all in one file; {format_duration(seconds)} in all."


def _pairs(header: tuple[str, str], values: Mapping[str, Any], text: Any, words: int = 2) -> Sheet:
    return Sheet(header, [(Cell(name), Cell(text(value))) for name, value in values.items()], words=words)


def add_mistakes(page: Page, found: Sequence[Confusion], *, titles: str, examples: str) -> None:
    """Add the most frequent mistakes as a table, and all confusions as pictures.

    Args:
      page: to add to.
      found: of each task or model.
      titles: what the titles name, such as "task".
      examples: noun for the examples, such as "images".
    """
    page.say("## Mistakes")
    lines = [[Cell(text) for text in (one.title, *mistake)] for one in found for mistake in one.mistakes]
    if lines:
        page.show(Sheet((titles, "class", "taken for", examples), lines, words=3))
    for number, one in enumerate(found):
        caption = f"{one.title}: what the test {examples} of each class were taken for."
        figures.confusion(page.picture(f"confusion_{number}.png", caption), one.classes, one.matrix, one.title)


def add_examples(
    page: Page,
    rows: Sequence[Examples],
    models: tuple[str, str],
    caption: str,
    *,
    name: str = "examples.png",
    strips: tuple[float, float] | None = None,
    across: int = 0,
) -> None:
    """Add test examples with predictions of two models: a grid in Markdown, thumbnails in HTML.

    Args:
      page: to add to.
      rows: of examples, one per task.
      models: names of the two models.
      caption: of the picture.
      name: of its file.
      strips: width and height of an example in the grid, in inches, where images are several times wider than high.
      across: draw at most so many examples side by side, without the name of their task; 0 for whole rows.
    """
    path = page.picture(name, caption, panel=gallery(rows, models, strips=bool(strips)))
    shown = [part for row in rows for part in row.cut(across)] if across else rows
    example_grid(path, shown, models, **({"cell": strips} if strips else {}))
