"""Preemption: stop on a signal without losing work, in one process or all of them at the same step.

Any one of several processes may receive the signal, and all must stop at the same step. There JAX's preemption service
handles SIGTERM, broadcasts it and picks the step: one after the highest counter that any process has queried. It must
keep the handler of that signal; other signals are forwarded as SIGTERM.
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
    # Process-wide: JAX needs a counter that grows by one per query, across trainings, with no other caller.
    _questions = itertools.count(1)

    def asked(self) -> bool:
        """Return whether to stop now, the same in all processes, which must call it equally often."""
        if jax.distributed.is_initialized() and self.signal is None:
            self.signal = "SIGTERM" if multihost_utils.reached_preemption_sync_point(next(self._questions)) else None
        return self.signal is not None


def heed() -> None:
    """Raise `Preempted` in all processes at a point with nothing to save; all must call it equally often.

    A single process needs no such points: see `interruptible`.
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
    """Return the exception for a signal that arrives outside the training loop."""
    return f"{name} stopped the run; what was saved stays, run the same command to go on."


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Preempted` at once on any of `SIGNALS`; `listen` waits for the loop to save first."""

    def receive(name: str, restore: Callable[[], None]) -> None:
        del restore
        raise Preempted(stopped(name))

    with handled(receive):
        yield


@contextlib.contextmanager
def handled(receive: Callable[[str, Callable[[], None]], None]) -> Iterator[None]:
    """Install signal handlers until the block ends.

    Only the main thread can install handlers; in any other this does nothing.

    Args:
      receive: called with the signal's name and a function that restores the previous handlers early.
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
    """Return whether SIGHUP is ignored, as under nohup."""
    return signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@contextlib.contextmanager
def listen() -> Iterator[Stop]:
    """Record the first of `SIGNALS` as a request to stop; a second one has its previous effect."""
    stop = Stop()

    def receive(name: str, restore: Callable[[], None]) -> None:
        stop.signal = name
        restore()

    with handled(receive):
        yield stop
