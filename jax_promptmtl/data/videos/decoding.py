"""Frames of a video file by their numbers, whatever its seeking does.

Decoding begins at the key frame before a frame where that can be trusted: the frames that come must be those of the
timeline, one after the other, from a key frame on. What does not come, or comes otherwise, is decoded from the start.
"""

import itertools
import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.videos.container import opened, reason_of
from jax_promptmtl.data.videos.display import shown
from jax_promptmtl.data.videos.timeline import Index, Timeline, count

Array = np.ndarray


def read(path: pathlib.Path, index: Index, wanted: Sequence[int]) -> dict[int, Array]:
    """Return frames uint8[H, W, 3] of rising numbers, which the timeline has.

    Raises:
      UserError: a frame that cannot be decoded or shown.
    """
    found = jump(path, index.timeline, wanted) if index.timeline.seekable else {}
    if len(found) < len(wanted):
        found = walk(path, index, wanted)
    return {number: shown(frame, index.timeline.aspect, path) for number, frame in found.items()}


def jump(path: pathlib.Path, timeline: Timeline, wanted: Sequence[int]) -> dict[int, Any]:
    """Return the frames, of PyAV, that come as the timeline says after a leap to the key frame before them."""
    found: dict[int, Any] = {}
    try:
        with opened(path) as (container, stream):
            for run in runs(timeline, wanted):
                container.seek(start_of(timeline, run[0]), stream=stream, backward=True)
                found |= trusted(container.decode(stream), timeline, run)
    except UserError:  # met again on the way from the start, if it is there
        pass
    return found


def start_of(timeline: Timeline, number: int) -> int:
    """Return the stamp of the last key frame that is not later than a frame."""
    assert timeline.stamps is not None
    before = np.searchsorted(timeline.keys, timeline.stamps[number], side="right") - 1
    return int(timeline.keys[max(before, 0)])


def runs(timeline: Timeline, wanted: Iterable[int]) -> list[list[int]]:
    """Cut rising frame numbers into runs that are decoded from one key frame on.

    >>> line = Timeline(np.arange(10), np.array([0, 4, 8]), 1.0, 10)
    >>> runs(line, [1, 2, 5, 6, 7])
    [[1, 2], [5, 6, 7]]
    """
    pairs = ((start_of(timeline, number), number) for number in wanted)
    return [[number for _, number in group] for _, group in itertools.groupby(pairs, key=lambda pair: pair[0])]


def trusted(decoded: Iterable[Any], timeline: Timeline, run: Sequence[int]) -> dict[int, Any]:
    """Return the frames asked for that come before one that is not the next of the timeline.

    Until a key frame comes pictures are passed over: they refer to others that were not decoded.
    """
    assert timeline.stamps is not None
    starts = set(np.searchsorted(timeline.stamps, timeline.keys).tolist())
    chosen, found, due = set(run), {}, -1
    for frame in decoded:
        number = -1 if frame.pts is None else int(np.searchsorted(timeline.stamps, frame.pts))
        if due < 0 and number in starts:
            due = number
        if due >= 0:
            if number != due or timeline.stamps[number : number + 1] != [frame.pts] or frame.is_corrupt:
                break
            due += 1
            if number in chosen:
                found[number] = frame
        if number >= run[-1]:
            break
    return found


def walk(path: pathlib.Path, index: Index, wanted: Sequence[int]) -> dict[int, Any]:
    """Return frames by decoding from the start and counting.

    A timeline that is not what comes is replaced; so is one whose key frames led elsewhere, by one without them.

    Raises:
      UserError: the decoder stops, or gives a frame that it knows to be broken.
    """
    timeline, chosen, number = index.timeline, set(wanted), -1
    found: dict[int, Any] = {}
    try:
        with opened(path) as (container, stream):
            for number, frame in enumerate(container.decode(stream)):
                if other(timeline, number, frame):
                    break
                if number in chosen and not frame.is_corrupt:
                    found[number] = frame
                if number >= wanted[-1]:
                    break
    except UserError as error:
        raise lost(path, number + 1, error) from None
    if len(found) == len(chosen):
        index.timeline = replace(timeline, keys=timeline.keys[:0])
        return found
    if timeline.seekable and number < wanted[-1]:
        index.timeline = count(path, timeline)
        if index.timeline.count > wanted[-1]:
            return walk(path, index, wanted)
    raise lost(path, min(chosen - found.keys()))


def other(timeline: Timeline, number: int, frame: Any) -> bool:
    """Return whether a frame is not the one that the timeline has at its number."""
    if timeline.stamps is None:
        return False
    return number >= timeline.count or timeline.stamps[number] != frame.pts


def lost(path: pathlib.Path, number: int, error: UserError | None = None) -> UserError:
    """Return the error of a frame that does not come."""
    why = f" ({reason_of(error.__cause__)})" if error is not None and error.__cause__ else ""
    return UserError(
        f"Frame {number} of the video {str(path)!r} cannot be decoded{why}; get the file again or leave it out."
    )
