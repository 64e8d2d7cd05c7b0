"""Example predictions of two models: a grid of pictures as PNG, and thumbnails as HTML."""

import html
import io
import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.offsetbox import AnnotationBbox, HPacker, TextArea
from PIL import Image

from jax_promptmtl.reporting.style import FAINT, RIGHT, WRONG, canvas, shorten
from jax_promptmtl.reporting.webpage import data_uri

THUMBNAIL = 160  # pixels of the longer side


@dataclass(frozen=True)
class Examples:
    """E examples of one task, with true classes and the predictions of two models.

    Attributes:
      task: name of the task, or the label beside its examples.
      images: E pictures, uint8[h, w, 3] or floats in 0..1.
      labels: E names of the true classes.
      before: E class names, predictions of the first model.
      after: E class names, predictions of the second model.
    """

    task: str
    images: Sequence[np.ndarray]
    labels: Sequence[str]
    before: Sequence[str]
    after: Sequence[str]

    def cut(self, width: int) -> "list[Examples]":
        """Return rows of at most `width` examples, without the name.

        >>> [part.labels for part in Examples("a", [1, 2, 3], "xyz", "xyz", "xyz").cut(2)]
        ['xy', 'z']
        """
        places = [slice(start, start + width) for start in range(0, len(self.images), width)]
        return [Examples("", self.images[i], self.labels[i], self.before[i], self.after[i]) for i in places]


def example_grid(
    path: str | pathlib.Path,
    rows: Sequence[Examples],
    models: tuple[str, str],
    *,
    cell: tuple[float, float] = (1.42, 1.98),
) -> None:
    """Draw test images, one row per task, with their class and the answers of two models.

    Args:
      path: of the PNG.
      rows: one per task.
      models: names of the two models, such as "zero-shot" and "MmAP".
      cell: width and height of an image with its words, in inches.
    """
    columns = max(len(row.images) for row in rows)
    with canvas(path, cell[0] * columns + 0.3, cell[1] * len(rows) + 0.45) as figure:
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for axes in grid.ravel():
            axes.axis("off")
        for cells, row in zip(grid, rows, strict=True):
            examples = zip(row.images, row.labels, row.before, row.after, strict=True)
            for axes, (image, label, first, second) in zip(cells, examples, strict=False):
                axes.imshow(image, interpolation="lanczos")
                axes.set_title(shorten(label), fontsize=8.5, loc="center", pad=4)
                _verdict(axes, first, first == label, -9)
                _verdict(axes, second, second == label, -22)
            cells[0].axis("on")
            cells[0].set(xticks=[], yticks=[])
            cells[0].spines[:].set_visible(False)
            cells[0].set_ylabel(row.task, fontsize=9.5, fontweight="bold", labelpad=8)
        figure.suptitle(
            f"true class above; below, {models[0]} first, then {models[1]}", fontsize=8.5, color=FAINT, x=0.5
        )


def _verdict(axes: Any, name: str, right: bool, height: float) -> None:
    """Write a prediction `above` an image's lower edge, in points, with mark and colour for right or wrong."""
    colour = RIGHT if right else WRONG
    mark = TextArea("✓" if right else "✗", textprops={"color": colour, "fontsize": 8, "fontweight": "bold"})
    text = TextArea(shorten(name), textprops={"color": colour, "fontsize": 8})
    box = HPacker(children=[mark, text], pad=0, sep=3, align="baseline")
    place: dict[str, Any] = {"xybox": (0, height), "xycoords": "axes fraction", "boxcoords": "offset points"}
    axes.add_artist(AnnotationBbox(box, (0.5, 0), **place, frameon=False, pad=0))


def gallery(rows: Sequence[Examples], models: tuple[str, str], *, strips: bool = False) -> str:
    """Return the HTML of thumbnails with their class and the answers of two models.

    Args:
      rows: one per task.
      models: names of the two models.
      strips: the images are several times wider than high.
    """
    parts, kind = [], "thumbnails strips" if strips else "thumbnails"
    side = THUMBNAIL * (3 if strips else 1)
    for row in rows:
        found = zip(row.images, row.labels, row.before, row.after, strict=True)
        items = [_list_item(image, label, zip(models, said, strict=True), side) for image, label, *said in found]
        parts.append(f'<h3>{html.escape(row.task)}</h3>\n<ul class="{kind}">{"".join(items)}</ul>\n')
    return "".join(parts)


def _list_item(image: np.ndarray, label: str, answers: Iterable[tuple[str, str]], side: int) -> str:
    """Return a thumbnail, its class, and whether each model is right."""
    lines = [f'<img src="{_thumbnail(image, side)}" alt=""><b>{html.escape(label)}</b>']
    for model, answer in answers:
        mark, kind = ("✓", "good") if answer == label else ("✗", "bad")
        lines.append(f'<span class="{kind}">{mark} {html.escape(model)}: {html.escape(answer)}</span>')
    return f"<li>{''.join(lines)}</li>"


def _thumbnail(image: np.ndarray, side: int = THUMBNAIL) -> str:
    """Return an image, uint8[H, W, 3] or floats in 0..1, as the data URI of a JPEG of at most so many pixels a side."""
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        pixels = np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    small = Image.fromarray(pixels)
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, "jpeg", quality=90)
    return data_uri(file.getvalue(), "jpeg")
