"""Frames of a video by their exact numbers: of a file, read with PyAV, or of a folder of pictures.

Frame n is the n-th in order of presentation. The packets' time stamps say which that is, whatever the frame rate, so
that a frame is decoded from the key frame before it and recognised by its stamp. AVI keeps no such stamps, and what
decoders make up in their stead depends on where they start: its frames are decoded from the first on and counted.
"""

import functools
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import images
from jax_promptmtl.data.videos.folders import picture_files

Array = np.ndarray
HIDDEN = ("vp8",)  # codecs with packets that show nothing: frames are what the decoder gives
UNSTAMPED = ("avi",)  # containers that keep no times of showing
SLACK = 2  # frames by which a header may be wrong
UNEVEN = 1.5  # a longer step than so many median steps is a variable rate


@dataclass(frozen=True)
class Timeline:
    """When the frames of a video are shown.

    Attributes:
      stamps: int64[N], time stamps of the frames in order; None where the file has none.
      keys: int64[K], those of the key frames; none where packets do not tell, and frames must be counted.
      unit: seconds of one unit of the stamps.
      count: N.
    """

    stamps: Array | None
    keys: Array
    unit: float
    count: int

    @property
    def seconds(self) -> Array | None:
        """Return when each frame is shown, float64[N] in seconds after the first; None where nobody knows."""
        return None if self.stamps is None else (self.stamps - self.stamps[0]) * self.unit

    @property
    def rate(self) -> float | None:
        """Return the frames per second; None where they vary or nobody knows.

        >>> Timeline(np.arange(0, 100, 4), np.zeros(1), 0.01, 25).rate
        25.0
        >>> Timeline(np.array([0, 4, 8, 80]), np.zeros(1), 0.01, 4).rate
        """
        if self.stamps is None or self.count < 2:
            return None
        steps, rounding = np.diff(self.stamps), 1  # stamps are whole numbers: a step may be one unit off
        middle = np.median(steps)
        if steps.max() > max(UNEVEN * middle, middle + rounding) or steps.min() < min(
            middle / UNEVEN, middle - rounding
        ):
            return None
        return float((self.count - 1) / ((self.stamps[-1] - self.stamps[0]) * self.unit))


def frames(video: str | os.PathLike, numbers: Sequence[int] | Array) -> Array:
    """Read frames of a file or of a folder of pictures.

    Args:
      video: the file or folder.
      numbers: L frame numbers from 0, in any order, also several times.

    Returns:
      uint8[L, H, W, 3], RGB.

    Raises:
      UserError: missing, unreadable, cut off, or shorter than a number asks; PyAV is not installed.
    """
    path = pathlib.Path(video)
    wanted = [int(number) for number in numbers]
    if path.is_dir():
        files = picture_files(path)
        require(path, wanted, len(files))
        return pictures([files[number] for number in wanted])
    timeline = read_timeline(path)
    require(path, wanted, timeline.count)
    found: dict[int, Array] = {}
    try:
        for number, frame in decode(path, timeline, sorted(set(wanted))):
            found[number] = frame.to_ndarray(format="rgb24")
    except pyav().FFmpegError as error:
        raise broken(path, error) from None
    if lost := [number for number in wanted if number not in found]:
        raise UserError(f"Frame {lost[0]} of the video {str(path)!r} cannot be decoded; get the file again.")
    return same_size([found[number] for number in wanted], path)


def require(path: pathlib.Path, wanted: Sequence[int], count: int) -> None:
    """Refuse frame numbers that a video of so many frames does not have."""
    if not wanted or min(wanted) < 0 or max(wanted) >= count:
        asked = f"frames {min(wanted)} to {max(wanted)}" if wanted else "no frame"
        raise UserError(
            f"Video {str(path)!r} has {count} frames, 0 to {count - 1}, but {asked} were asked for; sample fewer or "
            "closer frames, or leave it out."
        )


def length(video: str | os.PathLike) -> int:
    """Return the number of frames of a file or folder."""
    path = pathlib.Path(video)
    return len(picture_files(path)) if path.is_dir() else read_timeline(path).count


def nearest(video: str | os.PathLike, second: float, folder_rate: float = 0.0) -> int:
    """Return the number of the frame that is shown nearest to a time.

    Args:
      video: file or folder.
      second: time since the first frame.
      folder_rate: frames per second of a folder, which has no times of its own.

    Raises:
      UserError: the video ends before, or has no time stamps.
    """
    path = pathlib.Path(video)
    if path.is_dir():
        number, count = round(second * folder_rate), len(picture_files(path))
        require(path, [number], count)
        return number
    times = read_timeline(path).seconds
    if times is None:
        raise UserError(f"Video {str(path)!r} has no time stamps, so second {second:g} of it is unknown; convert it.")
    step = times[-1] / max(len(times) - 1, 1)
    if not -step <= second <= times[-1] + step:
        raise UserError(
            f"Video {str(path)!r} lasts {times[-1] + step:.2f} seconds, but second {second:g} is labelled; get the "
            "whole file, or say where it starts."
        )
    return int(np.abs(times - second).argmin())


# --- folders ---


def pictures(files: Sequence[str | os.PathLike]) -> Array:
    """Read picture files of one size, uint8[L, H, W, 3]."""
    return same_size([images.decode(file) for file in files], pathlib.Path(files[0]).parent)


