"""The difference of two models on the same test images, and how sure it is."""

import functools
from collections.abc import Sequence

import numpy as np


@functools.lru_cache(maxsize=8)
def resample(count: int, repeats: int, *key: int) -> np.ndarray:
    """Return how often each of `count` clusters is drawn, float[repeats, count]; the same for the same key.

    >>> resample(3, 2, 0, 0).sum(axis=1).tolist()
    [3.0, 3.0]
    """
    rng = np.random.default_rng(key)
    return rng.multinomial(count, np.full(count, 1 / count), repeats).astype(float)


def bootstrap(
    differences: Sequence[np.ndarray],
    clusters: Sequence[np.ndarray],
    *,
    repeats: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return the mean over parts of the mean difference, and a percentile interval for it.

    Whole clusters are drawn with replacement within each part, since the pictures of one drawing are right or wrong
    together; were every picture a cluster of its own, the interval would be too narrow.

    Args:
      differences: per part (a task) float[n], the difference of two models on each test image.
      clusters: per part int[n], which images belong together.
      repeats: number of resamples.
      level: share of the resamples within the interval.
      seed: of the resamples.

    Returns:
      (mean, low, high) in the unit of the differences.

    >>> bootstrap([np.array([1.0, 1.0, 1.0])], [np.arange(3)])
    (1.0, 1.0, 1.0)
    """
    means, draws = [], np.zeros(repeats)
    for part, (difference, cluster) in enumerate(zip(differences, clusters, strict=True)):
        _, where = np.unique(cluster, return_inverse=True)
        sums, sizes = np.bincount(where, difference), np.bincount(where)
        times = resample(len(sums), repeats, seed, part)
        draws += times @ sums / (times @ sizes)
        means.append(float(np.mean(difference)))
    low, high = np.quantile(draws / len(means), [(1 - level) / 2, (1 + level) / 2])
    return float(np.mean(means)), float(low), float(high)
