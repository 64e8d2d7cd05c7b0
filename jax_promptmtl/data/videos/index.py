"""What a loader makes of a data set's official files: a plain list of labelled examples for each part.

Labels are arrays in the form of the tasks (`jax_promptmtl.tasks`), without padding:

  recognition      label    int32[]
  spatial_action   box      float32[R, 4]     x1, y1, x2, y2 over the sides of the frame, on the key frame
                   label    bool[R, C]
  temporal_action  segment  float32[S, 2]     seconds
                   label    int32[S]
  segmentation     label    int32[L]
  video_object     box      float32[L, M, 4]  over the sides of the frame
                   label    int32[M]
                   valid    bool[L, M]
  video_instance   label    int32[M]; the masks are in `Example.masks`, as the files have them
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.outline import outline

Array = np.ndarray
Count = int | tuple[int, ...]


@dataclass(frozen=True)
class Example:
    """One labelled clip.

    Attributes:
      name: unique in its part.
      video: file, folder of frames, or file of features, below the root.
      labels: see the head of this file.
      files: the frames one by one below the root, where the annotations name them; then `video` is their folder.
      second: time of the key frame in the file; None where there is none.
      masks: of the M objects of video_instance, what the annotations hold for each frame.
      pictures: the frames themselves, encoded, where they are neither files nor a video; see `VideoSet.fill`.
      key: number of the frame whose objects are wanted, for video_object frame by frame; None for those of all frames.
      size: height and width of its frames in the annotations; () where they do not say.
      rate: frames per second that its features were extracted at; 0 where the annotations do not say.
      duration: of the video in seconds, likewise.
    """

    name: str
    video: str
    labels: Mapping[str, Array]
    files: tuple[str, ...] = ()
    second: float | None = None
    masks: tuple[Sequence[Any], ...] = ()
    pictures: tuple[bytes, ...] = ()
    key: int | None = None
    size: tuple[int, ...] = ()
    rate: float = 0.0
    duration: float = 0.0


@dataclass(frozen=True)
class VideoSet:
    """One data set, or one split of it.

    Attributes:
      name: of the data set.
      task: a key of `problems.video_tasks.SPECS`.
      root: the folder that paths are relative to.
      class_names: a label is a position here.
      parts: "train" and "test" (the part that the official protocol evaluates) -> examples.
      published: "classes", "videos" and the parts -> how many there should be; several where releases differ.
      home: whose page has the files.
      scored: the classes that count in the evaluation, if not all.
      background: the classes that make no segment in the evaluation.
      channels: of a feature, for sets of feature files.
      channels_first: whether such a file is [channels, T], not [T, channels].
      rate: frames per second of folders of frames.
      notes: what was left out, in words.
      strange: what the published files do not have, in words, such as "2 key frames beyond second 1798".
      fill: gives an example its labels, pictures and masks, where they lie together in records; see `filled`.
    """

    name: str
    task: str
    root: pathlib.Path
    class_names: tuple[str, ...]
    parts: Mapping[str, tuple[Example, ...]]
    published: Mapping[str, Count]
    home: str
    scored: tuple[int, ...] | None = None
    background: tuple[int, ...] = ()
    channels: int = 0
    channels_first: bool = False
    rate: float = 0.0
    notes: tuple[str, ...] = ()
    strange: tuple[str, ...] = ()
    fill: Callable[[Example], Example] | None = None
    __repr__ = outline

    def filled(self, example: Example) -> Example:
        """Return an example with its labels."""
        return example if self.fill is None else self.fill(example)

    def path(self, name: str) -> pathlib.Path:
        """Return the path of a file below the root."""
        return self.root / name

    def counts(self) -> dict[str, int]:
        """Return the numbers of classes, of each part's videos and of all videos, as `published` has them."""
        videos = {part: {example.video for example in examples} for part, examples in self.parts.items()}
        counts = {"classes": len(self.class_names)} | {part: len(found) for part, found in videos.items()}
        return counts | {"videos": len(set().union(*videos.values()))}

    def misfits(self) -> list[str]:
        """Return in words which counts are not the published ones, and what else these do not have."""
        found = self.counts()
        return [f"{what} instead of none" for what in self.strange] + [
            f"{found.get(what, 0):,} {what + ' videos' if what in self.parts else what} instead of {spell(wanted)}"
            for what, wanted in self.published.items()
            if found.get(what, 0) not in (wanted if isinstance(wanted, tuple) else (wanted,))
        ]


def spell(count: Count) -> str:
    """Return a published count in words.

    >>> spell(3570), spell((212, 213))
    ('3,570', '212 or 213')
    """
    return " or ".join(f"{n:,}" for n in (count if isinstance(count, tuple) else (count,)))


# --- what labels must be ---


def require_inside(box: Array, name: str, slack: float = 0.0) -> Array:
    """Return boxes float32[N, 4] over the sides of the frame, which must lie in it.

    Args:
      box: x1, y1, x2, y2.
      name: whose they are.
      slack: by how much they may stick out; they are clipped then.
    """
    box = np.asarray(box, np.float64).reshape(-1, 4)
    right = (box >= -slack).all(1) & (box <= 1 + slack).all(1) & (box[:, 2:] >= box[:, :2]).all(1)  # not NaN either
    if not right.all():
        wrong = ", ".join(f"{value:.4g}" for value in box[right.argmin()])
        raise UserError(
            f"A box of {name!r} is {wrong} (x1, y1, x2, y2 over the sides of the frame): it must lie in the frame; "
            "correct the annotations."
        )
    return box.clip(0, 1).astype(np.float32)


def has_area(box: Array) -> Array:
    """Return which boxes [..., 4] have an area.

    >>> has_area(np.array([[0, 0, 1, 1], [0.5, 0, 0.5, 1]])).tolist()
    [True, False]
    """
    return np.all(box[..., 2:] > box[..., :2], axis=-1)


def require_segments(segment: Array, name: str) -> Array:
    """Return segments float32[S, 2] in seconds, of which there must be one, and which must not be empty."""
    with np.errstate(over="ignore"):
        segment = np.asarray(segment, np.float64).reshape(-1, 2).astype(np.float32)
    if not len(segment):
        raise UserError(f"Video {name!r} has no segments; label its actions, or leave it out.")
    right = (segment[:, 0] >= 0) & (segment[:, 1] > segment[:, 0]) & np.isfinite(segment[:, 1])
    if not right.all():
        start, end = segment[right.argmin()]
        raise UserError(f"A segment of {name!r} goes from second {start:g} to {end:g}; correct the annotations.")
    return segment


def require_examples(parts: Mapping[str, Sequence[Example]], name: str, home: str) -> dict[str, tuple[Example, ...]]:
    """Return the parts as tuples; each must have an example, and no name twice."""
    for part, examples in parts.items():
        if not examples:
            raise UserError(f"The {part} part of {name!r} is empty; get the annotations again from {home}.")
        names = [example.name for example in examples]
        if not all(map(str.strip, names)):
            raise UserError(f"An example of the {part} part of {name!r} has no name; correct the annotations.")
        if len(set(names)) < len(names):
            twice = next(n for i, n in enumerate(names) if n in set(names[:i]))
            raise UserError(
                f"The {part} part of {name!r} lists {twice!r} twice; get the annotations again from {home}."
            )
    return {part: tuple(examples) for part, examples in parts.items()}
