"""UCF101 (Soomro et al. 2012): 101 human actions as AVI videos in three official splits.

Official files: `UCF-101/<Class>/v_<Class>_g01_c01.avi` and `ucfTrainTestlist/{classInd.txt, trainlist0k.txt,
testlist0k.txt}`. classInd counts from 1; a line of a training list ends in that number, a line of a test list has none,
and there the folder is the label. (One class is spelled in two ways: folder HandstandPushups, files HandStandPushups.)
"""

import pathlib
import re

import numpy as np

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.data.videos.annotations import (
    class_number,
    locate,
    number_and_name,
    numbered,
    numbered_lines,
    rows_of,
)
from jax_promptmtl.data.videos.index import Example, VideoSet, require_examples

NAME, HOME = "ucf101", "the UCF101 page of UCF's Center for Research in Computer Vision"
SPLITS = {1: (9_537, 3_783), 2: (9_586, 3_734), 3: (9_624, 3_696)}
CLASSES = 101
LINE = re.compile(r"(\S+|.+\.\w+)(?:\s+(\d+))?", re.ASCII)  # names may have spaces
LISTS, LAYOUT = "ucfTrainTestlist", "ucfTrainTestlist/ (classInd.txt, trainlist01.txt, ...) beside UCF-101/"


def read(*, root: str, split: int = 1, videos: str = "UCF-101") -> VideoSet:
    """Read the annotations.

    Args:
      root: the folder of the official files.
      split: 1, 2 or 3.
      videos: the folder of the classes below the root.

    Returns:
      The set; files of videos are not looked at.

    Raises:
      UserError: a list is missing or malformed; a folder that is no class; a number that is not its class's.
    """
    published = SPLITS[int(pick(str(split), map(str, SPLITS), "split of ucf101"))]
    lists = locate(root, (LISTS,), LAYOUT, HOME)
    path = lists / "classInd.txt"
    names = numbered(rows_of(path, number_and_name, "1 ApplyEyeMakeup"), 1, path)
    parts = {part: read_list(lists / f"{part}list{split:02d}.txt", names, videos) for part in ("train", "test")}
    counts = {"classes": CLASSES, "train": published[0], "test": published[1]}
    whole = require_examples(parts, NAME, HOME)
    return VideoSet(NAME, "recognition", pathlib.Path(root).expanduser(), names, whole, counts, HOME)


def read_list(path: pathlib.Path, names: tuple[str, ...], videos: str) -> list[Example]:
    """Return the examples of a list: lines `<Class>/<file>.avi` with or without the number of the class."""
    place, examples = {name: i for i, name in enumerate(names)}, []
    for at, line in numbered_lines(path).items():
        found = LINE.fullmatch(line)
        name, number = found.groups() if found else ("", None)
        label = class_number(name.split("/")[0], place, path) if found else -1
        if name.count("/") != 1 or name.endswith("/") or number not in (None, str(label + 1)):
            raise UserError(
                f"Line {at} of {str(path)!r} is {line[:80]!r}; it must look like 'Class/v_Class_g01_c01.avi 7' with 7 "
                "the number of that class in classInd.txt, or without it."
            )
        examples.append(Example(name, f"{videos}/{name}", {"label": np.array(label, np.int32)}))
    return examples
