"""Locks: a work directory has one run at a time, and several processes share a grid of runs through claims.

A claim is a file that only one process can create (O_EXCL), with its process number, host and time. A process that was
killed leaves it behind; the next one on the same host sees that and takes it over.
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

TORN_AFTER = 60.0  # seconds after which a claim without readable content is no claim: its writer died within the write


@contextlib.contextmanager
def lock(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a file's lock, so that two runs never write to one place. The system frees it when the process ends.

    Raises:
      UserError: another process holds it; the sentence says which, where and since when.
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
    """Another process holds the claim; the message says which one."""


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
    """Replace the claim of a process that is gone; one process at a time decides about a folder's claims."""
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
    """Return what a claim says of this process."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "born": born(os.getpid())}


def read(path: pathlib.Path) -> dict[str, Any] | None:
    """Return the content of a claim, or `None` if it is not there any more."""
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
    """Return whether the owner of a claim lives, as far as this host can know: owners elsewhere count as alive."""
    if found["host"] != socket.gethostname():
        return True
    if found["pid"] <= 0:
        return False
    try:
        os.kill(found["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # lives, as another user
    return not found["born"] or born(found["pid"]) == found["born"]  # numbers are given again, as after a reboot


def born(pid: int) -> str:
    """Return what tells a process from a later one of the same number: boot and start time; "" where nothing does."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except OSError:
        return ""
