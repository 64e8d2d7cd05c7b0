"""When the frames of a video file are shown, which of them can be decoded first, and whether the file is whole.

Packets tell it without decoding where containers and codecs keep one packet, stamped, for every frame, and where the
first frame that decodes is the first one that they name. Elsewhere the file is decoded once, and its frames are those
that came: AVI stamps no frame, MPEG program and transport streams cannot be entered reliably, and a stream that was cut
out of another begins with pictures that nothing decodes.
"""

import functools
import os
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.videos.container import opened

Array = np.ndarray
MP4, MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"
SEEKABLE = (MP4, MATROSKA)  # containers that can be entered at any key frame
SINGLE = ("av1", "dnxhd", "ffv1", "h264", "hevc", "mjpeg", "png", "prores", "vp9")  # codecs of one frame a packet
EPOCHS = ("mpeg", "mpegts")  # containers whose stamps begin anywhere
DECLARED = (MATROSKA, "asf", "flv")  # containers whose header says how long they are
SLACK = 2  # frames by which a header may be wrong
UNEVEN = 1.5  # a longer step than so many median steps is a variable rate


@dataclass(frozen=True)
class Timeline:
    """When the frames of a video are shown.

    Attributes:
      stamps: int64[N], time stamps of the frames in order; None where the file has none.
      keys: int64[K], stamps of frames at which decoding may begin; none where frames are counted from the start.
      unit: seconds of one unit of the stamps.
      count: N.
      zero: stamp of second 0 of the file's clock, which may be before the first frame.
      aspect: width over height of a pixel.
      lost: what is missing at the end, in words; "" for a whole file.
    """

    stamps: Array | None
    keys: Array
    unit: float
    count: int
    zero: int = 0
    aspect: float = 1.0
    lost: str = ""

    @property
    def seekable(self) -> bool:
        """Return whether decoding may begin elsewhere than at the start."""
        return self.stamps is not None and len(self.keys) > 0

    @property
    def seconds(self) -> Array | None:
        """Return when each frame is shown by the file's clock, float64[N]; None where nobody knows.

        >>> Timeline(np.array([50, 54]), np.zeros(1), 0.01, 2).seconds.tolist()
        [0.5, 0.54]
        """
        return None if self.stamps is None else (self.stamps - self.zero) * self.unit

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


@dataclass
class Index:
    """What is known of a file; its timeline is replaced once decoding shows that packets told it wrong."""

    timeline: Timeline


@dataclass(frozen=True)
class Scan:
    """What the packets of a file say.

    Attributes:
      stamps: of the frames that are shown, in order; None for an unknown one.
      keys: stamps of key frames, hidden ones included.
      first: stamp of the first frame that decodes; None where none does, or it has none.
      packets: their number, those of hidden frames included.
      end: stamp at which the last one ends.
    """

    stamps: list[int | None]
    keys: list[int]
    first: int | None
    packets: int
    end: int


def read_timeline(video: str | os.PathLike, *, whole: bool = True) -> Timeline:
    """Return when the frames of a file are shown; kept for the files that were read last.

    Args:
      video: the file.
      whole: refuse a file that is cut off; else its frames are those up to there.

    Raises:
      UserError: missing, empty, no video, unreadable, without a frame, or cut off.
    """
    timeline = read_index(video).timeline
    if not timeline.count or (whole and timeline.lost):
        reason = timeline.lost or "it holds no picture that can be decoded"
        raise UserError(f"Video {str(video)!r} is cut off: {reason}; get the file again or leave it out.")
    return timeline


def read_index(video: str | os.PathLike) -> Index:
    """Return what is known of a file; see `read_timeline`."""
    try:
        state = os.stat(video)
    except OSError as error:
        raise UserError(
            f"Cannot read the video {str(video)!r}: {error.strerror}; restore it or leave it out."
        ) from None
    if not state.st_size:
        raise UserError(f"Video {str(video)!r} is empty (0 bytes); get the file again or leave it out.")
    return _read_index(str(video), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=1 << 14)
def _read_index(video: str, size: int, changed: int) -> Index:
    with opened(video) as (container, stream):
        name, codec = container.format.name, stream.codec_context.codec.canonical_name
        unit, aspect = float(stream.time_base), float(stream.sample_aspect_ratio or 1)
        zero = round((container.start_time or 0) / 1e6 / unit) if name in EPOCHS else 0
        found = scan(container, stream)
        lost = shortage(container, stream, found, pathlib.Path(video), size)
    told = name in SEEKABLE and codec in SINGLE and rising(found.stamps) and found.stamps[:1] == [found.first]
    keys = np.array(sorted(found.keys) if told else [], np.int64)
    stamps = np.array(found.stamps, np.int64) if told else None
    line = Timeline(stamps, keys, unit, len(found.stamps), zero, aspect or 1.0, lost)
    return Index(line if told and not lost else count(video, line))


