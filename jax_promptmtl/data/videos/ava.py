"""AVA v2.2 (Gu et al. 2018): what every person does in key frames of movies, one per second from 902 to 1798.

Official files, at the root or in `annotations/`: `ava_{train,val}_v2.2.csv` with lines `video,second,x1,y1,x2,y2,
action,person`, `ava_{train,val}_excluded_timestamps_v2.2.csv` with lines `video,second`, and the lists of actions. All
80 actions are trained; those 60 of `ava_action_list_v2.2_for_activitynet_2019.pbtxt` are scored. Excluded key frames
are left out, as the official evaluation does. A box is listed once per action; here its actions are one row of bools.
The official test part has no labels; here `test` is the validation part.
"""

import pathlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.videos.annotations import locate, numbered, read_lines, real, rows_of, whole
from jax_promptmtl.data.videos.folders import VIDEOS
from jax_promptmtl.data.videos.index import Example, VideoSet, has_area, require_examples, require_inside

NAME, HOME = "ava", "the AVA page of Google Research, and the videos from the CVDF repository ava-dataset"
PUBLISHED = {"classes": 80, "train": 235, "test": 64}
SECONDS = (902, 1798)
FILES = {"train": "train", "test": "val"}
LAYOUT = "ava_train_v2.2.csv, ava_val_v2.2.csv, their excluded timestamps and both action lists beside videos/"
ACTIONS, SCORED = "ava_action_list_v2.2.pbtxt", "ava_action_list_v2.2_for_activitynet_2019.pbtxt"
Frames = dict[tuple[str, str], dict[tuple[float, ...], set[int]]]  # (video, second) -> box -> action numbers


class Row(NamedTuple):
    """One line of an annotation file: a box, and one action; the second is as it is written."""

    video: str
    second: str
    box: tuple[float, ...]
    action: int


def read(*, root: str, videos: str = "videos", start: float = 0.0, rate: float = 30.0) -> VideoSet:
    """Read the annotations.

    Args:
      root: the folder of the official files.
      videos: the folder of `<id>.<any ending>` below the root, or of folders `<id>/` of frames.
      start: second of the movie at which the files start: 0 for whole movies, 900 for the usual cuts of 15 minutes.
      rate: frames per second of folders of frames.

    Returns:
      The set, an example per key frame; files of videos are not looked at.

    Raises:
      UserError: a file is missing or malformed, an unknown action, a box outside the frame.
    """
    names, scored = read_actions(root, LAYOUT, HOME)
    there = listed(pathlib.Path(root).expanduser() / videos)
    parts: dict[str, list[Example]] = {}
    notes: list[str] = []
    strange: list[str] = []
    for part, word in FILES.items():
        frames, unlabelled = read_boxes(places(root, f"ava_{word}_v2.2.csv", LAYOUT, HOME), len(names))
        out = excluded(places(root, f"ava_{word}_excluded_timestamps_v2.2.csv", LAYOUT, HOME))
        if late := [",".join(key) for key in frames if not SECONDS[0] <= float(key[1]) <= SECONDS[1]]:
            strange.append(f"{len(late):,} {part} key frames outside seconds {SECONDS[0]} to {SECONDS[1]} ({late[0]})")
        kept = {key: boxes for key, boxes in frames.items() if (key[0], float(key[1])) not in out}
        where = {(v, s): (f"{videos}/{there.get(v, v + '.mp4')}", float(s) - start) for v, s in kept}
        parts[part], flat = make_examples(kept, where, len(names))
        notes += remarks(part, len(frames) - len(kept), unlabelled, flat)
    whole = require_examples(parts, NAME, HOME)
    place = pathlib.Path(root).expanduser()
    data = VideoSet(NAME, "spatial_action", place, names, whole, PUBLISHED, HOME, scored=scored, rate=rate)
    return replace(data, notes=tuple(notes), strange=tuple(strange))


def places(root: str, file: str, layout: str, home: str) -> pathlib.Path:
    """Return where an annotation file is."""
    return locate(root, (f"annotations/{file}", file), layout, home)


def listed(folder: pathlib.Path) -> dict[str, str]:
    """Return {video: name of its file, or else of its folder} of a folder that may be missing.

    Raises:
      UserError: two files of one video.
    """
    places = sorted(folder.iterdir()) if folder.is_dir() else []
    found = {place.name: place.name for place in places if place.is_dir()}
    files: dict[str, str] = {}
    for place in (place for place in places if place.suffix.lower() in VIDEOS and not place.is_dir()):
        if (other := files.setdefault(place.stem, place.name)) != place.name:
            raise UserError(f"Folder {str(folder)!r} has {other!r} and {place.name!r} for one video; remove one.")
    return found | files


