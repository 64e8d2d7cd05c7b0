"""Predictions for a batch of images or videos."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.outline import outline

T = TypeVar("T")
Failed = Callable[[int, UserError], object]  # (index of an unreadable input, reason)


@dataclass(frozen=True)
class Prediction:
    """The predictions for B images or videos of one task: C class names and logits float32[B, C]."""

    task: str
    classes: tuple[str, ...]
    logits: np.ndarray
    __repr__ = outline

    @property
    def probabilities(self) -> np.ndarray:
        """Return the softmax of the logits, float32[B, C].

        >>> Prediction("t", ("a", "b"), np.zeros((1, 2), np.float32)).probabilities.tolist()
        [[0.5, 0.5]]
        """
        raised = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        chances: np.ndarray = raised / raised.sum(axis=1, keepdims=True)
        return chances

    @property
    def labels(self) -> list[str]:
        """Return the most probable class of each image."""
        return [self.classes[number] for number in self.logits.argmax(axis=1)]

    def top(self, count: int) -> list[list[tuple[str, float]]]:
        """Return the `count` most probable classes of each image with their probabilities, best first.

        >>> Prediction("t", ("a", "b"), np.array([[0, 99.0]])).top(1)
        [[('b', 1.0)]]
        """
        rows = []
        for row in self.probabilities:
            best = np.argsort(-row, kind="stable")[:count]
            rows.append([(self.classes[number], float(row[number])) for number in best])
        return rows


def read_batch(
    pool: Executor, read: Callable[[T], np.ndarray], batch: Sequence[T], first: int, failed: Failed | None
) -> list[np.ndarray]:
    """Read a batch of images or videos.

    Args:
      pool: executor for reading in parallel.
      read: reads one input.
      batch: paths or other inputs.
      first: index of the batch's first input among all.
      failed: called for unreadable inputs, which are skipped; None raises the first error instead.
    """
    rows = []
    for number, job in enumerate([pool.submit(read, item) for item in batch], first):
        try:
            rows.append(job.result())
        except UserError as error:
            if failed is None:
                raise
            failed(number, error)
    return rows
