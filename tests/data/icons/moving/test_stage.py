"""Placing actors, bars, blur, and cutting lengths."""

import numpy as np

from jax_promptmtl.data.icons.moving import stage
from jax_promptmtl.data.icons.moving.draws import Draws

COUNT = 100


def test_partition_sums_up_and_keeps_the_least():
    draws = Draws(("cut",), range(COUNT))
    total, count = 40 + draws.below(25), 4 + draws.below(4)
    pieces = stage.partition(draws, total, 7, least=5, count=count)
    assert np.array_equal(pieces.sum(1), total)
    used = np.arange(7) < count[:, None]
    assert pieces[used].min() >= 5 and not pieces[~used].any() and len(set(pieces[used])) > 5


def test_actors_are_put_inside_and_apart():
    draws = Draws(("apart",), range(COUNT))
    x, y = draws.uniform(-0.2, 0.2, 3, 16), draws.uniform(-0.2, 0.2, 3, 16)
    size = np.full((COUNT, 3), 0.35, np.float32)
    new_x, new_y = stage._apart(draws, x, y, size, np.ones((COUNT, 3), bool))
    for before, after in ((x, new_x), (y, new_y)):
        assert np.allclose(np.diff(after, axis=2), np.diff(before, axis=2), atol=1e-5)
        assert np.abs(after).max() <= 1 - 0.85 * 0.35 + 1e-5
    middle = np.stack([new_x, new_y], axis=-1)[:, :, 8]
    gap = np.abs(middle[:, :, None] - middle[:, None]).max(-1)[:, *np.triu_indices(3, 1)].min(1)
    assert np.median(gap) > 0.4


def test_meeting_actors_meet():
    draws = Draws(("meet",), range(COUNT))
    heading = draws.uniform(0, 6.28, 3)
    paths = [stage.drift(draws, 16, heading[:, a], (1.1, 1.5)) for a in range(3)]
    x, y = (np.stack([path[i] for path in paths], axis=1) for i in (0, 1))
    new_x, new_y = stage._together(draws, x, y, np.full((COUNT, 3), 0.4, np.float32), 8)
    assert max(np.ptp(new_x[..., 8], axis=1).max(), np.ptp(new_y[..., 8], axis=1).max()) <= 0.36 + 1e-5
    assert np.median(np.ptp(new_x[..., 0], axis=1) + np.ptp(new_y[..., 0], axis=1)) > 0.6


def test_a_bar_passes_through_some_frames_of_about_the_share_of_clips():
    draws = Draws(("bar",), range(COUNT))
    planes = np.full((COUNT, 3, 16, 32, 32), -1, np.float32)
    bar = stage.sweep(draws, planes, share=0.5)
    assert np.array_equal(bar, planes[:, 0] >= 0) and 0.3 < bar.any((1, 2, 3)).mean() < 0.7
    width = bar[bar.any((2, 3))].sum((1, 2)) / 32
    assert width.max() <= 8 and (bar.any((2, 3)).sum(1) <= 10).all()


def test_smearing_blurs_a_few_consecutive_frames():
    draws = Draws(("smear",), range(COUNT))
    planes = np.zeros((COUNT, 3, 16, 32, 32), np.float32)
    planes[..., 16, 16] = 100
    stage.smear(draws, planes, share=0.5)
    blurred = planes[:, 0, :, 16, 16] < 99
    runs = blurred.sum(1)
    assert set(runs) <= {0, 3, 4, 5} and 0.3 < (runs > 0).mean() < 0.7
    assert ((np.diff(blurred.astype(int), axis=1) == 1).sum(1) + blurred[:, 0] <= 1).all()
    assert np.allclose(planes.sum((3, 4)), 100, rtol=1e-4)
