"""Open the files of a data set one by one, and say which are broken."""

import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import images
from jax_promptmtl.data.videos import rle, video_file
from jax_promptmtl.data.videos.features import features_of, require_finite
from jax_promptmtl.data.videos.folders import picture_files
from jax_promptmtl.data.videos.full_look import FullLook, listening
from jax_promptmtl.data.videos.index import Example, VideoSet
from jax_promptmtl.data.videos.timeline import read_timeline

THREADS = 8
Watch = Callable[[Iterable, int], Iterable]  # shows the progress of so many steps


@dataclass(frozen=True)
class Look:
    """What a video looks like: a fault in words or none, its length in frames or features, whether its rate varies."""

    fault: str = ""
    length: int = 0
    uneven: bool = False


def look_at_all(
    data: VideoSet, examples: list[list[Example]], watch: Watch, full: FullLook | None = None
) -> list[Look]:
    """Look at videos with several threads; `examples` are those of each video, and `full` takes every frame."""
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool, listening() if full else nullcontext():
        return list(watch(pool.map(lambda group: look_at(data, group, full), examples), len(examples)))


def look_at(data: VideoSet, examples: list[Example], full: FullLook | None = None) -> Look:
    """Open a video: all pictures, all masks, all features, or the first and the last frame and key frames of a file.

    Args:
      data: the set.
      examples: those of the video.
      full: looks at all frames of a file.
    """
    path = data.path(examples[0].video)
    try:
        if data.channels:
            return Look(length=len(require_finite(features_of(data, examples[0]), examples[0].name)))
        examples = [data.filled(example) for example in examples]
        if examples[0].files or examples[0].pictures or path.is_dir():
            return look_at_pictures(data, examples, path)
        timeline = read_timeline(path)
        if full is not None and (fault := full.fault(path)):
            return Look(fault=fault)
        video_file.frames(path, sorted({0, timeline.count - 1}))
        for example in examples:
            if example.second is not None:
                video_file.nearest(path, example.second)
        return Look(length=timeline.count, uneven=timeline.count > 1 and timeline.rate is None)
    except UserError as error:
        return Look(fault=str(error))


def look_at_pictures(data: VideoSet, examples: list[Example], path: pathlib.Path) -> Look:
    """Open every picture of a folder, and every mask."""
    given = [str(data.path(file)) for file in examples[0].files] or examples[0].pictures
    files: Sequence[str | bytes] = given or picture_files(path)
    sizes = {images.decode(file, "" if isinstance(file, str) else examples[0].video).shape[:2] for file in files}
    if len(sizes) > 1:
        video_file.same_size([np.zeros(size) for size in sorted(sizes)], path)
    require_size(examples[0], next(iter(sizes)))
    for example in examples:
        if example.second is not None:
            video_file.nearest(path, example.second, data.rate)
        for code in (code for codes in example.masks for code in codes if code):
            mask = rle.mask_of(code, example.name)
            video_file.same_size([mask, np.zeros(next(iter(sizes)))], path)
    return Look(length=len(files))


def require_size(example: Example, found: tuple[int, ...]) -> None:
    """Refuse frames of another height and width than the annotations have, whose boxes and masks would not fit."""
    if example.size not in ((), found):
        (height, width), (rows, columns) = example.size, found
        raise UserError(
            f"Frames of {example.video!r} are {columns} x {rows} pixels, but the annotations have {width} x {height}; "
            "get both again."
        )


def twins(data: VideoSet, parts: tuple[str, str] = ("train", "test")) -> Iterator[tuple[str, str]]:
    """Yield the files of one part that are equal, byte by byte, to a file of the other; folders are passed over."""
    sizes: list[dict[int, list[str]]] = []
    for part in parts:
        found: dict[int, list[str]] = {}
        for video in sorted({example.video for example in data.parts.get(part, ())}):
            if data.path(video).is_file():
                found.setdefault(data.path(video).stat().st_size, []).append(video)
        sizes.append(found)
    for size in sorted(sizes[0].keys() & sizes[1].keys()):
        here = {digest(data.path(video)): video for video in sizes[0][size]}
        for video in sizes[1][size]:
            if (twin := here.get(digest(data.path(video)))) is not None:
                yield twin, video


def digest(path: pathlib.Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
