"""THUMOS14 (Jiang et al. 2014) for temporal detection: 20 sports in untrimmed videos, as features.

The files of ActionFormer's release: `annotations/thumos14.json` in ActivityNet's form, {"database": {video: {"subset",
"duration", "fps", "annotations": [{"label", "segment", "label_id"}]}}}, and `i3d_features/<video>.npy`, float[T, 2048],
one feature per 4 frames over 16; VideoMAE features of one's own likewise. The official validation part (200 videos)
trains, the test part tests (213; 212 in some releases). Upstreams leave out test videos whose labels are wrong or
missing, such as OpenTAD `DROPPED`; name them in `drop`. CliffDiving is a kind of Diving: such segments stand in both.

OpenTAD's `thumos_14_anno.json` is read too, and any file of that form: there `training` trains, `validation` tests, and
videos of `testing`, whose labels are hidden, are left out; classes without numbers are in the order of the alphabet, or
of `category_idx.txt` beside the file. `duration` and `fps` may be missing.
"""

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

import msgspec
import numpy as np

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.data.suites.folder import some
from jax_promptmtl.data.videos.annotations import LONGEST, Record, locate, numbered, parse_table, read_json, read_lines
from jax_promptmtl.data.videos.index import Count, Example, VideoSet, require_examples, require_segments

NAME, HOME = "thumos14", "the THUMOS14 challenge page (form), and thumos.tar.gz of the repository actionformer_release"
CLASSES, TRAIN, TEST = 20, 200, (212, 213)
SUBSETS = {"validation": "train", "test": "test"}
OTHER_SUBSETS = {"training": "train", "train": "train", "validation": "test", "val": "test", "test": "", "testing": ""}
DROPPED = ("video_test_0000270", "video_test_0001292")
FILES = ("thumos14.json", "thumos_14_anno.json")
LAYOUT = "annotations/thumos14.json beside i3d_features/<video>.npy"
Second = Annotated[float, msgspec.Meta(ge=0, le=10**7)]
Rate = Annotated[float, msgspec.Meta(gt=0, le=10**4)]


class Action(Record):
    """An action and its start and end."""

    label: Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST)]
    segment: tuple[Second, Second]
    label_id: int | None = None


class Video(Record):
    """A video; one without labels has no or null annotations."""

    subset: Annotated[str, msgspec.Meta(max_length=LONGEST)]
    duration: Annotated[float, msgspec.Meta(gt=0, le=10**7)] | None = None
    fps: Rate | None = None
    annotations: list[Action] | None = None


class Content(Record):
    """What a reader needs of the file."""

    database: dict[str, msgspec.Raw]


def read(*, root: str, features: str = "i3d_features", channels: int = 2048, drop: Sequence[str] = ()) -> VideoSet:
    """Read the annotations.

    Args:
      root: the folder of the files.
      features: the folder of the features below the root.
      channels: of a feature.
      drop: videos to leave out.

    Returns:
      The set; segments in seconds; files of features are not looked at.

    Raises:
      UserError: the file is missing or of another form; a label with two numbers; a video without segments.
    """
    path = locate(root, (f"{place}{file}" for file in FILES for place in ("annotations/", "")), LAYOUT, HOME)
    database = parse_table(read_json(path, Content).database, Video, path, "database")
    kept = {video: record for video, record in database.items() if video not in drop}
    where = parts_of(kept, path)
    videos = {video: record for video, record in kept.items() if where[video]}
    names = class_names([action for record in videos.values() for action in record.annotations or ()], path)
    place = {name: i for i, name in enumerate(names)}
    parts: dict[str, list[Example]] = {"train": [], "test": []}
    for video, record in videos.items():
        example = Example(video, f"{features}/{video}.npy", read_segments(video, record, place))
        about = replace(example, rate=record.fps or 0.0, duration=record.duration or 0.0)
        parts[where[video]].append(about)
    gone = len(set(drop) & set(database) - {video for video in database if "validation" in video})
    published: dict[str, Count] = {"classes": CLASSES, "train": TRAIN, "test": tuple(count - gone for count in TEST)}
    whole, home = require_examples(parts, NAME, HOME), pathlib.Path(root).expanduser()
    unknown = sorted(set(drop) - set(database))
    notes = tuple(remarks(videos, len(kept) - len(videos)))
    notes += (f"data.drop names videos that {path.name} has not: {some(unknown)}",) if unknown else ()
    return VideoSet(NAME, "temporal_action", home, names, whole, published, HOME, channels=channels, notes=notes)


def parts_of(videos: Mapping[str, Video], path: pathlib.Path) -> dict[str, str]:
    """Return the part of each video; "" for those whose labels are hidden."""
    named = {video: record.subset.lower() for video, record in videos.items()}
    legal = OTHER_SUBSETS if {"training", "train"} & set(named.values()) else SUBSETS
    if legal is OTHER_SUBSETS and not {"validation", "val"} & set(named.values()):
        legal = {subset: part or "test" for subset, part in legal.items()}
    return {video: legal[pick(subset, legal, f"subset of {video!r}")] for video, subset in named.items()}


def class_names(actions: Sequence[Action], path: pathlib.Path) -> tuple[str, ...]:
    """Return the classes in the order of their numbers in the file, of `category_idx.txt`, or of the alphabet."""
    pairs = {(action.label_id, action.label) for action in actions}
    told = {(number, name) for number, name in pairs if number is not None}
    if told and len(told) < len(pairs):
        raise UserError(f"Some actions of {str(path)!r} have a label_id, others none; give all of them one, or none.")
    if told:
        return numbered(told, 0, path)
    names, order = sorted(name for _, name in pairs), path.parent / "category_idx.txt"
    if not order.exists():
        return numbered(enumerate(names), 0, path) if names else ()
    listed = read_lines(order)
    for name in names:
        pick(name, listed, f"label of {str(path)!r}")
    return numbered(enumerate(listed), 0, order)


def read_segments(video: str, record: Video, place: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Return the labels of a video, whose segments must begin in it."""
    actions = record.annotations or []
    segment = require_segments(np.array([action.segment for action in actions]), video)
    if record.duration and segment[:, 0].max() >= record.duration:
        raise UserError(
            f"A segment of {video!r} starts at second {segment[:, 0].max():g}, but the video lasts "
            f"{record.duration:g}; correct the annotations."
        )
    return {"segment": segment, "label": np.array([place[action.label] for action in actions], np.int32)}


def remarks(videos: Mapping[str, Video], hidden: int) -> list[str]:
    """Return in words what is peculiar: videos without labels, several rates, segments that end after their video."""
    notes = [f"{hidden:,} videos whose labels are hidden left out"] if hidden else []
    rates = sorted({record.fps or 0.0 for record in videos.values()})
    if len(rates) > 1:
        notes.append(f"frames per second: {', '.join(f'{rate:g}' if rate else 'not told' for rate in rates)}")
    late = [
        video
        for video, record in videos.items()
        if record.duration and any(action.segment[1] > record.duration for action in record.annotations or ())
    ]
    if late:
        notes.append(f"{len(late):,} videos have a segment that ends after them, such as {late[0]}")
    return notes
