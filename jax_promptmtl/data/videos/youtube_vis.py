"""YouTube-VIS 2019 (Yang et al. 2019) for instance segmentation in videos: 40 classes, masks in every fifth frame.

Official files: `train.json` (in other archives `train/instances.json`, or `annotations/train.json`) with `videos`,
`annotations` whose `segmentations` hold a run-length code or null per frame, and `categories`; frames
`train/JPEGImages/<file name>`. The labels of the official validation and test parts (302 and 343 videos) are hidden, so
`test` is cut out of the training part here: results are not the leaderboard's. YouTube-VIS 2021 (and 2022, whose
training part is the same) and OVIS (`annotations_train.json`; its frames are in `train`) have the same form, and are
told by their classes.
"""

import pathlib
from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.fewshot import generator
from jax_promptmtl.data.videos.annotations import Record, locate, numbered, read_json
from jax_promptmtl.data.videos.index import Example, VideoSet, require_examples

NAME, HOME = "youtube_vis", "the YouTube-VIS 2019 page of youtube-vos.org (CodaLab account)"
PUBLISHED = {"classes": 40, "videos": 2_238}
OTHERS = {  # a class that only this edition has -> its name, and its counts
    "flying_disc": ("YouTube-VIS 2021", {"classes": 40, "videos": 2_985}),
    "poultry": ("OVIS", {"classes": 25, "videos": 607}),
}
FILES = ("train.json", "train/instances.json", "annotations/train.json", "annotations_train.json")
LAYOUT = "train.json beside train/JPEGImages/"
Side = Annotated[int, msgspec.Meta(ge=1, le=10**6)]


class Category(Record):
    """A class."""

    id: int
    name: str


class Video(Record):
    """A video by the names of its frames."""

    id: int
    file_names: Annotated[list[Annotated[str, msgspec.Meta(min_length=1)]], msgspec.Meta(min_length=1)]
    height: Side
    width: Side


class Mask(Record):
    """A run-length code: numbers, or COCO's text."""

    size: tuple[int, int]
    counts: list[Annotated[int, msgspec.Meta(ge=0)]] | str


class Object(Record):
    """An object with a mask, or none, in every frame."""

    video_id: int
    category_id: int
    segmentations: list[Mask | None]
    iscrowd: bool | int = False


class Content(Record):
    """What a reader needs of a file."""

    videos: list[Video]
    annotations: list[Object]
    categories: list[Category]


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
    path = locate(root, FILES, LAYOUT, HOME)
    content = read_json(path, Content)
    names = numbered(((row.id, row.name) for row in content.categories), 1, path)
    objects, crowds = objects_of(content, path)
    examples = [make_example(video, objects[video.id], frames, path) for video in content.videos]
    chosen = halves(len(examples), held_out, seed)
    whole = require_examples({part: [examples[i] for i in half] for part, half in chosen.items()}, NAME, HOME)
    notes: tuple[str, ...] = (f"test: {len(whole['test']):,} of the training videos; the official one is hidden",)
    notes += (f"{crowds:,} crowds left out",) if crowds else ()
    edition, published = edition_of(names)
    notes += (f"these are the counts of {edition}",) if edition else ()
    home = pathlib.Path(root).expanduser()
    return VideoSet(NAME, "video_instance", home, names, whole, published, HOME, notes=notes)


def edition_of(names: Sequence[str]) -> tuple[str, dict[str, int]]:
    """Return the name and the counts of the edition that has such classes; the first has no name here.

    >>> edition_of(["Person", "Poultry"])
    ('OVIS', {'classes': 25, 'videos': 607})
    """
    known = [OTHERS[name.lower()] for name in names if name.lower() in OTHERS]
    return known[0] if known else ("", PUBLISHED)


def objects_of(content: Content, path: pathlib.Path) -> tuple[dict[int, list[Object]], int]:
    """Return the objects of each video, and the number of crowds, which are left out."""
    objects: dict[int, list[Object]] = {video.id: [] for video in content.videos}
    if len(objects) < len(content.videos):
        raise UserError(f"File {str(path)!r} has several videos of one id; get it again.")
    crowds = 0
    for row in content.annotations:
        if row.video_id not in objects or not 1 <= row.category_id <= len(content.categories):
            raise UserError(
                f"An annotation of {str(path)!r} has video {row.video_id} and class {row.category_id}; legal are the "
                f"videos of the file and 1 to {len(content.categories)}: get it again."
            )
        if row.iscrowd:
            crowds += 1
        else:
            objects[row.video_id].append(row)
    return objects, crowds


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


def make_example(video: Video, objects: Sequence[Object], frames: str, path: pathlib.Path) -> Example:
    """Return a video with its objects' masks as they are written."""
    files, size = video.file_names, (video.height, video.width)
    name = files[0].rsplit("/", 1)[0]
    if len(set(files)) < len(files):
        raise UserError(f"Video {name!r} of {str(path)!r} lists a frame twice; get it again.")
    for row in objects:
        codes = row.segmentations
        if len(codes) != len(files) or not any(codes):
            raise UserError(
                f"An object of video {name!r} has {sum(map(bool, codes))} masks for {len(codes)} frames, but the video "
                f"has {len(files)} frames, and one mask is the least: get {path.name} again."
            )
        for code in filter(None, codes):
            if code.size != size:
                raise UserError(
                    f"A mask of video {name!r} is of {code.size[0]} x {code.size[1]} pixels, but the video is of "
                    f"{video.height} x {video.width}; get {path.name} again."
                )
    label = np.array([row.category_id - 1 for row in objects], np.int32)
    paths = tuple(f"{frames}/{file}" for file in files)
    masks = tuple([code and msgspec.structs.asdict(code) for code in row.segmentations] for row in objects)
    return Example(name, f"{frames}/{name}", {"label": label}, paths, masks=masks, size=size)
