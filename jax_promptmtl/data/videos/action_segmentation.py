"""50Salads, Breakfast and GTEA for action segmentation, as MS-TCN released them: a label for every frame, as features.

Official files, in `<root>/{50salads,breakfast,gtea}/` or the root itself: `mapping.txt` with lines `<number> <class>`
(names may have spaces), `features/<video>.npy` float[2048, T], `groundTruth/<video>.txt` with a class per frame, and
`splits/{train,test}.split<k>.bundle` with a ground truth file's name per line. A class makes no segment in the
evaluation only if it is spelled `background`: GTEA's is, Breakfast's `SIL` and 50Salads' `action_start` are not, and
count. Where features and ground truth differ in length by a few frames, upstream cuts both to the shorter.
"""

import pathlib
from typing import Any

import numpy as np

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.data.videos.annotations import (
    class_number,
    locate,
    named,
    number_and_name,
    numbered,
    read_lines,
    rows_of,
)
from jax_promptmtl.data.videos.index import Example, VideoSet, require_examples

HOME = "the MS-TCN data at Zenodo (record 3625992)"
BACKGROUND = "background"
CLASSES = {"50salads": 19, "breakfast": 48, "gtea": 11}
VIDEOS: dict[str, dict[str, int]] = {
    "50salads": {"train": 40, "test": 10},  # of each split
    "breakfast": {"videos": 1_712},  # in splits of uneven sizes
    "gtea": {"train": 21, "test": 7},
}
SPLITS = {"50salads": 5, "breakfast": 4, "gtea": 4}
LAYOUT = "mapping.txt, features/*.npy, groundTruth/*.txt and splits/{train,test}.split1.bundle"


def read(*, root: str, dataset: str, split: int = 1, features: str = "features", channels: int = 2048) -> VideoSet:
    """Read the annotations.

    Args:
      root: the folder of the three data sets, or of this one.
      dataset: 50salads, breakfast or gtea.
      split: counts from 1.
      features: the folder of the features.
      channels: of a feature.

    Returns:
      The set, an example per video with the label of each frame; files of features are not looked at.

    Raises:
      UserError: a file is missing or malformed, an unknown label, an empty ground truth.
    """
    name = pick(dataset, CLASSES, "data set for segmentation")
    pick(str(split), map(str, range(1, SPLITS[name] + 1)), f"split of {name}")
    path = locate(root, (f"{name}/mapping.txt", "mapping.txt"), LAYOUT, HOME)
    home = path.parent
    names = numbered(rows_of(path, number_and_name, "0 cut_tomato"), 0, path)
    parts = {
        part: [read_video(home, file, names, features) for file in bundle(home, part, split)]
        for part in ("train", "test")
    }
    whole = require_examples(parts, name, HOME)
    if twice := {e.name for e in whole["train"]} & {e.name for e in whole["test"]}:
        raise UserError(f"Video {min(twice)!r} of {name} trains and tests in split {split}; get the bundles again.")
    published = {"classes": CLASSES[name]} | VIDEOS[name]
    background = tuple(i for i, c in enumerate(names) if c == BACKGROUND)
    form: dict[str, Any] = {"channels": channels, "channels_first": True}
    return VideoSet(name, "segmentation", home, names, whole, published, HOME, background=background, **form)


def bundle(home: pathlib.Path, part: str, split: int) -> list[str]:
    """Return the names of the videos of a part."""
    path = home / "splits" / f"{part}.split{split}.bundle"
    return rows_of(path, lambda line: named(line.rsplit("/", 1)[-1].removesuffix(".txt")), "video.txt")


def read_video(home: pathlib.Path, video: str, names: tuple[str, ...], features: str) -> Example:
    """Return a video with the labels of its frames."""
    path = home / "groundTruth" / f"{video}.txt"
    lines = read_lines(path)
    if not lines:
        raise UserError(f"The ground truth {str(path)!r} is empty; get it again, or take it out of the bundles.")
    place = {name: i for i, name in enumerate(names)}
    known = {name: class_number(name, place, path) for name in set(lines)}
    labels = np.array([known[line] for line in lines], np.int32)
    return Example(video, f"{features}/{video}.npy", {"label": labels})
