"""Batches of clips, cached middle states and companions from other data, as a pure function of (seed, step).

A source gives several clips at a time as flat arrays: `len(source)` and `source.take(indices)`. Sources of one length
are read side by side, clip by clip: frames and labels, and one per cached model. Companions are sources of other data
with an order of their own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.outline import outline
from jax_promptmtl.data.order import permutation, union_order

Batch = dict[str, np.ndarray]


class ClipSource(Protocol):
    """Random access to clips, several at a time."""

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray) -> Batch: ...


@dataclass(frozen=True)
class Clips:
    """Arrays in memory, each with the leading axis of the clips.

    >>> clips = Clips({"label": np.array([5, 6, 7])})
    >>> len(clips), clips.take(np.array([2, 0]))["label"].tolist()
    (3, [7, 5])
    """

    arrays: Mapping[str, np.ndarray]
    __repr__ = outline

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def take(self, indices: np.ndarray) -> Batch:
        """Return the clips at the indices."""
        return {key: value[indices] for key, value in self.arrays.items()}


@dataclass(frozen=True)
class Prefixed:
    """Another source, with a prefix before its keys.

    >>> sorted(Prefixed(Clips({"label": np.zeros(1)}), "other/").take(np.array([0])))
    ['other/label']
    """

    source: ClipSource
    prefix: str

    def __len__(self) -> int:
        return len(self.source)

    def take(self, indices: np.ndarray) -> Batch:
        """Return the clips at the indices."""
        return {self.prefix + key: value for key, value in self.source.take(indices).items()}


@dataclass(frozen=True)
class Elsewhere:
    """Another source in which every clip stands in for exactly one other, drawn at random, and never for itself.

    >>> clips = Clips({"label": np.arange(4)})
    >>> bool((Elsewhere(clips, 0).take(np.arange(4))["label"] == np.arange(4)).any())
    False
    """

    source: ClipSource
    seed: int

    def __len__(self) -> int:
        return len(self.source)

    def take(self, indices: np.ndarray) -> Batch:
        """Return the stand-ins of the clips at the indices: the next ones in a random circle."""
        circle = permutation(len(self), self.seed, 0x5AFE)
        place = np.argsort(circle)
        return self.source.take(circle[(place[indices] + 1) % len(self)])


def training_batches(
    sources: Sequence[ClipSource],
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    companions: Sequence[ClipSource] = (),
    views: int = 1,
    repeats: int = 1,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Yield this process's part of the batches start_step, start_step + 1, ... without end.

    Args:
      sources: of one length; shuffled together, without replacement within an epoch.
      batch_size: B of the global batch; every clip has weight 1 / B.
      seed: fixes the order.
      start_step: steps already taken.
      companions: sources of any lengths, each shuffled for itself.
      views: of every example that the sources have, all examples in one view after the other; a pass over the examples
        shows each in its next view.
      repeats: views of an example that stand side by side in a batch, as repeated augmentation has it.
      process_index, process_count: which part of the global batch is wanted.

    Yields:
      The arrays of all sources, `task` int32 zeros and `weight` float32, each [B / processes, ...].

    Raises:
      UserError: no clip, sources of several lengths, or a batch size that the processes do not divide.
    """
    count = common_length(sources) // views
    if batch_size < 1 or batch_size % process_count:
        raise UserError(f"Batch size {batch_size} is not a positive multiple of the {process_count} processes.")
    step = start_step
    while True:
        positions = step * batch_size + np.arange(process_index, batch_size, process_count)
        turns = positions // repeats
        view = (turns // count * repeats + positions % repeats) % views
        batch = gather(sources, union_order(turns, (count,), seed) + count * view, 1 / batch_size)
        for number, companion in enumerate(companions, 1):
            batch |= companion.take(union_order(positions, (len(companion),), seed + 7919 * number))
        yield batch
        step += 1


def all_batches(
    sources: Sequence[ClipSource], *, batch_size: int, companions: Sequence[ClipSource] = ()
) -> Iterator[Batch]:
    """Yield every clip once, in order; the last batch is filled up with its last clip at weight 0."""
    count = common_length(sources)
    for start in range(0, count, batch_size):
        positions = np.arange(start, start + batch_size)
        batch = gather(sources, np.minimum(positions, count - 1), 1.0)
        batch["weight"] = batch["weight"] * (positions < count)
        for companion in companions:
            batch |= companion.take(positions % len(companion))
        yield batch


def gather(sources: Sequence[ClipSource], indices: np.ndarray, weight: float) -> Batch:
    """Return the clips at the indices of all sources, with `task` and `weight`; that of clips left out is 0."""
    batch: Batch = {"task": np.zeros(len(indices), np.int32), "weight": np.full(len(indices), weight, np.float32)}
    for source in sources:
        batch |= source.take(indices)
        if "kept" in batch:
            batch["weight"] = batch["weight"] * batch.pop("kept")
    return batch


def cut_prefix(batch: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the arrays of a batch whose keys start with a prefix, without it.

    >>> cut_prefix({"other/frames": 1, "frames": 2}, "other/")
    {'frames': 1}
    """
    return {key.removeprefix(prefix): value for key, value in batch.items() if key.startswith(prefix)}


def common_length(sources: Sequence[ClipSource]) -> int:
    """Return the number of clips that all sources have.

    >>> common_length([Clips({"a": np.zeros(3)}), Clips({"b": np.zeros(3)})])
    3
    """
    lengths = {len(source) for source in sources}
    if len(lengths) != 1 or 0 in lengths:
        raise UserError(f"The sources of a batch have {sorted(lengths)} clips; give at least one, all with as many.")
    return lengths.pop()
