"""The two average precisions against plain loops."""

import numpy as np
import pytest

from jax_promptmtl.tasks.metrics import curve


def precision_at(hits, positives, recall):
    """Return the best precision among all cuts of the ranking that reach a recall; 0 if none does."""
    found = [(sum(hits[:n]) / n, sum(hits[:n]) / positives) for n in range(1, len(hits) + 1)]
    return max((precision for precision, reached in found if reached >= recall), default=0.0)


@pytest.mark.parametrize("seed", range(20))
def test_both_are_means_of_the_best_precision_at_recalls(seed):
    rng = np.random.default_rng(seed)
    hits = rng.random(rng.integers(0, 25)) < 0.6
    positives = int(hits.sum() + rng.integers(1 - (hits.sum() > 0), 5))
    recalls = np.arange(1, positives + 1) / positives
    assert np.isclose(curve.voc(hits, positives), np.mean([precision_at(hits, positives, r) for r in recalls]))
    at = [precision_at(hits, positives, r) for r in np.linspace(0, 1, 101)]
    assert np.isclose(curve.coco(hits, positives), np.mean(at))


def test_ends_of_the_scale():
    for score in (curve.voc, curve.coco):
        assert score(np.ones(7, bool), 7) == 1 and score(np.zeros(3, bool), 2) == 0 and score(np.zeros(0, bool), 1) == 0


def test_equal_scores_are_ranked_last_first():
    scores = np.random.default_rng(0).integers(0, 3, 40)
    ranked = sorted(range(40), key=lambda i: (scores[i], i), reverse=True)
    assert curve.rank(scores).tolist() == ranked
