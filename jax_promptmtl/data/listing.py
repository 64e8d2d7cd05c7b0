"""Which pictures are below a folder, and which other files are passed over."""

import os
import pathlib
import stat
from collections import deque
from dataclasses import dataclass, field

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.images import SUFFIXES

SYSTEM = {"@eadir", "__macosx", "$recycle.bin", "system volume information", "lost+found", "#recycle"}


@dataclass
class Listing:
    """What a look below a folder found.

    Attributes:
      sizes: path below the folder -> bytes, sorted; 0 for broken links and what is no regular file.
      passed: paths of the files that are no pictures by their endings.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    passed: list[str] = field(default_factory=list)


def hidden(name: str) -> bool:
    """Return whether a file or folder is none of the user's: hidden, or a system's own.

    >>> hidden(".DS_Store"), hidden("@eaDir"), hidden("cats")
    (True, True, False)
    """
    return name.startswith(".") or name.lower() in SYSTEM


def listing(place: str | os.PathLike[str]) -> Listing:
    """List the pictures below a folder; hidden and system folders are passed over, and no folder is read twice.

    A link to a folder is followed unless that folder is read anyhow, so that links in a circle end.

    Raises:
      UserError: a folder cannot be read.
    """
    found, seen = Listing(), set()
    waiting, links = deque([""]), deque[str]()
    while waiting or links:
        inner = waiting.popleft() if waiting else links.popleft()
        if (folder := identity(os.path.join(place, inner))) in seen:
            continue
        seen.add(folder)
        for entry in entries(os.path.join(place, inner)):
            if hidden(entry.name):
                continue
            if is_folder(entry):
                (links if entry.is_symlink() else waiting).append(f"{inner}{entry.name}/")
            elif entry.name.lower().endswith(SUFFIXES):
                found.sizes[f"{inner}{entry.name}"] = size(entry)
            else:
                found.passed.append(f"{inner}{entry.name}")
    return Listing(dict(sorted(found.sizes.items())), sorted(found.passed))


def subfolders(parent: pathlib.Path) -> list[pathlib.Path]:
    """Return the folders in a folder, sorted, without hidden and system ones."""
    return sorted(parent / entry.name for entry in entries(parent) if is_folder(entry) and not hidden(entry.name))


def loose(parent: pathlib.Path) -> list[str]:
    """Return the names of the files in a folder itself, sorted, without hidden ones."""
    return sorted(entry.name for entry in entries(parent) if not is_folder(entry) and not hidden(entry.name))


def entries(place: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """Return what is in a folder."""
    try:
        return list(os.scandir(os.fspath(place)))
    except OSError as error:
        raise UserError(
            f"Cannot read the folder {os.fspath(place)!r}: {error.strerror}; allow it, or move it."
        ) from None


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one; a link in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def size(entry: os.DirEntry[str]) -> int:
    """Return the bytes of a regular file; 0 for anything else, such as a broken link, a pipe or a device."""
    try:
        status = entry.stat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def identity(place: str | os.PathLike[str]) -> tuple[int, int]:
    """Return what is the same for all paths of a folder."""
    try:
        status = os.stat(place)
    except OSError as error:
        raise UserError(
            f"Cannot read the folder {os.fspath(place)!r}: {error.strerror}; allow it, or move it."
        ) from None
    return status.st_dev, status.st_ino


def count(number: int, what: str) -> str:
    """Return a number of things in words.

    >>> count(1, "file"), count(1200, "file")
    ('1 file', '1,200 files')
    """
    return f"{number:,} {what}" + ("" if number == 1 else "s")
