"""Something-Something v2 (Goyal et al. 2017): 174 templates of what people do with things, as WebM videos.

Official files: `something-something-v2-{labels,train,validation}.json` (in newer archives `labels/labels.json` and so
on) and `20bn-something-something-v2/<id>.webm`. A video's label is its template without the brackets around its
placeholders: "Holding [something] next to [something]" is the class "Holding something next to something". The classes
are in the order of the labels file. The official test part has no labels; here `test` is the validation part.
"""

import pathlib

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.videos.annotations import Record, class_number, locate, numbered, read_json, read_table, whole
from jax_promptmtl.data.videos.index import Example, VideoSet, require_examples

NAME, HOME = "ssv2", "the Something-Something v2 page of Qualcomm's developer site (registration)"
PUBLISHED = {"classes": 174, "train": 168_913, "test": 24_777}
FILES = {"labels": "labels", "train": "train", "test": "validation"}
LAYOUT = "something-something-v2-labels.json, -train.json and -validation.json beside 20bn-something-something-v2/"


class Row(Record):
    """One video of a list."""

    id: int | str
    template: str


def read(*, root: str, videos: str = "20bn-something-something-v2", suffix: str = ".webm") -> VideoSet:
    """Read the annotations.

    Args:
      root: the folder of the official files.
      videos: the folder of videos below the root.
      suffix: what follows an id in there: ".webm"; ".mp4" for converted videos; "" for folders of frames.

    Returns:
      The set; files of videos are not looked at.

    Raises:
      UserError: a file is missing or not the official one; a template that is no class.
    """
    paths = {
        what: locate(root, (f"something-something-v2-{name}.json", f"labels/{name}.json"), LAYOUT, HOME)
        for what, name in FILES.items()
    }
    names = read_classes(paths["labels"])
    place = {name: i for i, name in enumerate(names)}
    parts = {}
    for part in ("train", "test"):
        rows = read_json(paths[part], list[Row])
        labels = [class_number(plain(row.template), place, paths[part]) for row in rows]
        parts[part] = [
            Example(str(row.id), f"{videos}/{row.id}{suffix}", {"label": np.array(label, np.int32)})
            for row, label in zip(rows, labels, strict=True)
        ]
    whole = require_examples(parts, NAME, HOME)
    return VideoSet(NAME, "recognition", pathlib.Path(root).expanduser(), names, whole, PUBLISHED, HOME)


def read_classes(path: pathlib.Path) -> tuple[str, ...]:
    """Return the classes in the order of their numbers, which are written as numbers or as text."""
    table = read_table(path, int | str)
    try:
        return numbered(((whole(str(number)), name) for name, number in table.items()), 0, path)
    except ValueError as error:
        raise UserError(f"File {str(path)!r} numbers a class wrongly, {error}; get the file again.") from None


def plain(template: str) -> str:
    """Return a template as the labels file spells it: without brackets.

    >>> plain("Holding [something] next to [something]")
    'Holding something next to something'
    """
    return template.replace("[", "").replace("]", "")
