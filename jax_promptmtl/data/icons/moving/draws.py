"""Random numbers for a batch of clips in which every clip has a stream of its own, so that a batch equals its clips."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray
LENGTH = 768  # uniform numbers that a clip may use


class Draws:
    """The random numbers of B clips, handed out column by column.

    Args:
      key: what all clips have in common: task, variant, part, seed.
      indices: B numbers of clips; the stream of a clip depends on the key and its own number alone.

    >>> both, second = Draws(("task", 0), [3, 4]), Draws(("task", 0), [4])
    >>> bool((both.uniform(0, 1, 5)[1] == second.uniform(0, 1, 5)[0]).all())
    True
    """

    def __init__(self, key: Sequence[Any], indices: Sequence[int] | Array):
        digest = hashlib.sha256(json.dumps(list(key)).encode()).digest()
        secret = int.from_bytes(digest[:16], "little")
        self._block = np.empty((len(indices), LENGTH), np.float32)
        for row, index in zip(self._block, indices, strict=True):
            bits = np.random.Philox(key=secret, counter=[0, 0, 0, int(index)])
            np.random.Generator(bits).random(LENGTH, np.float32, row)
        self._used = 0

    def __len__(self) -> int:
        return len(self._block)

    def uniform(self, low: float, high: float, *shape: int) -> Array:
        """Draw float32[B, *shape] between low and high."""
        count = int(np.prod(shape, dtype=int))
        if self._used + count > LENGTH:
            raise ValueError(f"A clip uses more than {LENGTH} random numbers; enlarge LENGTH.")
        part = self._block[:, self._used : self._used + count].reshape(len(self), *shape)
        self._used += count
        return np.float32(low) + part * np.float32(high - low)

    def below(self, bound: int | Array, *shape: int) -> Array:
        """Draw int[B, *shape] from 0 to bound - 1, where the bound may differ from clip to clip."""
        limit = np.asarray(bound)
        drawn: Array = np.minimum((self.uniform(0, 1, *shape) * limit).astype(np.int64), limit - 1)
        return drawn

    def chance(self, share: float, *shape: int) -> Array:
        """Draw bool[B, *shape], true with this probability."""
        return self.uniform(0, 1, *shape) < np.float32(share)

    def choose(self, weight: Array) -> Array:
        """Draw int[B] with the relative weights float[B, C]; of weight 0 is never drawn."""
        total = np.cumsum(weight, axis=1)
        point = self.uniform(0, 1)[:, None] * total[:, -1:]
        chosen = (total <= point).sum(1)
        last = weight.shape[1] - 1 - np.argmax(weight[:, ::-1] > 0, axis=1)  # where rounding points past the end
        drawn: Array = np.minimum(chosen, last)
        return drawn

    def order(self, count: int, *shape: int) -> Array:
        """Draw permutations int[B, *shape, count] of 0 to count - 1."""
        return np.argsort(self.uniform(0, 1, *shape, count), axis=-1, kind="stable")
