"""AVA-Kinetics (Li et al. 2020): AVA's labels on one key frame of each of some 238,000 Kinetics-700 clips.

Official files: `kinetics_{train,val}_v1.0.csv` with AVA's lines, but seconds of the whole original video; AVA's lists
of actions; Kinetics-700 clips, which are not part of it, as `<id>_<start>_<end>.<any ending>` with six-digit seconds,
in `videos/` or folders below. A key frame belongs to the clip of its id that spans it. Lines without a box are key
frames that nobody labelled. With `ava_root`, the movies of AVA are added, as in the paper's joint training.
"""

import pathlib
import re
from collections.abc import Sequence
from dataclasses import replace

from jax_promptmtl.data.videos import ava
from jax_promptmtl.data.videos.folders import VIDEOS
from jax_promptmtl.data.videos.index import Example, VideoSet, require_examples

NAME, HOME = "ava_kinetics", "the AVA page of Google Research (AVA-Kinetics v1.0), and Kinetics-700 clips of your own"
PUBLISHED = {"classes": 80}
LAYOUT = "kinetics_train_v1.0.csv, kinetics_val_v1.0.csv and both of AVA's action lists beside videos/"
CLIP = re.compile(r"(.+)_(\d{6})_(\d{6})")


def read(*, root: str, videos: str = "videos", ava_root: str = "", ava_start: float = 0.0) -> VideoSet:
    """Read the annotations.

    Args:
      root: the folder of the official files.
      videos: the folder of clips below the root.
      ava_root: the root of AVA, to add its movies; empty for the Kinetics clips alone.
      ava_start: see `start` of AVA.

    Returns:
      The set, an example per key frame. A key frame whose clip is not there has a path that does not exist.

    Raises:
      UserError: a file is missing or malformed, an unknown action, a box outside the frame.
    """
    names, scored = ava.read_actions(root, LAYOUT, HOME)
    place = pathlib.Path(root).expanduser()
    there = clips(place / videos)
    parts: dict[str, list[Example]] = {}
    notes: list[str] = []
    strange: tuple[str, ...] = ()
    for part, word in ava.FILES.items():
        frames, unlabelled = ava.read_boxes(ava.places(root, f"kinetics_{word}_v1.0.csv", LAYOUT, HOME), len(names))
        where = {(v, s): find(there.get(v, []), float(s)) or (f"{videos}/{v}_*", 0.0) for v, s in frames}
        parts[part], flat = ava.make_examples(frames, where, len(names))
        notes += ava.remarks(part, 0, unlabelled, flat)
    rate = 0.0
    if ava_root:
        other = ava.read(root=ava_root, start=ava_start)
        rate, strange = other.rate, other.strange
        notes += [f"AVA, {note}" for note in other.notes]
        for part, examples in other.parts.items():
            parts[part] += [Example(e.name, str(other.path(e.video)), e.labels, second=e.second) for e in examples]
    whole = require_examples(parts, NAME, HOME)
    data = VideoSet(NAME, "spatial_action", place, names, whole, PUBLISHED, HOME, scored=scored, rate=rate)
    return replace(data, notes=tuple(notes), strange=strange)


def clips(folder: pathlib.Path) -> dict[str, list[tuple[str, int, int]]]:
    """Return {id: (path below the folder's parent, start, end) of its clips} of a folder that may be missing."""
    found: dict[str, list[tuple[str, int, int]]] = {}
    for path in sorted(folder.rglob("*_??????_??????.*")) if folder.is_dir() else ():
        match = CLIP.fullmatch(path.stem)
        if match and path.suffix.lower() in VIDEOS:
            row = str(path.relative_to(folder.parent)), int(match[2]), int(match[3])
            found.setdefault(match[1], []).append(row)
    return found


def find(spans: Sequence[tuple[str, int, int]], second: float) -> tuple[str, float] | None:
    """Return the clip that spans a second of the original video, and that second in the clip.

    >>> find([("videos/a_000000_000010.mp4", 0, 10), ("videos/a_000080_000090.mp4", 80, 90)], 84.0)
    ('videos/a_000080_000090.mp4', 4.0)
    """
    fits = [(path, second - start) for path, start, end in spans if start <= second <= end]
    return fits[0] if fits else None
