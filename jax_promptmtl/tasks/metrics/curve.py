"""Average precision of ranked hits, in the two definitions that the benchmarks use."""

import numpy as np

Array = np.ndarray
RECALLS = np.linspace(0, 1, 101)


def voc(hits: Array, positives: int) -> float:
    """Return the all-point average precision of VOC 2010 and later: the area under the monotone curve.

    Args:
      hits: bool[N], detections by falling score: true positive or false positive.
      positives: number of true instances, 1 or more.

    >>> round(voc(np.array([True, False, True]), 2), 4)
    0.8333
    """
    hits = np.asarray(hits, bool)
    if not len(hits):
        return 0.0
    found = np.cumsum(hits)
    precision = np.maximum.accumulate((found / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return float(precision[hits].sum() / positives)


def coco(hits: Array, positives: int) -> float:
    """Return the COCO average precision: the monotone precision, read at recalls 0, 0.01, ..., 1.

    Args:
      hits: bool[N], detections by falling score, without ignored ones.
      positives: number of true instances, 1 or more.

    >>> round(coco(np.array([True, False, True]), 2), 4)  # 51 recalls at 1, 50 at 2/3
    0.835
    """
    found = np.cumsum(np.asarray(hits, bool))
    precision = found / np.arange(1, len(found) + 1)
    precision = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    return float(precision[np.searchsorted(found / positives, RECALLS, side="left")].mean())


def rank(scores: Array) -> Array:
    """Return the order by falling score in which, of equal scores, the later comes first.

    The evaluators of AVA and ActivityNet reverse an ascending sort; a stable one is the reproducible reading of that.

    >>> rank(np.array([0.5, 0.9, 0.5])).tolist()
    [1, 2, 0]
    """
    return np.argsort(np.asarray(scores), kind="stable")[::-1]
