"""THUMOS14 (Jiang et al. 2014) for temporal detection: 20 sports in untrimmed videos, as features.

The files of ActionFormer's release: `annotations/thumos14.json` in ActivityNet's form, {"database": {video: {"subset",
"duration", "fps", "annotations": [{"label", "segment", "label_id"}]}}}, and `i3d_features/<video>.npy`, float[T, 2048],
one feature per 4 frames over 16; VideoMAE features of one's own likewise. The official validation part (200 videos)
trains, the test part tests (213; 212 in some releases). Upstreams leave out test videos whose labels are wrong or
missing, such as OpenTAD `DROPPED`; name them in `drop`. CliffDiving is a kind of Diving: such segments stand in both.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.data.videos.index import (
    Count,
    Example,
    VideoSet,
    fields_of,
    locate,
    numbered,
    read_json,
    require_examples,
    require_segments,
)

NAME, HOME = "thumos14", "the THUMOS14 challenge page (form), and thumos.tar.gz of the repository actionformer_release"
CLASSES, TRAIN, TEST = 20, 200, (212, 213)
SUBSETS = {"validation": "train", "test": "test"}
DROPPED = ("video_test_0000270", "video_test_0001292")
LAYOUT = "annotations/thumos14.json beside i3d_features/<video>.npy"


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
      UserError: the file is missing or not the official one; a label with two numbers; a video without segments.
    """
    path = locate(root, ("annotations/thumos14.json", "thumos14.json"), LAYOUT, HOME)
    database = read_json(path, dict, ("database",))["database"]
    parts: dict[str, list[Example]] = {"train": [], "test": []}
    kept = {video: record for video, record in database.items() if video not in drop}
    names = class_names([a for record in kept.values() for a in record.get("annotations", ())], path)
    place = {name: i for i, name in enumerate(names)}
    for video, record in kept.items():
        subset, duration, rows = fields_of(record, ("subset", "duration", "annotations"), path)
        part = SUBSETS[pick(str(subset).lower(), SUBSETS, f"subset of {video!r}")]
        labels = read_segments(video, float(duration), rows, place, path)
        parts[part].append(Example(video, f"{features}/{video}.npy", labels))
    gone = len(set(drop) & set(database) - {video for video in database if "validation" in video})
    published: dict[str, Count] = {"classes": CLASSES, "train": TRAIN, "test": tuple(count - gone for count in TEST)}
    whole = require_examples(parts, NAME, HOME)
    home = pathlib.Path(root).expanduser()
    return VideoSet(NAME, "temporal_action", home, names, whole, published, HOME, channels=channels)


def class_names(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> tuple[str, ...]:
    """Return the classes in the order of their numbers in the file."""
    pairs = {tuple(fields_of(row, ("label_id", "label"), path)) for row in rows}
    return numbered(((int(number), str(name)) for number, name in pairs), 0, path)


def read_segments(
    video: str, duration: float, rows: Sequence[Mapping[str, Any]], place: Mapping[str, int], path: pathlib.Path
) -> dict[str, np.ndarray]:
    """Return the labels of a video, whose segments must lie in it."""
    pairs = [fields_of(row, ("segment", "label"), path) for row in rows]
    segment = require_segments(np.array([segment for segment, _ in pairs]), video)
    if math.isfinite(duration) and segment[:, 0].max() >= duration:
        raise UserError(
            f"A segment of {video!r} starts at second {segment[:, 0].max():g}, but the video lasts {duration:g}; "
            "correct the annotations."
        )
    return {"segment": segment, "label": np.array([place[label] for _, label in pairs], np.int32)}
