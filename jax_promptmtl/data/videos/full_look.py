"""A look at every frame of video files, whose results are kept, so that it may be stopped and goes on.

Decoders conceal what they can: here they stop at the first fault, and what they and the readers of containers complain
of counts, such as bytes that were passed over.
"""

import contextlib
import logging
import pathlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.videos.container import opened, pyav
from jax_promptmtl.data.videos.decoding import lost, other
from jax_promptmtl.data.videos.display import shown
from jax_promptmtl.data.videos.kept_lines import KeptLines
from jax_promptmtl.data.videos.timeline import read_timeline


class FullLook:
    """What was found in files, by their size and time of change.

    Args:
      path: JSON lines, one for each file; read at the start and added to.
    """

    def __init__(self, path: pathlib.Path):
        self.kept, self.lock = KeptLines(path), threading.Lock()
        self.known = {(row["file"], row["size"], row["changed"]): row["fault"] for row in self.kept.rows}

    def fault(self, file: pathlib.Path) -> str:
        """Return what is wrong with a file in words, "" if nothing; decoded once."""
        state = file.stat()
        key = (str(file.resolve()), state.st_size, state.st_mtime_ns)
        if key not in self.known:
            found = damage(file)
            with self.lock:
                self.known[key] = found
                self.kept.add({"file": key[0], "size": key[1], "changed": key[2], "fault": found})
        return self.known[key]


def damage(path: pathlib.Path) -> str:
    """Decode every frame of a file and return the first fault in words, or ""."""
    timeline, number, size = read_timeline(path), -1, None
    try:
        with pyav().logging.Capture(local=True) as complaints, opened(path, careful=True) as (container, stream):
            for number, frame in enumerate(sound(container.demux(stream))):
                if frame is None or frame.is_corrupt or other(timeline, number, frame):
                    return str(lost(path, number))
                if size not in (None, (frame.width, frame.height)):
                    return f"Frames of {str(path)!r} have several sizes, first in frame {number}; convert the video."
                if size is None:
                    size = frame.width, frame.height
                    shown(frame, timeline.aspect, path)
    except UserError as error:
        return str(lost(path, number + 1, error)) if error.__cause__ else str(error)
    if number + 1 < timeline.count:
        return str(lost(path, number + 1))
    if complaints:
        return (
            f"Video {str(path)!r} is damaged, though its frames come ({complaints[0][1]}: {complaints[0][2].strip()}); "
            "get the file again or leave it out."
        )
    return ""


def sound(packets: Iterable[Any]) -> Iterator[Any]:
    """Yield the frames of packets; None for a packet of which its container says that a part is missing."""
    for packet in packets:
        if packet.is_corrupt:
            yield None
        yield from packet.decode()


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Let PyAV tell those who capture it of errors, which it keeps to itself otherwise."""
    tells, log, silence = pyav().logging, logging.getLogger("libav"), logging.NullHandler()
    level, propagate = tells.get_level(), log.propagate
    tells.set_level(tells.ERROR)
    log.addHandler(silence)
    log.propagate = False
    try:
        yield
    finally:
        tells.set_level(level)
        log.removeHandler(silence)
        log.propagate = propagate
