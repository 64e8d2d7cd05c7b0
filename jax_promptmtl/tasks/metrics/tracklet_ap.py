"""Average precision and recall of tracks of masks (YouTube-VIS).

As in DVIS, dvis/data_video/datasets/ytvis_api/ytvoseval.py, without crowds. A track is its masks in all frames; in a
frame without the object its mask is empty.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from jax_promptmtl.tasks.metrics import curve
from jax_promptmtl.tasks.metrics.coco_match import match

Array = np.ndarray
Video = Mapping[str, Array]
Compared = list[dict[str, Array]]  # of every class: overlaps of its detections with its truth, areas and scores
THRESHOLDS = np.linspace(0.5, 0.95, 10)
MOST = 100  # tracks of a class in a video, by score
AREAS = {"": (0, 1e10), "_small": (0, 128**2), "_medium": (128**2, 256**2), "_large": (256**2, 1e10)}  # pixels


def tube_iou(left: Array, right: Array) -> Array:
    """Return the overlap float64[N, M] of tracks bool[N, L, H, W] and [M, L, H, W].

    It is the sum over frames of the intersections over the sum of the unions, so that frames without the object count.

    >>> a, b = np.zeros((2, 1, 2, 1, 4), bool)  # one track each, two frames of four pixels
    >>> a[0, 0, 0, :2] = b[0, 0, 0, 1:3] = b[0, 1, 0, 0] = True
    >>> tube_iou(a, b).tolist()
    [[0.25]]
    """
    sides = [np.asarray(masks, bool) for masks in (left, right)]
    both, areas = np.zeros((len(left), len(right))), [np.zeros(len(side)) for side in sides]
    for frame in range(sides[0].shape[1]):  # one at a time: masks are large as floats
        here = [side[:, frame].reshape(len(side), math.prod(side.shape[2:])).astype(np.float32) for side in sides]
        both += here[0] @ here[1].T  # exact in float32 up to 2**24 pixels
        areas = [area + flat.sum(1, dtype=np.float64) for area, flat in zip(areas, here, strict=True)]
    union = areas[0][:, None] + areas[1][None] - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def mean_area(masks: Array) -> Array:
    """Return the area of each track bool[N, L, H, W] in pixels: the mean over the frames in which it has any."""
    areas = np.asarray(masks, bool).sum((-2, -1))
    mean: Array = areas.sum(1) / np.maximum((areas > 0).sum(1), 1)
    return mean


def tracklet_ap(
    truth: Sequence[Video], detections: Sequence[Video], *, num_classes: int, areas: bool = False
) -> dict[str, float]:
    """Score the tracks of a set of videos.

    Args:
      truth: per video {"mask": bool[M, L, H, W], "label": int[M]}.
      detections: per video, in the same order, {"mask": bool[N, L, H, W], "label": int[N], "score": [N]}.
      num_classes: C.
      areas: add the scores of small, medium and large tracks.

    Returns:
      {"ap", "ap50", "ap75", "ar1", "ar10"}: means over classes that have truth and, but for ap50 and ap75, over IoU .50
      to .95 by .05; with `areas` also "ap_small" and so on; NaN where there is no truth.

    >>> one = {"mask": np.ones((1, 2, 4, 4), bool), "label": np.array([0])}
    >>> tracklet_ap([one], [one | {"score": np.array([0.5])}], num_classes=1)["ap75"]
    1.0
    """
    pairs = [compare(t, d, num_classes=num_classes) for t, d in zip(truth, detections, strict=True)]
    return score(pairs, num_classes=num_classes, areas=areas)


def compare(true: Video, detected: Video, *, num_classes: int) -> Compared:
    """Reduce one video to overlaps, areas and scores, which `score` needs instead of masks; see `tracklet_ap`."""
    return [_pair(true, detected, c) for c in range(num_classes)]


def score(pairs: Sequence[Compared], *, num_classes: int, areas: bool = False) -> dict[str, float]:
    """Compute `tracklet_ap` from the results of `compare` on every video."""
    by_class = [[video[c] for video in pairs] for c in range(num_classes)]
    result: dict[str, float] = {}
    for suffix, area in AREAS.items() if areas else [("", AREAS[""])]:
        table = np.array([_class_scores(videos, area) for videos in by_class]).reshape(-1, 3, len(THRESHOLDS))
        table = table[~np.isnan(table[:, 0, 0])]
        means = table.mean((0, 2)) if len(table) else np.full(3, np.nan)
        result |= dict(zip((f"ap{suffix}", f"ar1{suffix}", f"ar10{suffix}"), means.tolist(), strict=True))
        if not suffix:
            result |= {f"ap{n}": float(table[:, 0, k].mean()) if len(table) else np.nan for n, k in ((50, 0), (75, 5))}
    return result


def _pair(true: Video, detected: Video, c: int) -> dict[str, Array]:
    """Take one class of one video: overlaps of its detections, best first, with its truth, areas and scores."""
    theirs = np.asarray(true["mask"], bool)[np.asarray(true["label"]).reshape(-1) == c]
    here = np.flatnonzero(np.asarray(detected["label"]).reshape(-1) == c)
    score = np.asarray(detected["score"], np.float64).reshape(-1)[here]
    order = np.argsort(-score, kind="stable")[:MOST]
    ours = np.asarray(detected["mask"], bool)[here[order]]
    return {
        "overlap": tube_iou(ours, theirs),
        "true_area": mean_area(theirs),
        "area": mean_area(ours),
        "score": score[order],
    }


def _class_scores(videos: list[dict[str, Array]], area: tuple[float, float]) -> Array:
    """Return AP, AR1 and AR10 float64[3, thresholds] of one class; NaN if it has no truth of that area."""
    low, high = area
    hit, aside, score, rank = [], [], [], []
    positives = 0
    for video in videos:
        ignored = (video["true_area"] < low) | (video["true_area"] > high)
        positives += int((~ignored).sum())
        taken = match(video["overlap"], THRESHOLDS, ignored)
        outside = (video["area"] < low) | (video["area"] > high)
        on_ignored = np.append(ignored, False)[taken]  # -1 reads the appended one
        hit.append((taken >= 0) & ~on_ignored)
        aside.append(on_ignored | ((taken < 0) & outside))
        score.append(video["score"])
        rank.append(np.arange(len(video["score"])))
    if not positives:
        return np.full((3, len(THRESHOLDS)), np.nan)
    order = np.argsort(-np.concatenate(score), kind="stable")
    hits, asides = np.concatenate(hit, axis=1)[:, order], np.concatenate(aside, axis=1)[:, order]
    place = np.concatenate(rank)[order]
    precision = [curve.coco(h[~a], positives) for h, a in zip(hits, asides, strict=True)]
    recall = [(hits & (place < most)).sum(1) / positives for most in (1, 10)]
    return np.array([precision, *recall])