def scan(container: Any, stream: Any) -> Scan:
    """Read all packets of a stream, and decode the first frame."""
    stamps: list[int | None] = []
    keys: list[int] = []
    first, number, end, searching = None, 0, 0, True
    for packet in container.demux(stream):
        if searching and (frames := decoded(packet)) is not None:
            searching, first = False, frames[0].pts
        if not packet.size:
            continue
        number += 1
        end = max(end, (packet.pts or 0) + (packet.duration or 0))
        if packet.is_keyframe and packet.pts is not None:
            keys.append(packet.pts)
        if not packet.is_discard:
            stamps.append(packet.pts)
    stamps = stamps if None in stamps else sorted(stamps, key=lambda stamp: stamp or 0)
    return Scan(stamps, keys, first, number, end)


def decoded(packet: Any) -> list[Any] | None:
    """Return the frames that a packet brings forth, None for none; its fault is met again by who wants its frames."""
    try:
        return packet.decode() or None
    except Exception:
        return None


def count(video: str | os.PathLike, line: Timeline) -> Timeline:
    """Return a timeline with the frames that decoding from the start gives, which are to be counted.

    Those of a file that is cut off end where decoding fails.
    """
    stamps: list[int | None] = []
    try:
        with opened(video) as (container, stream):
            for frame in container.decode(stream):
                if line.lost and frame.is_corrupt:
                    break
                stamps.append(frame.pts)
    except UserError:
        if not line.lost:
            raise
    times = np.array(stamps, np.int64) if rising(stamps) else None
    return replace(line, stamps=times, keys=line.keys[:0], count=len(stamps))


def rising(stamps: Sequence[int | None]) -> bool:
    """Return whether all time stamps are known, each later than the one before.

    >>> rising([1, 2, 4]), rising([1, None]), rising([1, 1])
    (True, False, False)
    """
    return None not in stamps and bool((np.diff(np.array(stamps, np.int64)) > 0).all())


# --- files that end early ---


def shortage(container: Any, stream: Any, found: Scan, path: pathlib.Path, size: int) -> str:
    """Return in words what a file lacks at its end; "" if nothing."""
    name, named = container.format.name, stream.frames
    if name == MP4:
        beyond = any(entry.pos + entry.size > size for entry in stream.index_entries)
        short = beyond or last_box(path, MP4) in (b"moof", b"mdat")
    elif name == "avi":  # frames that were dropped are counted in the header, too, and no packets
        short = found.packets < named - SLACK and last_box(path, "avi") == b"RIFF"
    else:
        short = found.packets < named - SLACK
    if short:
        return f"it holds {found.packets} of the {max(named, found.packets + 1)} frames that its header names"
    if name not in DECLARED and (name != MP4 or named):
        return ""
    unit = float(stream.time_base)
    said, ends = (container.duration or 0) / 1e6, found.end * unit
    known = sorted(stamp for stamp in found.stamps if stamp is not None)
    step = max([0, *np.diff(known)]) * unit
    if said - ends > SLACK * step and said - (ends := max(ends, last_end(path))) > SLACK * step:
        return f"its header says {said:.2f} seconds, but its data end at {ends:.2f}"
    return ""


def last_box(path: pathlib.Path, kind: str) -> bytes:
    """Return the name of the last of a file's outermost boxes if it says that it is longer than the file; else b""."""
    place, size, name = 0, path.stat().st_size, b""
    with path.open("rb") as file:
        while place + 8 < size:
            file.seek(place)
            head = file.read(16)
            if kind == MP4:
                name, length = head[4:8], int.from_bytes(head[:4], "big")
                length = int.from_bytes(head[8:], "big") if length == 1 else length or size - place
            else:
                name, length = head[:4], int.from_bytes(head[4:8], "little") + 8
            if length < 8 or not name.isascii():
                return b""
            place += length
    return name if place > size + 1 else b""  # the last of an AVI may lack its padding


def last_end(path: pathlib.Path) -> float:
    """Return the second at which the last packet of all streams ends: sound may be longer than pictures."""
    with opened(path) as (container, _):
        packets = (packet for packet in container.demux() if packet.size and packet.pts is not None)
        return max((float((packet.pts + (packet.duration or 0)) * packet.time_base) for packet in packets), default=0.0)
