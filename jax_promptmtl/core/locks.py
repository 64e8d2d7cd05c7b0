"""Locks: one run at a time per work directory, and claims by which several processes share a sweep.

A claim is a file that only one process can create (O_EXCL); it holds the process id, host and time. A killed process
leaves its claim behind, and the next process on the same host takes it over.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import time
from collections.abc import Iterator
from typing import Any

from jax_promptmtl.core.errors import UserError

TORN_AFTER = 60.0  # seconds after which an unreadable claim is void: its writer died while writing it


@contextlib.contextmanager
def lock(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold an advisory file lock for one run; the operating system releases it when the process ends.

    Raises:
      UserError: another process holds it; the message names its id, host and start time.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise UserError(
                f"{path.parent} is in use by {owner}; wait until it ends or give another workdir."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        file.flush()
        yield


class Busy(Exception):
    """Another process holds the claim; the message names it."""


@contextlib.contextmanager
def hold(path: pathlib.Path) -> Iterator[None]:
    """Hold a claim until the block ends.

    Args:
      path: of the claim's file; its folder is made if missing.

    Raises:
      Busy: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not create(path):
        take_over(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def create(path: pathlib.Path) -> bool:
    """Create the file with this process as its owner; returns whether it was not there before."""
    try:
        number = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(number, "w") as file:
        file.write(json.dumps(owner()))
    return True


def take_over(path: pathlib.Path) -> None:
    """Replace the claim of a dead process; a lock on the folder serialises such takeovers."""
    with (path.parent / ".taking_over").open("a") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        found = read(path)
        if found is not None:
            if alive(found):
                raise Busy(f"process {found['pid']} on {found['host']} since {found['since']} ({path})")
            path.unlink(missing_ok=True)
        if not create(path):  # a third process came between
            raise Busy(f"another process ({path})")


def owner() -> dict[str, Any]:
    """Return this process's identity as stored in a claim: id, host and times."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "born": born(os.getpid())}


def read(path: pathlib.Path) -> dict[str, Any] | None:
    """Return the content of a claim, or `None` if it has been released."""
    try:
        text, age = path.read_text(), time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    try:
        found = json.loads(text)
        return {key: found[key] for key in ("pid", "host", "since", "born")}
    except (ValueError, KeyError, TypeError):
        here = age > TORN_AFTER
        return {"pid": 0 if here else -1, "host": socket.gethostname() if here else "?", "since": "?", "born": ""}


def alive(found: dict[str, Any]) -> bool:
    """Return whether the owner of a claim is running; owners on other hosts count as alive."""
    if found["host"] != socket.gethostname():
        return True
    if found["pid"] <= 0:
        return False
    try:
        os.kill(found["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # alive, but owned by another user
    return not found["born"] or born(found["pid"]) == found["born"]  # process ids are reused, as after a reboot


def born(pid: int) -> str:
    """Return boot id and start time, which tell apart processes that reuse an id; "" where unknown."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except OSError:
        return ""
