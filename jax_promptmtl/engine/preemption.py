"""Stopping without losing work: signals, and the lock of a workdir.

Of several processes any one may get the signal, and all must stop at the same step: there JAX's preemption service
takes SIGTERM, spreads it and picks the step: the number after the highest that any process has asked with. It must keep
that signal's handler; the others are sent on as SIGTERM.
"""

import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import TypeVar

import jax
from jax.experimental import multihost_utils

from jax_promptmtl.core.errors import Preempted

Item = TypeVar("Item")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


class Stop:
    """Whether a signal asked the run to stop; `signal` is its name, or `None`."""

    signal: str | None = None
    # Of the whole process: JAX wants numbers that grow by one, from one training to the next, and from nobody else.
    _questions = itertools.count(1)

    def asked(self) -> bool:
        """Return whether to stop now. All processes must ask equally often, and get the same answer."""
        if jax.distributed.is_initialized() and self.signal is None:
            self.signal = "SIGTERM" if multihost_utils.reached_preemption_sync_point(next(self._questions)) else None
        return self.signal is not None


def heed() -> None:
    """Raise `Preempted` if several processes are to stop where nothing is to be saved; all must call it equally often.

    One process needs no such places: see `interruptible`.
    """
    stop = Stop()
    if stop.asked():
        raise Preempted(stopped(stop.signal))


def heeding(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items, and `heed` after each."""
    for item in items:
        yield item
        heed()


def stopped(name: str | None) -> str:
    """Say that a signal stopped a run outside its trainings."""
    return f"{name} stopped the run; what was saved stays, run the same command to go on."


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn the `SIGNALS` into `Preempted`, raised wherever the program is; `listen` is more patient."""

    def receive(name: str, restore: Callable[[], None]) -> None:
        del restore
        raise Preempted(stopped(name))

    with handled(receive):
        yield


@contextlib.contextmanager
def handled(receive: Callable[[str, Callable[[], None]], None]) -> Iterator[None]:
    """Give the signals a handler until the block ends.

    Only the main thread can receive signals; in any other nothing happens.

    Args:
      receive: called with the signal's name, and a function that puts the handlers from before back early.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in SIGNALS if number != signal.SIGHUP or not outlives_terminal()]
    if jax.distributed.is_initialized():
        numbers.remove(signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        if jax.distributed.is_initialized():
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            receive(signal.Signals(number).name, restore)

    for number in numbers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


def outlives_terminal() -> bool:
    """Return whether the process was started to go on when its terminal closes, as nohup does."""
    return signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@contextlib.contextmanager
def listen() -> Iterator[Stop]:
    """Turn the first of the `SIGNALS` into a wish to stop; a second one acts as it would have before."""
    stop = Stop()

    def receive(name: str, restore: Callable[[], None]) -> None:
        stop.signal = name
        restore()

    with handled(receive):
        yield stop
