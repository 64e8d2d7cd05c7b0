"""Accuracy."""

import numpy as np

from jax_promptmtl.tasks.metrics import accuracy


def test_top_counts_like_a_stable_sort():
    rng = np.random.default_rng(0)
    scores, label, weight = rng.integers(0, 4, (200, 6)) / 4, rng.integers(0, 6, 200), rng.integers(0, 2, 200)
    for k in (1, 3, 6):
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        hits = [row in ranks for row, ranks in zip(label.tolist(), best.tolist(), strict=True)]
        assert accuracy.top(scores, label, k) == (sum(hits), 200)
        assert accuracy.top(scores, label, k, weight) == (sum(np.array(hits) * weight), weight.sum())


def test_sums_of_batches_are_the_sums_of_the_whole():
    rng = np.random.default_rng(1)
    scores, label = rng.random((30, 4)), rng.integers(0, 4, 30)
    parts = [accuracy.top(scores[i : i + 7], label[i : i + 7]) for i in range(0, 30, 7)]
    assert tuple(map(sum, zip(*parts, strict=True))) == accuracy.top(scores, label)


def test_softmax_of_large_logits_is_finite():
    assert np.isfinite(accuracy.softmax(np.array([1e4, -1e4]))).all()
