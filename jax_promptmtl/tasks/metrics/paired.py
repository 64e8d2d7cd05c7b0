"""Paired differences of two models on the same test images, with bootstrap intervals."""

import functools
from collections.abc import Sequence

import numpy as np


@functools.lru_cache(maxsize=8)
def resample(count: int, repeats: int, *key: int) -> np.ndarray:
    """Draw bootstrap counts of `count` clusters, float[repeats, count], deterministic in the key.

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
    """Return the mean over parts of the mean difference, with a percentile bootstrap interval.

    Whole clusters are resampled within each part, since answers to renderings of one drawing are correlated; treating
    every picture as independent would make the interval too narrow.

    Args:
      differences: per part (a task) float[n], the difference of two models on each test image.
      clusters: per part int[n], the cluster of each image.
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
