"""HMDB51 (Kuehne et al. 2011): 51 human actions as AVI videos in three official splits.

Official files: `hmdb51_org/<class>/*.avi` and `testTrainMulti_7030_splits/<class>_test_split{1,2,3}.txt`, whose lines
are `<file>.avi <code>` with the codes 1 train, 2 test, 0 in neither. Classes in alphabetical order.
"""

import pathlib
import re

import numpy as np

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.data.videos.annotations import locate, rows_of
from jax_promptmtl.data.videos.index import Example, VideoSet, require_examples

NAME, HOME = "hmdb51", "the HMDB51 page of Brown University's Serre lab"
PUBLISHED = {"classes": 51, "train": 3_570, "test": 1_530}  # of each split
CODES = {"1": "train", "2": "test", "0": ""}
LISTS, LAYOUT = "testTrainMulti_7030_splits", "testTrainMulti_7030_splits/ beside hmdb51_org/<class>/*.avi"


def read(*, root: str, split: int = 1, videos: str = "hmdb51_org") -> VideoSet:
    """Read the annotations.

    Args:
      root: the folder of the official files.
      split: 1, 2 or 3.
      videos: the folder of the classes below the root.

    Returns:
      The set; files of videos are not looked at.

    Raises:
      UserError: a list is missing or malformed, or has another code.
    """
    pick(str(split), ("1", "2", "3"), "split of hmdb51")
    lists = locate(root, (LISTS,), LAYOUT, HOME)
    found = {path.name: re.fullmatch(rf"(.+)_test_split{split}\.txt", path.name) for path in lists.glob("*.txt")}
    names = tuple(sorted(match[1] for match in found.values() if match))
    if not names:
        raise UserError(f"Folder {str(lists)!r} has no <class>_test_split{split}.txt; get the lists again from {HOME}.")
    parts: dict[str, list[Example]] = {"train": [], "test": []}
    for label, name in enumerate(names):
        for file, part in rows_of(lists / f"{name}_test_split{split}.txt", parse, "clip.avi 1"):
            if part:
                video = f"{name}/{file}"
                parts[part].append(Example(video, f"{videos}/{video}", {"label": np.array(label, np.int32)}))
    whole = require_examples(parts, NAME, HOME)
    return VideoSet(NAME, "recognition", pathlib.Path(root).expanduser(), names, whole, PUBLISHED, HOME)


def parse(line: str) -> tuple[str, str]:
    """Return the file and the part of a line; the part is empty where the split does not use the file.

    >>> parse("clip_1.avi 2"), parse("clip_2.avi 0")
    (('clip_1.avi', 'test'), ('clip_2.avi', ''))
    """
    file, code = line.rsplit(maxsplit=1)
    return file, CODES[code]
