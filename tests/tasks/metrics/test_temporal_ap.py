"""THUMOS mAP: hand-computed cases, ties, repeats, and brute force."""

import numpy as np
import pytest

from jax_promptmtl.tasks.metrics import temporal_ap as temporal


def video(*rows):
    """Build a video from rows (start, end, label[, score])."""
    table = np.array(rows, float) if rows else np.zeros((0, 4))
    result = {"segment": table[:, :2], "label": table[:, 2].astype(int)}
    return result | ({"score": table[:, 3]} if table.shape[1] > 3 else {})


def test_overlap_counts_ticks():
    rng = np.random.default_rng(0)
    start, length = rng.integers(0, 9, (2, 12))
    segments = np.stack([start, start + length], axis=1)
    ticks = [set(range(a, b)) for a, b in segments]
    expected = [[len(a & b) / max(len(a | b), 1) for b in ticks[5:]] for a in ticks[:5]]
    assert np.allclose(temporal.tiou(segments[:5], segments[5:]), expected)


def test_by_hand_at_every_threshold():
    truth = [video((0, 10, 0), (20, 30, 0)), video((0, 4, 1))]
    found = [video((0, 6, 0, 0.9), (20, 30, 0, 0.5), (0, 10, 0, 0.4)), video((0, 4, 0, 0.6))]
    ap = temporal.temporal_ap(truth, found, num_classes=3)
    # By score: 0-6 (overlap .6), a false alarm in video 1, 20-30 (hit), 0-10 (double, or hit at .7).
    low, high = (1 / 1 + 2 / 3) / 2, (2 / 4 + 2 / 4) / 2
    assert np.allclose(ap[:, 0], [low, low, low, low, high])
    assert np.array_equal(ap[:, 1], np.zeros(5)) and np.isnan(ap[:, 2]).all()
    assert np.isclose(np.nanmean(ap), (4 * low + high) / 10)


def test_a_taken_segment_leaves_the_next_best():
    truth, found = [video((0, 10, 0), (1, 11, 0))], [video((0, 10, 0, 0.9), (0, 10, 0, 0.8))]
    assert temporal.temporal_ap(truth, found, num_classes=1, thresholds=[0.5]) == 1
    assert temporal.temporal_ap(truth, found, num_classes=1, thresholds=[0.9]) == 0.5


def test_repeats_and_instants_are_removed_from_the_truth():
    truth = [video((0, 5, 0), (0.0009, 5, 0), (0.0011, 5, 0), (7, 7.0005, 0), (0, 5, 1))]
    keep = temporal.distinct(truth[0]["segment"], truth[0]["label"])
    assert keep.tolist() == [True, False, True, False, True]
    found = [video((0, 5, 0, 0.9), (0, 5, 0, 0.8))]
    assert temporal.temporal_ap(truth, found, num_classes=1, thresholds=[0.9]) == 1


def test_equal_scores_take_the_later_detection_first():
    truth = [video((0, 5, 0))]
    right_first, wrong_first = [video((0, 5, 0, 0.5), (8, 9, 0, 0.5))], [video((8, 9, 0, 0.5), (0, 5, 0, 0.5))]
    assert temporal.temporal_ap(truth, right_first, num_classes=1, thresholds=[0.5]) == 0.5
    assert temporal.temporal_ap(truth, wrong_first, num_classes=1, thresholds=[0.5]) == 1


def test_no_detections_and_no_videos():
    assert temporal.temporal_ap([video((0, 5, 0))], [video()], num_classes=1).tolist() == [[0]] * 5
    assert np.isnan(temporal.temporal_ap([], [], num_classes=2)).all()


@pytest.mark.parametrize("seed", range(8))
def test_brute_force(seed):
    rng = np.random.default_rng(seed)
    scores = rng.permutation(40) / 40

    def rows(count, offset):
        start = rng.integers(0, 8, count)
        return [(a, a + rng.integers(1, 6), rng.integers(0, 2), scores[offset + i]) for i, a in enumerate(start)]

    truth = [video(*{row[:3] for row in rows(rng.integers(0, 5), 0)}) for _ in range(4)]
    found = [video(*rows(rng.integers(0, 7), 8 * v)) for v in range(4)]
    ours = temporal.temporal_ap(truth, found, num_classes=2)
    for k, threshold in enumerate(temporal.THRESHOLDS):
        for c in range(2):
            assert np.isclose(ours[k, c], slow(truth, found, c, threshold), equal_nan=True)


def slow(truth, found, c, threshold):
    """Rank and match with sets of half-second ticks; distinct scores, so that only overlaps can tie."""
    free = {(v, i): (a, b) for v, t in enumerate(truth) for i, (a, b) in enumerate(t["segment"]) if t["label"][i] == c}
    positives, hits = len(free), []
    rows = [(f["score"][i], v, *f["segment"][i]) for v, f in enumerate(found) for i in np.flatnonzero(f["label"] == c)]
    for _, v, a, b in sorted(rows, reverse=True):
        ours = set(range(int(a), int(b)))
        overlap = {}
        for (w, i), (start, stop) in free.items():
            theirs = set(range(int(start), int(stop)))
            if w == v and len(ours & theirs) / len(ours | theirs) >= threshold:
                overlap[w, i] = len(ours & theirs) / len(ours | theirs), i
        hits.append(bool(overlap))
        if overlap:
            del free[max(overlap, key=overlap.get)]
    if not positives:
        return np.nan
    precision = [sum(hits[: n + 1]) / (n + 1) for n in range(len(hits))]
    return sum(max(precision[n:]) for n, hit in enumerate(hits) if hit) / positives
