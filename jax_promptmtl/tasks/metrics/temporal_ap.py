"""Mean average precision of temporal action detection (THUMOS14, ActivityNet).

As in actionformer_release, libs/utils/metrics.py: segments of all videos of a class are ranked together; a detection
takes the free true segment that it overlaps most, and may fall back to the next; AP is the all-point one of VOC 2011.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from jax_promptmtl.tasks.metrics import curve

Array = np.ndarray
Video = Mapping[str, Array]
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
TOLERANCE = 1e-3  # seconds


def tiou(left: Array, right: Array) -> Array:
    """Return the overlap float64[N, M] of segments [N, 2] and [M, 2]: intersection over union of durations.

    >>> tiou(np.array([[0, 2]]), np.array([[1, 3], [5, 6]])).round(3).tolist()
    [[0.333, 0.0]]
    """
    left, right = (np.asarray(segments, np.float64).reshape(-1, 2) for segments in (left, right))
    both = np.minimum(left[:, None, 1], right[None, :, 1]) - np.maximum(left[:, None, 0], right[None, :, 0])
    both = np.clip(both, 0, None)
    union = (left[:, 1] - left[:, 0])[:, None] + (right[:, 1] - right[:, 0])[None] - both
    result: Array = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    return result


def distinct(segment: Array, label: Array, tolerance: float = TOLERANCE) -> Array:
    """Mark the true segments of a video to keep: no repeats of an earlier one, none that is shorter than the tolerance.

    Args:
      segment: [M, 2] start and end in seconds.
      label: int[M].
      tolerance: seconds by which both ends of a repeat may differ.

    Returns:
      bool[M].

    >>> distinct(np.array([[0, 1], [0.0005, 1], [2, 2]]), np.array([3, 3, 3])).tolist()
    [True, False, False]
    """
    segment, label = np.asarray(segment, np.float64).reshape(-1, 2), np.asarray(label)
    keep = segment[:, 1] - segment[:, 0] >= tolerance
    for i in range(len(segment)):
        earlier = keep[:i] & (label[:i] == label[i])
        keep[i] &= not (np.abs(segment[:i] - segment[i]) <= tolerance).all(1)[earlier].any()
    return keep


def temporal_ap(
    truth: Sequence[Video],
    detections: Sequence[Video],
    *,
    num_classes: int,
    thresholds: Sequence[float] = THRESHOLDS,
    tolerance: float = TOLERANCE,
) -> Array:
    """Return the average precision of each class at each overlap, NaN for classes without truth.

    The benchmark's number is the mean over classes that have truth, then over thresholds: `nanmean`.

    Args:
      truth: per video {"segment": [M, 2], "label": int[M]}, times in seconds.
      detections: per video, in the same order, {"segment": [N, 2], "label": int[N], "score": [N]}.
      num_classes: C.
      thresholds: K least overlaps.
      tolerance: see `distinct`.

    Returns:
      float64[K, C].

    >>> one = {"segment": np.array([[0.0, 9.0]]), "label": np.array([1])}
    >>> temporal_ap([one], [one | {"score": np.array([0.2])}], num_classes=2, thresholds=[0.5]).tolist()
    [[nan, 1.0]]
    """
    result = np.full((len(thresholds), num_classes), np.nan)
    kept = [_clean(video, tolerance) for video in truth]
    for c in range(num_classes):
        true = [segment[label == c] for segment, label in kept]
        positives = sum(map(len, true))
        if positives:
            result[:, c] = _class_ap(true, detections, c, positives, thresholds)
    return result


def _clean(video: Video, tolerance: float) -> tuple[Array, Array]:
    segment, label = np.asarray(video["segment"], np.float64).reshape(-1, 2), np.asarray(video["label"]).reshape(-1)
    keep = distinct(segment, label, tolerance)
    return segment[keep], label[keep]


def _class_ap(
    true: list[Array], detections: Sequence[Video], c: int, positives: int, thresholds: Sequence[float]
) -> list[float]:
    """Return the average precision of one class at each threshold."""
    rows = [np.flatnonzero(np.asarray(video["label"]).reshape(-1) == c) for video in detections]
    video = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    segment = np.concatenate(
        [np.asarray(d["segment"]).reshape(-1, 2)[r] for d, r in zip(detections, rows, strict=True)]
    )
    score = np.concatenate([np.asarray(d["score"]).reshape(-1)[r] for d, r in zip(detections, rows, strict=True)])
    order = curve.rank(score)
    segment, video = np.asarray(segment, np.float64)[order], video[order]
    overlap = np.full((len(video), max(map(len, true))), -1.0)  # -1 where a video has fewer true segments
    for v in np.unique(video):
        overlap[video == v, : len(true[v])] = tiou(segment[video == v], true[v])
    return [curve.voc(_hits(overlap, video, len(true), threshold), positives) for threshold in thresholds]


def _hits(overlaps: Array, video: Array, videos: int, threshold: float) -> Array:
    """Return bool[N]: detections, best first, that find a free true segment in their video."""
    free = np.ones((videos, overlaps.shape[1]), bool)
    hits = np.zeros(len(overlaps), bool)
    for i in np.flatnonzero((overlaps >= threshold).any(axis=1)):
        overlap, v = overlaps[i], video[i]
        reached = free[v] & (overlap >= threshold)
        if reached.any():
            candidates = np.where(reached, overlap, -1)
            free[v][np.flatnonzero(candidates == candidates.max())[-1]] = False  # equal overlaps: the later one
            hits[i] = True
    return hits
