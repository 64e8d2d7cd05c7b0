"""Scores of action segmentation: frame accuracy, segmental edit score and F1 at 10, 25 and 50 % overlap (MS-TCN).

As in ASFormer, eval.py, quirks included. A sequence holds one label per frame, numbers or strings.
"""

from collections.abc import Collection, Hashable, Sequence
from typing import NamedTuple

import numpy as np

Array = np.ndarray
OVERLAPS = (0.10, 0.25, 0.50)
BACKGROUND = ("background",)  # compared by equality: no number is background by default


class Segments(NamedTuple):
    """Runs of equal labels, background left out: S labels, first frames, and ends."""

    label: list[Hashable]
    start: Array
    end: Array


def segments(frames: Sequence[Hashable] | Array, background: Collection[Hashable] = BACKGROUND) -> Segments:
    """Cut a sequence of labels into segments.

    An end is the frame after the last, except in the last segment, where the evaluator gives the last frame itself:
    that segment counts as one frame shorter, and has no length if it is a single frame.

    Args:
      frames: L labels, at least one.
      background: labels that make no segment.

    Returns:
      The segments in order.

    >>> segments(["a", "a", "background", "b"])
    Segments(label=['a', 'b'], start=array([0, 3]), end=array([2, 3]))
    """
    labels = np.asarray(frames).tolist()
    cuts = [i for i in range(1, len(labels)) if labels[i] != labels[i - 1]]
    runs = [
        (labels[start], start, end)
        for start, end in zip([0, *cuts], [*cuts, len(labels) - 1], strict=True)
        if labels[start] not in background
    ]
    return Segments([r[0] for r in runs], np.array([r[1] for r in runs], int), np.array([r[2] for r in runs], int))


def edit_distance(left: Sequence[Hashable], right: Sequence[Hashable]) -> int:
    """Return the Levenshtein distance: insertions, deletions and replacements from one sequence to the other.

    >>> edit_distance("kitten", "sitting")
    3
    """
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            diagonal, row[j] = row[j], diagonal if a == b else 1 + min(diagonal, row[j], row[j - 1])
    return row[-1]


def edit_score(
    predicted: Sequence[Hashable] | Array,
    true: Sequence[Hashable] | Array,
    background: Collection[Hashable] = BACKGROUND,
) -> float:
    """Return the segmental edit score: 100 for equal order of segments (or none in either), 0 for nothing in common.

    >>> edit_score(["a", "a", "b"], ["a", "b", "b"])
    100.0
    """
    ours, theirs = segments(predicted, background).label, segments(true, background).label
    longer = max(len(ours), len(theirs))
    return 100 * (1 - edit_distance(ours, theirs) / longer) if longer else 100.0


def counts(
    predicted: Sequence[Hashable] | Array,
    true: Sequence[Hashable] | Array,
    overlap: float,
    background: Collection[Hashable] = BACKGROUND,
) -> tuple[int, int, int]:
    """Count the true positive, false positive and missed segments of one video.

    A predicted segment is compared with the true one of its label that it overlaps most, and is false if an earlier one
    has taken that. Two single last frames have neither intersection nor union; the evaluator's 0 / 0 is never a hit.

    Args:
      predicted, true: labels of L frames.
      overlap: least intersection over union.
      background: labels that make no segment.

    Returns:
      (tp, fp, fn).

    >>> counts(["a", "a", "b", "b"], ["a", "b", "b", "b"], 0.5)
    (2, 0, 0)
    """
    ours, theirs = segments(predicted, background), segments(true, background)
    hit = np.zeros(len(theirs.label), bool)
    tp = 0
    for label, start, end in zip(*ours, strict=True):
        if not len(hit):
            break
        both = np.minimum(end, theirs.end) - np.maximum(start, theirs.start)
        union = np.maximum(end, theirs.end) - np.minimum(start, theirs.start)
        with np.errstate(invalid="ignore"):
            share = both / union * np.array([label == other for other in theirs.label])
        best = int(share.argmax())  # the first NaN, if there is one
        if share[best] >= overlap and not hit[best]:
            hit[best] = True
            tp += 1
    return tp, len(ours.label) - tp, len(hit) - int(hit.sum())


def segmental(
    predicted: Sequence[Sequence[Hashable] | Array],
    true: Sequence[Sequence[Hashable] | Array],
    background: Collection[Hashable] = BACKGROUND,
    overlaps: Sequence[float] = OVERLAPS,
) -> dict[str, float]:
    """Score the videos of a split, in percent.

    Args:
      predicted, true: V videos of L_v labels; L_v must agree.
      background: labels without segments; frames of it do count for the accuracy.
      overlaps: of the F1 scores, whose counts are summed over videos.

    Returns:
      {"accuracy", "edit", "f1@10", "f1@25", "f1@50"}; edit is the mean over videos, accuracy that over frames.

    >>> segmental([["a", "b"]], [["a", "b"]])["accuracy"]
    100.0
    """
    frames = [len(labels) for labels in true]
    right = [
        sum(a == b for a, b in zip(np.asarray(p).tolist(), np.asarray(t).tolist(), strict=True))
        for p, t in zip(predicted, true, strict=True)
    ]
    pairs = list(zip(predicted, true, strict=True))
    scores = {
        "accuracy": 100 * sum(right) / sum(frames),
        "edit": sum(edit_score(p, t, background) for p, t in pairs) / len(pairs),
    }
    for overlap in overlaps:
        tp, fp, fn = np.sum([counts(p, t, overlap, background) for p, t in pairs], axis=0).tolist()
        scores[f"f1@{round(100 * overlap)}"] = 100 * 2 * tp / (2 * tp + fp + fn) if tp else 0.0
    return scores
