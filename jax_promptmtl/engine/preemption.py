"""Stopping without losing work: signals, and the lock of a workdir."""

import contextlib
import fcntl
import os
import pathlib
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from jax_promptmtl.errors import UserError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Preempted(Exception):
    """The run was asked to stop, and saved a checkpoint. `main` exits with code 75: run me again."""


class Stop:
    """Whether a signal asked the run to stop; `signal` is its name, or `None`."""

    signal: str | None = None


@contextlib.contextmanager
def listen() -> Iterator[Stop]:
    """Turn the first SIGTERM, SIGINT or SIGUSR1 into a wish to stop; a second one acts as it would have before.

    Only the main thread can receive signals; in any other the wish never comes.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def receive(number: int, frame: Any) -> None:
        del frame
        stop.signal = signal.Signals(number).name
        restore()

    for number in SIGNALS:
        signal.signal(number, receive)
    try:
        yield stop
    finally:
        restore()


@contextlib.contextmanager
def lock(path: Any) -> Iterator[None]:
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
