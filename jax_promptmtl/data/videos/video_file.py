"""Frames of a video by their exact numbers: of a file, read with PyAV, or of a folder of pictures.

Frame n is the n-th that decoding the file from its start gives, whatever the frame rate; `timeline` knows their stamps
and `decoding` how to come by them sooner. It is as a player shows it; see `display`.
"""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import images
from jax_promptmtl.data.videos import decoding
from jax_promptmtl.data.videos.folders import picture_files
from jax_promptmtl.data.videos.timeline import read_index, read_timeline

Array = np.ndarray


def frames(video: str | os.PathLike, numbers: Sequence[int] | Array, *, whole: bool = True) -> Array:
    """Read frames of a file or of a folder of pictures.

    Args:
      video: the file or folder.
      numbers: L frame numbers from 0, in any order, also several times.
      whole: refuse a file that is cut off; else its frames are those up to there.

    Returns:
      uint8[L, H, W, 3], RGB, as they are to be shown.

    Raises:
      UserError: missing, unreadable, cut off, or shorter than a number asks; PyAV is not installed.
    """
    path = pathlib.Path(video)
    wanted = [int(number) for number in numbers]
    if path.is_dir():
        files = picture_files(path)
        require(path, wanted, len(files))
        return pictures([files[number] for number in wanted])
    require(path, wanted, read_timeline(path, whole=whole).count)
    found = decoding.read(path, read_index(path), sorted(set(wanted)))
    return same_size([found[number] for number in wanted], path)


def require(path: pathlib.Path, wanted: Sequence[int], count: int) -> None:
    """Refuse frame numbers that a video of so many frames does not have."""
    if not wanted or min(wanted) < 0 or max(wanted) >= count:
        asked = f"frames {min(wanted)} to {max(wanted)}" if wanted else "no frame"
        raise UserError(
            f"Video {str(path)!r} has {count} frames, 0 to {count - 1}, but {asked} were asked for; sample fewer or "
            "closer frames, or leave it out."
        )


def length(video: str | os.PathLike, *, whole: bool = True) -> int:
    """Return the number of frames of a file or folder; see `frames`."""
    path = pathlib.Path(video)
    return len(picture_files(path)) if path.is_dir() else read_timeline(path, whole=whole).count


def shortage(video: str | os.PathLike) -> str:
    """Return in words what a file lacks at its end; "" if nothing, and of a folder."""
    return "" if pathlib.Path(video).is_dir() else read_timeline(video, whole=False).lost


def nearest(video: str | os.PathLike, second: float, folder_rate: float = 0.0, *, whole: bool = True) -> int:
    """Return the number of the frame that is shown at a time; where two are half a frame away, the nearer one.

    Args:
      video: file or folder.
      second: time by the clock of the file, which may start before its first frame; of a folder, after its first.
      folder_rate: frames per second of a folder, which has no times of its own.
      whole: see `frames`.

    Raises:
      UserError: nothing is shown then, or the video has no time stamps.
    """
    path = pathlib.Path(video)
    if path.is_dir():
        number, count = round(second * folder_rate), len(picture_files(path))
        require(path, [number], count)
        return number
    times = read_timeline(path, whole=whole).seconds
    if times is None:
        raise UserError(f"Video {str(path)!r} has no time stamps, so second {second:g} of it is unknown; convert it.")
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    last = max(float(times[-1]) + step, 0.0)
    if not times[0] - step <= second <= last:
        begins = f"begins at second {times[0]:.2f} and " if times[0] > step else ""
        raise UserError(
            f"Video {str(path)!r} {begins}lasts {last:.2f} seconds, but second {second:g} is labelled; get the whole "
            "file, or say where it starts."
        )
    return max(int(np.searchsorted(times, second + step / 2)) - 1, 0)


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
