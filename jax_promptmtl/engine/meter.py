"""Metrics of a run: averages over steps, images per second, and wall time by activity."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


def summarize(window: list[dict[str, Any]], tasks: tuple[str, ...]) -> dict[str, float]:
    """Average the metrics of several steps: sums over counts, never means of means.

    Args:
      window: per step `loss`, `grad_norm` and `sums` (float[T] each; `count` is the divisor of the others).
      tasks: T names.

    Returns:
      Means over the steps of `loss` and `grad_norm`, and over the examples of every sum, as `<sum>/<task>` where the
      task occurred; `correct` is reported as `accuracy`, and as its mean over all examples.

    >>> summarize([{"loss": 1.0, "grad_norm": 2.0, "sums": {"correct": [1.0], "count": [4.0]}}], ("a",))
    {'loss': 1.0, 'grad_norm': 2.0, 'accuracy/a': 0.25, 'accuracy': 0.25}
    """
    values = {key: float(np.mean([step[key] for step in window])) for key in ("loss", "grad_norm")}
    sums = {key: np.sum([step["sums"][key] for step in window], axis=0) for key in window[0]["sums"]}
    count = sums.pop("count")
    for key, total in sums.items():
        name = "accuracy" if key == "correct" else key
        values |= {f"{name}/{task}": float(t / n) for task, t, n in zip(tasks, total, count, strict=True) if n}
        if key == "correct":
            values[name] = float(total.sum() / max(count.sum(), 1))
    return values


class Speed:
    """A stopwatch that counts images; paused until `run`.

    Attributes:
      images: counted while running.
      seconds: of running time.
    """

    def __init__(self) -> None:
        """Start at zero, paused."""
        self.images, self.seconds = 0, 0.0
        self._since: float | None = None
        self._lap = (0, 0.0)

    @property
    def running(self) -> bool:
        """Whether the stopwatch runs."""
        return self._since is not None

    def run(self) -> None:
        """Start or resume."""
        self._since = time.perf_counter()

    def pause(self) -> None:
        """Stop the time until `run`."""
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
        self._since = None

    def lap(self) -> float:
        """Return images per second since the last lap, 0 if none was counted; the state is kept."""
        running = self.running
        self.pause()
        images, seconds = self.images - self._lap[0], self.seconds - self._lap[1]
        self._lap = (self.images, self.seconds)
        if running:
            self.run()
        return images / seconds if seconds else 0.0


class Clock:
    """Splits the wall time of a training by activity; the remainder counts as `steps`."""

    def __init__(self) -> None:
        """Start."""
        self._start = time.perf_counter()
        self._spent = dict.fromkeys(("data", "compilation", "evaluation", "checkpoints"), 0.0)

    @contextlib.contextmanager
    def spending(self, kind: str) -> Iterator[None]:
        """Attribute the time of a block to an activity."""
        start = time.perf_counter()
        yield
        self._spent[kind] += time.perf_counter() - start

    def spent(self) -> dict[str, float]:
        """Return seconds by activity; they add up to the time since construction."""
        rest = time.perf_counter() - self._start - sum(self._spent.values())
        return {"steps": rest, **self._spent}


def shares(spent: Mapping[str, float]) -> dict[str, float]:
    """Return seconds by activity as fractions of their sum.

    >>> shares({"steps": 3.0, "data": 1.0})
    {'steps': 0.75, 'data': 0.25}
    """
    return {kind: seconds / sum(spent.values()) for kind, seconds in spent.items()}
