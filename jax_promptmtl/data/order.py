"""Which example stands where: endless shuffles by arithmetic on one permutation per epoch."""

import functools

import numpy as np


@functools.lru_cache(maxsize=64)
def permutation(count: int, *key: int) -> np.ndarray:
    """Return a permutation of 0..count-1 that depends on the key alone.

    >>> sorted(permutation(4, 0, 7).tolist())
    [0, 1, 2, 3]
    """
    return np.random.default_rng(key).permutation(count)


def union_order(positions: np.ndarray, sizes: tuple[int, ...], seed: int) -> np.ndarray:
    """Return the example at each position of the endless shuffle of all tasks together.

    Args:
      positions: int[N], counted from the first step.
      sizes: examples of each task.
      seed: draws one permutation per epoch.

    Returns:
      int[N], counted through the tasks.

    >>> sorted(union_order(np.arange(5, 10), (2, 3), 0).tolist())
    [0, 1, 2, 3, 4]
    """
    epochs, places = np.divmod(positions, sum(sizes))
    return np.array([permutation(sum(sizes), seed, e)[i] for e, i in zip(epochs.tolist(), places, strict=True)])


def stratified_order(positions: np.ndarray, sizes: tuple[int, ...], seed: int) -> np.ndarray:
    """Return the example at each position when tasks take turns and each shuffles by itself; see `union_order`.

    >>> stratified_order(np.arange(4), (1, 1), 0).tolist()
    [0, 1, 0, 1]
    """
    starts = np.cumsum((0, *sizes))
    rounds, tasks = np.divmod(positions, len(sizes))
    numbers = []
    for turn, task in zip(rounds.tolist(), tasks.tolist(), strict=True):
        epoch, place = divmod(turn, sizes[task])
        numbers.append(starts[task] + permutation(sizes[task], seed, epoch, task)[place])
    return np.array(numbers)


ORDERS = {"union": union_order, "stratified": stratified_order, "padded": lambda positions, *_: positions}


def places(step: int, batch_size: int, process_index: int = 0, process_count: int = 1) -> np.ndarray:
    """Return a process's positions in the endless sequence: one block, so that the blocks in order are the batch.

    >>> places(1, 6, 1, 2).tolist()
    [9, 10, 11]
    """
    part = batch_size // process_count
    return step * batch_size + process_index * part + np.arange(part)
