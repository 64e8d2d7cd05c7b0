"""YouTube-VIS 2019 (Yang et al. 2019) for instance segmentation in videos: 40 classes, masks in every fifth frame.

Official files: `train.json` (in other archives `train/instances.json`, or `annotations/train.json`) with `videos`,
`annotations` whose `segmentations` hold a run-length code or null per frame, and `categories`; frames
`train/JPEGImages/<file name>`. The labels of the official validation and test parts (302 and 343 videos) are hidden, so
`test` is cut out of the training part here: results are not the leaderboard's.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.fewshot import generator
from jax_promptmtl.data.videos.index import Example, VideoSet, fields_of, locate, numbered, read_json, require_examples

NAME, HOME = "youtube_vis", "the YouTube-VIS 2019 page of youtube-vos.org (CodaLab account)"
PUBLISHED = {"classes": 40, "videos": 2_238}
LAYOUT = "train.json beside train/JPEGImages/"
Record = Mapping[str, Any]


def read(*, root: str, held_out: float = 0.1, seed: int = 0, frames: str = "train/JPEGImages") -> VideoSet:
    """Read the annotations.

    Args:
      root: the folder of the official files.
      held_out: share of the training videos that test.
      seed: draws them.
      frames: the folder of the videos' folders below the root.

    Returns:
      The set, an example per video; frames are not looked at, masks are not decoded.

    Raises:
      UserError: a file is missing or not the official one; an annotation of an unknown video or class, with masks for
        another number of frames or of another size, or without any.
    """
    path = locate(root, ("train.json", "train/instances.json", "annotations/train.json"), LAYOUT, HOME)
    content = read_json(path, dict, ("videos", "annotations", "categories"))
    names = numbered(((int(row["id"]), row["name"]) for row in content["categories"]), 1, path)
    objects: dict[int, list[Record]] = {row["id"]: [] for row in content["videos"]}
    crowds = 0
    for row in content["annotations"]:
        video, category, _ = fields_of(row, ("video_id", "category_id", "segmentations"), path)
        if video not in objects or not 1 <= category <= len(names):
            raise UserError(
                f"An annotation of {str(path)!r} has video {video} and class {category}; legal are the videos of the "
                f"file and 1 to {len(names)}: get it again."
            )
        if row.get("iscrowd"):
            crowds += 1
        else:
            objects[video].append(row)
    examples = [make_example(video, objects[video["id"]], frames, path) for video in content["videos"]]
    chosen = halves(len(examples), held_out, seed)
    whole = require_examples({part: [examples[i] for i in half] for part, half in chosen.items()}, NAME, HOME)
    notes: tuple[str, ...] = (f"test: {len(whole['test']):,} of the training videos; the official one is hidden",)
    notes += (f"{crowds:,} crowds left out",) if crowds else ()
    home = pathlib.Path(root).expanduser()
    return VideoSet(NAME, "video_instance", home, names, whole, PUBLISHED, HOME, notes=notes)


def halves(count: int, held_out: float, seed: int) -> dict[str, list[int]]:
    """Return which of so many videos train and which test.

    >>> {part: len(half) for part, half in halves(10, 0.2, 0).items()}
    {'train': 8, 'test': 2}
    """
    if not 0 < held_out < 1:
        raise UserError(f"Option 'held_out' of youtube_vis is {held_out}; give a share of the videos, such as 0.1.")
    order = generator(NAME, seed).permutation(count).tolist()
    tested = min(max(round(held_out * count), 1), max(count - 1, 0))
    return {"train": sorted(order[tested:]), "test": sorted(order[:tested])}


def make_example(video: Record, objects: Sequence[Record], frames: str, path: pathlib.Path) -> Example:
    """Return a video with its objects' masks as they are written."""
    files, height, width = fields_of(video, ("file_names", "height", "width"), path)
    name = files[0].rsplit("/", 1)[0]
    for row in objects:
        codes = row["segmentations"]
        if len(codes) != len(files) or not any(codes):
            raise UserError(
                f"An object of video {name!r} has {sum(map(bool, codes))} masks for {len(codes)} frames, but the video "
                f"has {len(files)} frames, and one mask is the least: get {path.name} again."
            )
        for code in filter(None, codes):
            if not isinstance(code, Mapping) or list(code.get("size", ())) != [height, width]:
                raise UserError(
                    f"A mask of video {name!r} is no run-length code of {height} x {width} pixels ({str(code)[:60]}); "
                    f"get {path.name} again."
                )
    label = np.array([row["category_id"] - 1 for row in objects], np.int32)
    paths = tuple(f"{frames}/{file}" for file in files)
    return Example(
        name, f"{frames}/{name}", {"label": label}, paths, masks=tuple(row["segmentations"] for row in objects)
    )