def same_size(read: Sequence[Array], path: pathlib.Path) -> Array:
    """Stack frames, which must have one size."""
    if len(sizes := {frame.shape[:2] for frame in read}) > 1:
        (h, w), (g, v) = sorted(sizes)[:2]
        raise UserError(f"Frames of {str(path)!r} have several sizes, {w} x {h} and {v} x {g}; extract them again.")
    return np.stack(read)


# --- files ---


def pyav() -> Any:
    """Return the module PyAV, which only videos need."""
    try:
        import av
    except ImportError:
        raise UserError("Reading videos needs PyAV; install it with pip install 'jax_promptmtl[video]'.") from None
    return av


def broken(path: pathlib.Path, error: Exception) -> UserError:
    """Return the error of a file that PyAV cannot read."""
    reason = getattr(error, "strerror", None) or error
    return UserError(f"Video {str(path)!r} cannot be read ({reason}); get the file again or leave it out.")


def read_timeline(video: str | os.PathLike) -> Timeline:
    """Return when the frames of a file are shown; kept for the files that were read last.

    Raises:
      UserError: missing, empty, no video, or cut off: fewer frames than its header names.
    """
    try:
        state = os.stat(video)
    except OSError as error:
        raise UserError(
            f"Cannot read the video {str(video)!r}: {error.strerror}; restore it or leave it out."
        ) from None
    if not state.st_size:
        raise UserError(f"Video {str(video)!r} is empty (0 bytes); get the file again or leave it out.")
    return _read_timeline(str(video), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=512)
def _read_timeline(video: str, size: int, changed: int) -> Timeline:
    path, av = pathlib.Path(video), pyav()
    try:
        with av.open(video) as container:
            if not container.streams.video:
                raise UserError(f"File {video!r} has no video in it; get the file again or leave it out.")
            stream = container.streams.video[0]
            packets = [packet for packet in container.demux(stream) if packet.size]
            shown = [packet for packet in packets if not packet.is_discard]
            unit, named, codec = float(stream.time_base), stream.frames, stream.codec_context.name
            told = container.format.name not in UNSTAMPED
        stamps = [packet.pts for packet in shown]
        keys = np.array([packet.pts for packet in shown if packet.is_keyframe and packet.pts is not None], np.int64)
        told = told and None not in stamps and rising(stamps := sorted(stamps))
        if not told or codec in HIDDEN:
            with av.open(video) as container:
                stamps = [frame.pts for frame in container.decode(video=0)]
    except av.FFmpegError as error:
        raise broken(path, error) from None
    if not stamps or len(packets) < named - SLACK:
        raise UserError(
            f"Video {video!r} is cut off: it holds {len(packets)} of the {max(named, 1)} frames that its header names; "
            "get the file again or leave it out."
        )
    times = np.array(stamps, np.int64) if rising(stamps) else None
    return Timeline(times, np.sort(keys) if told else keys[:0], unit, len(stamps))


def rising(stamps: Sequence[int | None]) -> bool:
    """Return whether all time stamps are known, each later than the one before.

    >>> rising([1, 2, 4]), rising([1, None]), rising([1, 1])
    (True, False, False)
    """
    return None not in stamps and bool((np.diff(np.array(stamps, np.int64)) > 0).all())


def decode(path: pathlib.Path, timeline: Timeline, wanted: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """Yield (number, PyAV frame) of rising frame numbers; those that the decoder does not give are left out."""
    with pyav().open(str(path)) as container:
        stream = container.streams.video[0]
        if timeline.stamps is None or not len(timeline.keys):
            yield from pick_counted(container.decode(stream), wanted)
            return
        for run in runs(timeline, wanted):
            target = {int(timeline.stamps[number]): number for number in run}
            start = timeline.keys[np.searchsorted(timeline.keys, min(target), side="right") - 1]
            container.seek(int(start), stream=stream, backward=True)
            yield from pick_stamped(container.decode(stream), target)


def runs(timeline: Timeline, wanted: Iterable[int]) -> list[list[int]]:
    """Cut rising frame numbers into runs that are decoded from one key frame on.

    >>> line = Timeline(np.arange(10), np.array([0, 4, 8]), 1.0, 10)
    >>> runs(line, [1, 2, 5, 6, 7])
    [[1, 2], [5, 6, 7]]
    """
    assert timeline.stamps is not None
    stamps = timeline.stamps
    before = [int(np.searchsorted(timeline.keys, stamps[number], side="right")) for number in wanted]
    pairs = zip(before, wanted, strict=True)
    return [[number for _, number in group] for _, group in itertools.groupby(pairs, key=lambda pair: pair[0])]


def pick_stamped(decoded: Iterator[Any], target: dict[int, int]) -> Iterator[tuple[int, Any]]:
    """Yield the frames whose time stamps are asked for, until the last of them has passed."""
    last = max(target)
    for frame in decoded:
        if frame.pts in target and not frame.is_corrupt:
            yield target[frame.pts], frame
        if frame.pts is not None and frame.pts >= last:
            return


def pick_counted(decoded: Iterator[Any], wanted: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """Yield the frames of these numbers, counting from the start."""
    chosen = set(wanted)
    for number, frame in enumerate(decoded):
        if number in chosen:
            yield number, frame
        if number >= max(chosen):
            return
