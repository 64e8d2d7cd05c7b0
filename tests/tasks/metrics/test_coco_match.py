"""COCO's greedy matching against its loop, written out."""

import numpy as np

from jax_promptmtl.tasks.metrics.coco_match import match


def loop(overlap, threshold, ignored):
    """Match as the evaluator does: ignored instances last, stop at the first of them once something is found."""
    order = [*np.flatnonzero(~ignored), *np.flatnonzero(ignored)]
    taken, result = set(), []
    for row in overlap:
        best, found = threshold, -1
        for m in order:
            if m in taken:
                continue
            if found >= 0 and not ignored[found] and ignored[m]:
                break
            if row[m] >= best:
                best, found = row[m], m
        taken |= {found} - {-1}
        result.append(int(found))
    return result


def test_random_tables_with_ties():
    rng = np.random.default_rng(0)
    thresholds = np.array([0.25, 0.5, 0.75])
    for _ in range(200):
        overlap = rng.integers(0, 5, (rng.integers(0, 6), rng.integers(0, 5))) / 4
        ignored = rng.random(overlap.shape[1]) < 0.3
        assert match(overlap, thresholds, ignored).tolist() == [loop(overlap, t, ignored) for t in thresholds]


def test_by_hand():
    overlap = np.array([[0.6, 0.6, 0.9], [0.6, 0.0, 0.9], [0.2, 0.6, 0.9]])
    assert match(overlap, np.array([0.5])).tolist() == [[2, 0, 1]]
    assert match(overlap, np.array([0.5]), np.array([False, False, True])).tolist() == [[1, 0, 2]]
    assert match(overlap, np.array([1.0])).tolist() == [[-1, -1, -1]]
    assert match(np.ones((1, 1)), np.array([1.0])).tolist() == [[0]]
