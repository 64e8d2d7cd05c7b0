"""Parameter sharing between tasks: slots, their expansion to tasks, and groups.

Every top-level subtree of a method's parameters carries a leading slot axis [S, ...]; a vector of T slot numbers says
which slot each task reads. All-shared is zeros, task-specific is arange, groups are e.g. [0, 0, 1, 1].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jax_promptmtl.core.errors import pick

PyTree = Any
Groups = Sequence[Sequence[int]]


def group_slots(groups: Groups) -> np.ndarray:
    """Return the slot of each task, int[T], from a partition of the tasks 0..T-1.

    >>> group_slots([[0, 2], [1]]).tolist()
    [0, 1, 0]
    """
    slots = np.full(sum(map(len, groups)), -1)
    for slot, members in enumerate(groups):
        slots[list(members)] = slot
    return slots


def slots(kind: str, num_tasks: int, groups: Groups) -> np.ndarray:
    """Return int[T]: the slot that each task reads, for sharing kind `all`, `task` or `group`.

    >>> slots("task", 3, [[0, 1, 2]]).tolist()
    [0, 1, 2]
    """
    table = {"all": np.zeros(num_tasks, int), "task": np.arange(num_tasks), "group": group_slots(groups)}
    return table[pick(kind, table, "sharing")]


def expand(params: Mapping[str, PyTree], vectors: Mapping[str, np.ndarray]) -> dict[str, PyTree]:
    """Gather every subtree [S, ...] to [T, ...] by its slot vector. Linear, so its vjp sums task gradients per slot.

    >>> expand({"group": np.array([10, 20])}, {"group": np.array([0, 1, 0])})
    {'group': array([10, 20, 10])}
    """
    return {name: jax.tree.map(lambda leaf: leaf[vectors[name]], subtree) for name, subtree in params.items()}  # noqa: B023
