"""What a folder holds: videos of any kind, folders of frames, and what is passed over.

Where there are videos, pictures beside them are no frames. A folder of pictures is one video, of those pictures that
are named alike; optical flow (`flow_x_00001.jpg`, ...) is told from frames. What systems leave behind and hidden files
are passed over quietly, all else is counted.
"""

import functools
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from jax_promptmtl.core.errors import UserError

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
VIDEOS = (
    *(".avi", ".divx", ".mp4", ".m4v", ".mov", ".qt", ".f4v", ".3gp", ".3g2", ".mkv", ".webm", ".flv", ".gif", ".ogv"),
    *(".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".mpv", ".vob", ".ts", ".m2t", ".mts", ".m2ts", ".wmv", ".asf", ".rm"),
    *(".rmvb", ".ogm", ".dv", ".mxf", ".nut", ".ivf", ".y4m", ".mjpeg", ".mjpg", ".h264", ".264", ".hevc", ".265"),
)
SYSTEMS = ("@eadir", "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "#recycle", "lost+found")
FLOW = re.compile(r"(.*[_-])?flow([_-]?[xyuv])?|[xyuv]")


@dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Attributes:
      videos: paths of files and of folders of frames, in order.
      passed: paths of the files that are not read.
    """

    videos: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()


def visible(name: str) -> bool:
    """Return whether a name is neither hidden nor one that systems leave behind.

    >>> visible("a.mp4"), visible("._a.mp4"), visible("@eaDir"), visible("Thumbs.db")
    (True, False, False, False)
    """
    return not name.startswith(".") and name.lower() not in SYSTEMS


def has_ending(name: str, endings: Sequence[str]) -> bool:
    """Return whether a name ends in one of several endings, in whatever case."""
    return os.path.splitext(name)[1].lower() in endings


def scan(folder: str) -> tuple[list[str], list[str]]:
    """Return the visible names in a folder: files, and folders."""
    try:
        entries = [(entry.name, entry.is_dir()) for entry in os.scandir(folder) if visible(entry.name)]
    except OSError as error:
        raise UserError(f"Cannot read the folder {str(folder)!r}: {error.strerror}; restore it.") from None
    files, folders = (sorted(name for name, below in entries if below is wanted) for wanted in (False, True))
    return files, folders


def listing(folder: str | os.PathLike, above: frozenset[tuple[int, int]] = frozenset()) -> Listing:
    """Return the videos below a folder, and what is passed over.

    Args:
      folder: where to look, however deep.
      above: the folders that it lies in, so that a link to one of them is not followed.
    """
    place, state = str(folder), os.stat(folder)
    if (here := (state.st_dev, state.st_ino)) in above:
        return Listing()
    files, folders = scan(place)
    below = [listing(os.path.join(place, name), above | {here}) for name in folders]
    deeper = tuple(video for found in below for video in found.videos)
    passed = [file for found in below for file in found.passed]
    movies = [name for name in files if has_ending(name, VIDEOS)]
    pictures = [name for name in files if has_ending(name, PICTURES)]
    others = [os.path.join(place, name) for name in files if name not in {*movies, *pictures}]
    if pictures and not movies and are_frames(pictures, deeper):
        others += [os.path.join(place, name) for name in pictures if name not in set(chosen(pictures))]
        others += [file for video in deeper for file in files_of(video)]
        return Listing((place,), tuple(sorted(others + passed)))
    videos = sorted([*(os.path.join(place, name) for name in movies), *deeper], key=lambda path: path.split(os.sep))
    others += [os.path.join(place, name) for name in pictures]
    return Listing(tuple(videos), tuple(sorted(others + passed)))


def are_frames(pictures: Sequence[str], deeper: Sequence[str]) -> bool:
    """Return whether pictures make a video: they are alone, or several frames beside folders of other pictures."""
    if not deeper:
        return True
    frames = chosen(pictures)
    return all(map(os.path.isdir, deeper)) and len(frames) > 1 and frame(frames[0]) is not None


def files_of(video: str) -> list[str]:
    """Return the paths of a folder's files."""
    return [os.path.join(video, name) for name in scan(video)[0]]


def spell(passed: Iterable[str], root: str | os.PathLike) -> str:
    """Return in words which files are not read; "" where all are.

    >>> spell(["/a/b/c.txt", "/a/d.TXT", "/a/README"], "/a")
    "3 files are no videos and not read (2 .txt, 1 without ending), such as 'b/c.txt'"
    """
    paths = list(passed)
    if not paths:
        return ""
    counts = Counter(os.path.splitext(path)[1].lower() or "without ending" for path in paths)
    kinds = ", ".join(f"{count:,} {ending}" for ending, count in counts.most_common(5))
    kinds += ", ..." if len(counts) > 5 else ""
    what = "1 file is no video" if len(paths) == 1 else f"{len(paths):,} files are no videos"
    return f"{what} and not read ({kinds}), such as {os.path.relpath(paths[0], root)!r}"


# --- folders of frames ---


def picture_files(folder: str | os.PathLike) -> tuple[str, ...]:
    """Return the paths of a folder's frames in the order of their numbers, which must have no gap.

    Raises:
      UserError: no picture, pictures of several kinds, a number twice, or a gap.
    """
    try:
        return _picture_files(str(folder), os.stat(folder).st_mtime_ns)
    except OSError as error:
        raise UserError(f"Cannot read the folder of frames {str(folder)!r}: {error.strerror}.") from None


@functools.lru_cache(maxsize=4096)
def _picture_files(folder: str, changed: int) -> tuple[str, ...]:
    names = [name for name in os.listdir(folder) if visible(name) and has_ending(name, PICTURES)]
    if not names:
        raise UserError(f"Folder {folder!r} has no frames; expected pictures such as img_00001.jpg.")
    found = kinds(names)
    if len(found) > 1:
        one, other, *_ = (sorted(some)[0] for some in found.values())
        raise UserError(f"Folder {folder!r} has pictures of several kinds, {one!r} and {other!r}; keep the frames.")
    order = sorted((frame_number(name), name) for name in chosen(names))
    steps = np.diff([number for number, _ in order])
    if len(steps) and (steps.min() < 1 or steps.max() != steps.min()):
        at = int(steps.argmax() if steps.min() > 0 else steps.argmin())
        raise UserError(
            f"Folder {folder!r} has frames {order[at][1]!r} and {order[at + 1][1]!r} side by side, but its numbers go "
            f"in steps of {max(int(np.median(steps)), 1)}; extract the frames again."
        )
    return tuple(os.path.join(folder, name) for _, name in order)


def frame(name: str) -> tuple[str, int, str] | None:
    """Return what stands before the last number in a file's name, the number, and what stands after; None without any.

    >>> frame("img_00012.jpg"), frame("v2_clip_7_rgb.png"), frame("cover.jpg")
    (('img_', 12, ''), ('v2_clip_', 7, '_rgb'), None)
    """
    found = re.fullmatch(r"(.*?)([0-9]+)([^0-9]*)", os.path.splitext(name)[0])
    return (found[1], int(found[2]), found[3]) if found else None


def frame_number(name: str) -> int:
    """Return the last number in a file's name, by which frames are ordered; 0 without any.

    >>> frame_number("img_00012.jpg"), frame_number("v2_clip_7.png")
    (12, 7)
    """
    found = frame(name)
    return found[1] if found else 0


def kinds(names: Iterable[str]) -> dict[tuple[str, str], list[str]]:
    """Return the pictures that may be frames, by what their names have beside the number.

    Names without a number are those of covers where others have one; optical flow is none where frames are beside it.

    >>> list(kinds(["img_1.jpg", "img_2.jpg", "flow_x_1.jpg", "flow_y_1.jpg", "cover.jpg"]).values())
    [['img_1.jpg', 'img_2.jpg']]
    """
    found: dict[tuple[str, str], list[str]] = {}
    bare: list[str] = []
    for name in names:
        parts = frame(name)
        if parts:
            found.setdefault((parts[0].lower(), parts[2].lower()), []).append(name)
        else:
            bare.append(name)
    frames = {key: some for key, some in found.items() if not any(FLOW.fullmatch(word.strip("_-")) for word in key)}
    return frames or found or {("", ""): bare}


def chosen(names: Iterable[str]) -> list[str]:
    """Return the pictures that may be a folder's frames."""
    return [name for some in kinds(names).values() for name in some]
