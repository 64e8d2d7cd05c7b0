"""Lists of videos without a head, as VideoMAE, mmaction2 and others have them: on each line a path and a label.

  videos/a b.mp4 0        spaces, tabs, commas or semicolons between them; labels are numbers or names
  frames/17 163 0         a folder of frames and their number, which is not needed

Paths are relative to the list's folder or to a folder in it, or absolute. A list whose name has `train` in it has a
partner to test on, named alike: `train.csv` and `test.csv`, or else `val.csv`.
"""

import os
import pathlib
import re
from collections.abc import Callable

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.label_table import SEPARATORS
from jax_promptmtl.data.videos.annotations import WHOLE, numbered_lines
from jax_promptmtl.data.videos.folders import VIDEOS, has_ending, scan

ENDINGS = (".csv", ".txt", ".list", ".lst")
PARTNERS = {"training": ("testing", "validation"), "train": ("test", "val", "validation", "valid")}
FORM = "path/of/video.mp4 3"
SEVERAL = re.compile(rf".*({'|'.join(map(re.escape, VIDEOS))})[\s,;]+\d[\d\s,;]*", re.IGNORECASE)
Classes = dict[str, list[str]]  # class -> paths of its videos below the folder


def is_list(path: pathlib.Path) -> bool:
    """Return whether a file's first line has a video and a label, not the names of columns."""
    first = next(iter(numbered_lines(path).values()), "")
    video, label = cut(separator_of(first), first)
    if not video or not label:
        return False
    return bool(WHOLE.fullmatch(label)) or has_ending(video, VIDEOS) or os.path.exists(path.parent / video)


def read(path: pathlib.Path) -> Classes:
    """Return the classes of a list, numbers in their order, and names in that of the alphabet.

    Raises:
      UserError: a line without a label, with several, or the path of another one.
    """
    lines = numbered_lines(path)
    separator = separator_of(next(iter(lines.values()), ""))
    pairs = {number: cut(separator, line) for number, line in lines.items()}
    for number, (video, label) in pairs.items():
        if not video or not label:
            raise UserError(f"Line {number} of {str(path)!r} is {lines[number][:80]!r}; it must look like {FORM!r}.")
        if SEVERAL.fullmatch(video):
            raise UserError(f"Line {number} of {str(path)!r} has several labels, {lines[number][:80]!r}; give one.")
    pairs = without_counts(pairs, path.parent)
    below = prefix(path.parent, [video for video, _ in pairs.values()])
    classes: Classes = {}
    seen: dict[str, int] = {}
    for number, (video, label) in pairs.items():
        if (first := seen.setdefault(video, number)) != number:
            raise UserError(f"Line {number} of {str(path)!r} has {video!r} of line {first} again; remove one of them.")
        classes.setdefault(label, []).append(below + video)
    order: Callable = int if all(WHOLE.fullmatch(label) for label in classes) else str
    return {label: sorted(classes[label]) for label in sorted(classes, key=order)}


def separator_of(line: str) -> str | None:
    """Return what separates a line's columns; None for spaces.

    >>> separator_of("a.mp4, 3"), separator_of("a b.mp4  3")
    (',', None)
    """
    return next((mark for mark in ("\t", *SEPARATORS) if mark in line), None)


def cut(separator: str | None, line: str) -> tuple[str, str]:
    """Return the path and the label of a line; empty where there is none.

    >>> cut(None, "a b.mp4  3"), cut(",", '"a, b.mp4",jump rope'), cut(None, "a.mp4")
    (('a b.mp4', '3'), ('a, b.mp4', 'jump rope'), ('', ''))
    """
    parts = [part.strip().strip('"') for part in line.rsplit(separator, 1)]
    return (parts[0], parts[1]) if len(parts) == 2 else ("", "")


def without_counts(pairs: dict[int, tuple[str, str]], folder: pathlib.Path) -> dict[int, tuple[str, str]]:
    """Return paths without the number of frames that all of them, folders, are followed by, if they are."""
    cuts = {number: re.fullmatch(r"(.*\S)[\s,;]+(\d+)", video, re.ASCII) for number, (video, _) in pairs.items()}
    paths = [video for video, _ in pairs.values()]
    if not all(cuts.values()) or any(has_ending(video, VIDEOS) or os.path.exists(folder / video) for video in paths):
        return pairs
    return {number: (found[1].strip('"'), pairs[number][1]) for number, found in cuts.items() if found}


def prefix(folder: pathlib.Path, videos: list[str]) -> str:
    """Return the folder in the list's own that the paths are relative to, with a slash; "" for the list's own."""
    if any(os.path.exists(folder / video) for video in videos):
        return ""
    homes = (name for name in scan(str(folder))[1] if any(os.path.exists(folder / name / video) for video in videos))
    return next((f"{home}/" for home in homes), "")


def partner(path: pathlib.Path) -> pathlib.Path | None:
    """Return the list to test on that belongs to one to train on, if there is one."""
    found = next((word for word in PARTNERS if word in path.name.lower()), "")
    at = path.name.lower().find(found)
    names = (path.name[:at] + word + path.name[at + len(found) :] for word in PARTNERS.get(found, ()))
    return next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)


def lists_in(folder: pathlib.Path) -> pathlib.Path | None:
    """Return the list of a folder to train on, which has a partner; None where there is none.

    Raises:
      UserError: there are several.
    """
    names = [name for name in scan(str(folder))[0] if has_ending(name, ENDINGS) and "train" in name.lower()]
    found = [folder / name for name in names if partner(folder / name)]
    if len(found) > 1:
        raise UserError(
            f"Folder {str(folder)!r} has several lists to train on, {found[0].name!r} and {found[1].name!r}; give one "
            "as data.root."
        )
    return found[0] if found else None