def read_actions(root: str, layout: str, home: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the names of all actions, numbered from 1 in the files, and the positions of those that are scored."""
    path, chosen = places(root, ACTIONS, layout, home), places(root, SCORED, layout, home)
    names = numbered(((number, name) for number, name in read_list(path).items()), 1, path)
    scored = read_list(chosen)
    known = dict(enumerate(names, 1))
    if strange := [number for number, name in scored.items() if known.get(number) != name]:
        raise UserError(f"Action {strange[0]} of {str(chosen)!r} is not that of {path.name!r}; get both again.")
    return names, tuple(sorted(number - 1 for number in scored))


def read_list(path: pathlib.Path) -> dict[int, str]:
    """Return {number: name} of a list of actions, text of protocol buffers in either of its two spellings."""
    text = " ".join(read_lines(path))
    found = {}
    for block in re.findall(r"(?:item|label)\s*\{(.*?)\}", text):
        name, number = re.search(r'name:\s*"([^"]*)"', block), re.search(r"(?:label_)?id:\s*(\d+)", block)
        if not name or not number:
            raise UserError(f"An entry of {str(path)!r} has no name or id: {block.strip()[:60]!r}; get the file again.")
        found[int(number[1])] = name[1]
    if not found:
        raise UserError(f"File {str(path)!r} lists no action; get it again.")
    return found


def parse(line: str) -> Row | None:
    """Return a line of an annotation file; None for a key frame without labels.

    >>> parse("-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,80,1")
    Row(video='-5KQ66BBWC4', second='0902', box=(0.077, 0.151, 0.283, 0.811), action=80)
    >>> parse("---QUuC4vJs,84.0,,,,,")
    """
    video, second, *rest = map(str.strip, line.split(","))
    real(second)
    if not video or len(rest) not in (5, 6):
        raise ValueError("another number of columns")
    if not "".join(rest[:5]):
        return None
    x1, y1, x2, y2 = map(real, rest[:4])
    return Row(video, second, (x1, y1, x2, y2), whole(rest[4].removesuffix(".0")))


def read_boxes(path: pathlib.Path, actions: int) -> tuple[Frames, int]:
    """Return the boxes of each key frame with their actions, and the number of lines without labels."""
    rows = rows_of(path, parse, "video,902,0.1,0.1,0.3,0.8,80,1")
    frames: Frames = {}
    spelled: dict[tuple[str, float], str] = {}  # 902 and 0902 are one second
    for row in filter(None, rows):
        if not 1 <= row.action <= actions:
            raise UserError(
                f"Action {row.action} of {row.video!r} at second {row.second} in {str(path)!r} is unknown; legal are 1 "
                f"to {actions}: correct it, or get the file again."
            )
        second = spelled.setdefault((row.video, float(row.second)), row.second)
        frames.setdefault((row.video, second), {}).setdefault(row.box, set()).add(row.action)
    return frames, sum(row is None for row in rows)


def excluded(path: pathlib.Path) -> Collection[tuple[str, float]]:
    """Return the key frames that do not count."""

    def pair(line: str) -> tuple[str, float]:
        video, second = line.split(",")
        return video, real(second)

    return set(rows_of(path, pair, "video,902"))


def make_examples(
    frames: Frames, where: Mapping[tuple[str, str], tuple[str, float]], actions: int
) -> tuple[list[Example], int]:
    """Return an example per key frame, and the number of boxes without area, which are left out.

    Args:
      frames: see `read_boxes`.
      where: (video, second) -> file below the root, and the second in that file.
      actions: C.
    """
    examples, flat = [], 0
    for key, boxes in frames.items():
        name = ",".join(key)
        box = require_inside(np.array(list(boxes)), name)
        label = np.zeros((len(boxes), actions), bool)
        for row, chosen in zip(label, boxes.values(), strict=True):
            row[[number - 1 for number in chosen]] = True
        keep = has_area(box)
        flat += int((~keep).sum())
        if keep.any():
            file, second = where[key]
            examples.append(Example(name, file, {"box": box[keep], "label": label[keep]}, second=second))
    return examples, flat


def remarks(part: str, excluded: int, unlabelled: int, flat: int) -> Iterable[str]:
    """Return what was left out, in words."""
    what = ((excluded, "excluded key frames"), (unlabelled, "key frames without labels"), (flat, "boxes without area"))
    return [f"{part}: {count:,} {words} left out" for count, words in what if count]
