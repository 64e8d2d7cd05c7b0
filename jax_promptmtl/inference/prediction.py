"""What a trained model says of some images or clips."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.outline import outline

T = TypeVar("T")
Failed = Callable[[int, UserError], object]  # is told the number of what cannot be read, and why


@dataclass(frozen=True)
class Prediction:
    """The answer for B images or clips of one task: C class names, and float32[B, C] logits."""

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
        return raised / raised.sum(axis=1, keepdims=True)

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
    """Read some images or clips.

    Args:
      pool: reads several at a time.
      read: of one.
      batch: what to read.
      first: number of the first of them among all.
      failed: is told of those that cannot be read, which are left out; None raises the first error.
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
