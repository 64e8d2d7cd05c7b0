"""What a trained model says of some images or clips."""

from dataclasses import dataclass

import numpy as np

from jax_promptmtl.core.outline import outline


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
