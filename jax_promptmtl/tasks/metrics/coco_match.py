"""COCO's assignment of detections to truth, shared by boxes in frames and tracks in videos."""

import numpy as np

Array = np.ndarray


def match(overlap: Array, thresholds: Array, ignored: Array | None = None) -> Array:
    """Match each detection, best first, with the free true instance that it overlaps most.

    As in COCOeval and its copy for YouTube-VIS: each threshold by itself; of equal overlaps the later instance wins; an
    ignored instance is taken only if no other is left.

    Args:
      overlap: float[N, M], detections by falling score.
      thresholds: float[K], least overlaps.
      ignored: bool[M], none if not given.

    Returns:
      int[K, N]: the instance of each detection, -1 for none.

    >>> match(np.array([[0.6, 0.8], [0.5, 0.9]]), np.array([0.5, 0.7])).tolist()
    [[1, 0], [1, -1]]
    """
    count, instances = overlap.shape
    result = np.full((len(thresholds), count), -1)
    aside = np.zeros(instances, bool) if ignored is None else np.asarray(ignored, bool)
    for k, threshold in enumerate(thresholds):
        free = np.ones(instances, bool)
        for n in range(count):
            reached = free & (overlap[n] >= min(threshold, 1 - 1e-10))
            candidates = reached & ~aside if (reached & ~aside).any() else reached
            if candidates.any():
                best = np.flatnonzero(candidates & (overlap[n] == overlap[n][candidates].max()))[-1]
                result[k, n] = best
                free[best] = False
    return result
