"""Average precision of boxes: frame mAP of AVA, and COCO's AP at one IoU for boxes in video frames (ImageNet VID).

Truth and detections are lists with one entry per frame, in the same order. Boxes are x1, y1, x2, y2 in any unit.
"""

import heapq
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from jax_promptmtl.tasks.metrics import curve

Array = np.ndarray
Frame = Mapping[str, Array]
CAPACITY = 50  # labelled boxes per key frame that AVA's evaluator reads


def iou(left: Array, right: Array) -> Array:
    """Return the intersection over union float64[N, M] of boxes [N, 4] and [M, 4].

    >>> iou(np.array([[0, 0, 2, 2]]), np.array([[1, 0, 3, 2], [4, 4, 5, 5]])).round(3).tolist()
    [[0.333, 0.0]]
    """
    result: Array = iou_by_frame(*(np.asarray(boxes, np.float64).reshape(1, -1, 4) for boxes in (left, right)))[0]
    return result


def iou_by_frame(left: Array, right: Array) -> Array:
    """Return the intersection over union float64[F, N, M] of boxes [F, N, 4] and [F, M, 4] of the same frames."""
    low = np.maximum(left[:, :, None, :2], right[:, None, :, :2])
    high = np.minimum(left[:, :, None, 2:], right[:, None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = [np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1) for boxes in (left, right)]
    union = areas[0][:, :, None] + areas[1][:, None] - both
    result: Array = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    return result


def frame_ap(
    truth: Sequence[Frame],
    detections: Sequence[Frame],
    *,
    num_classes: int,
    threshold: float = 0.5,
    capacity: int = CAPACITY,
    scored: Collection[int] | None = None,
) -> Array:
    """Return AVA's average precision of each class, NaN for classes without truth; their nanmean is the frame mAP.

    As in ActivityNet, Evaluation/get_ava_performance.py and ava/per_image_evaluation.py: of a key frame only the
    `capacity` highest labelled boxes count; boxes without area are dropped; a detection is compared with the true box
    of its class that it overlaps most, and is false if an earlier one has taken that, even if it overlaps another
    enough; AP is the all-point one of VOC; of equal scores the later frame comes first.

    Args:
      truth: per key frame {"box": [M, 4], "label": int[M]}; a box with several labels is listed several times.
      detections: per key frame {"box": [N, 4], "label": int[N], "score": [N]}.
      num_classes: C.
      threshold: least IoU.
      capacity: detections per key frame, after other classes than `scored` are dropped.
      scored: classes to evaluate (60 of AVA's 80); all if not given.

    Returns:
      float64[C].

    >>> box = {"box": np.array([[0, 0, 1, 1]]), "label": np.array([0])}
    >>> frame_ap([box], [box | {"score": np.array([0.3])}], num_classes=2).tolist()
    [1.0, nan]
    """
    wanted = np.isin(np.arange(num_classes), list(range(num_classes) if scored is None else scored))
    found: list[list[tuple[float, bool]]] = [[] for _ in range(num_classes)]
    positives = np.zeros(num_classes, int)
    for true, detected in zip(truth, detections, strict=True):
        label = np.asarray(true["label"], int).reshape(-1)
        positives += np.bincount(label, minlength=num_classes)
        boxes, labels, scores = _best(detected, wanted, capacity)
        for c in np.unique(labels):
            here = labels == c
            hits = _first_claims(iou(boxes[here], np.asarray(true["box"]).reshape(-1, 4)[label == c]), threshold)
            found[c] += zip(scores[here].tolist(), hits.tolist(), strict=True)
    result = np.full(num_classes, np.nan)
    for c in np.flatnonzero(wanted & (positives > 0)):
        scores, hits = np.array([s for s, _ in found[c]]), np.array([h for _, h in found[c]], bool)
        result[c] = curve.voc(hits[curve.rank(scores)], positives[c])
    return result


def _best(detected: Frame, wanted: Array, capacity: int) -> tuple[Array, Array, Array]:
    """Return the boxes, labels and scores of a key frame that count, by falling score.

    The evaluator keeps a heap of (score, label, y1, x1, y2, x2), in which a new box must score strictly more than the
    lowest to replace it; the heap's own order decides among equal scores.
    """
    kept: list[tuple[float, int, float, float, float, float]] = []
    rows = zip(
        np.asarray(detected["score"], np.float64).tolist(),
        np.asarray(detected["label"], int).tolist(),
        np.asarray(detected["box"], np.float64).reshape(-1, 4).tolist(),
        strict=True,
    )
    for score, label, (x1, y1, x2, y2) in rows:
        entry = (score, label, y1, x1, y2, x2)
        if not wanted[label]:
            continue
        if len(kept) < capacity:
            heapq.heappush(kept, entry)
        elif score > kept[0][0]:
            heapq.heapreplace(kept, entry)
    kept = [entry for entry in sorted(kept, key=lambda entry: -entry[0]) if entry[2] < entry[4] and entry[3] < entry[5]]
    table = np.array(kept).reshape(-1, 6)
    return table[:, [3, 2, 5, 4]], table[:, 1].astype(int), table[:, 0]


def _first_claims(overlap: Array, threshold: float) -> Array:
    """Return bool[N]: which detections, in this order, are the first on the true box they overlap most."""
    hits = np.zeros(len(overlap), bool)
    if not overlap.shape[1]:
        return hits
    taken = np.zeros(overlap.shape[1], bool)
    for i, best in enumerate(overlap.argmax(1)):
        hits[i] = overlap[i, best] >= threshold and not taken[best]
        taken[best] |= hits[i]
    return hits


def coco_ap(
    truth: Sequence[Frame], detections: Sequence[Frame], *, num_classes: int, threshold: float = 0.5, most: int = 100
) -> Array:
    """Return COCO's average precision at one IoU of each class, NaN for classes without truth.

    With IoU 0.5 its mean is what TransVOD reports for ImageNet VID; the devkit of that challenge differs slightly.

    Args:
      truth, detections: see `frame_ap`.
      num_classes: C.
      threshold: least IoU.
      most: detections per frame, over all classes, as TransVOD's post-processing keeps them.

    Returns:
      float64[C].
    """
    best = [_ranked(detected, most) for detected in detections]
    box, label, score = (_stack([frame[key] for frame in best]) for key in ("box", "label", "score"))
    true_box, true_label = (_stack([frame[key] for frame in truth]) for key in ("box", "label"))
    hits = _taken(box, label, true_box, true_label, threshold)
    result, shown = np.full(num_classes, np.nan), score > -np.inf
    for c in range(num_classes):
        positives = int((true_label == c).sum())
        here = shown & (label == c)
        if positives:
            order = np.argsort(-score[here], kind="stable")
            result[c] = curve.coco(hits[here][order], positives)
    return result


def _ranked(detected: Frame, most: int) -> dict[str, Array]:
    """Return the best detections of a frame, by falling score."""
    order = np.argsort(-np.asarray(detected["score"], np.float64), kind="stable")[:most]
    return {key: np.asarray(detected[key])[order] for key in ("box", "label", "score")}


def _stack(rows: Sequence[Array]) -> Array:
    """Put the rows of all frames side by side: [F, most rows of a frame, ...], filled up with minus infinity."""
    arrays = [np.asarray(row, np.float64) for row in rows]
    width = max((len(row) for row in arrays), default=0)
    tail = next((row.shape[1:] for row in arrays if len(row)), ())
    result = np.full((len(arrays), width, *tail), -np.inf)
    for filled, row in zip(result, arrays, strict=True):
        filled[: len(row)] = row.reshape(len(row), *tail)
    return result


def _taken(box: Array, label: Array, true_box: Array, true_label: Array, threshold: float) -> Array:
    """Return bool[F, N]: which detections take a true box; `coco_match.match` for all frames and classes at once."""
    hits, free = np.zeros(label.shape, bool), true_label > -np.inf
    overlap = iou_by_frame(np.where(np.isfinite(box), box, 0), np.where(np.isfinite(true_box), true_box, 0))
    for n in range(label.shape[1] if true_label.shape[1] else 0):
        fits = free & (label[:, n, None] == true_label) & (overlap[:, n] >= min(threshold, 1 - 1e-10))
        last = true_label.shape[1] - 1 - np.where(fits, overlap[:, n], -1)[:, ::-1].argmax(axis=1)
        hits[:, n] = fits.any(axis=1)
        free[hits[:, n], last[hits[:, n]]] = False
    return hits
