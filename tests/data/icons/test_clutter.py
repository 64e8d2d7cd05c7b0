"""Cluttered pictures: the same for the same seed, in range, and the drawing stays visible through the clutter."""

import numpy as np
import pytest

from jax_promptmtl.data.icons import clutter, plain


@pytest.fixture(scope="module")
def coverage():
    disc = np.hypot(*(np.mgrid[:48, :48] - 23.5)) < 14
    return np.repeat(disc.astype(np.float32)[None], 64, 0)


def paint(coverage, seed=0):
    rng = np.random.default_rng(seed)
    return clutter.paint(coverage, *plain._colours(len(coverage), rng), rng)


def test_same_generator_same_pictures(coverage):
    first, second = paint(coverage), paint(coverage)
    np.testing.assert_array_equal(first, second)
    assert first.shape == (64, 48, 48, 3) and first.min() >= 0 and first.max() <= 255
    assert np.abs(first - paint(coverage, seed=1)).mean() > 10


def test_ink_and_ground_keep_their_colours_on_the_average(coverage):
    """Patches and grain change hue more than luma: the mean luma of both regions stays near what was asked for."""
    ground, ink = np.full((64, 3), 60, np.float32), np.full((64, 3), 190, np.float32)
    luma = clutter.paint(coverage, ground, ink, np.random.default_rng(0)) @ clutter.LUMA
    inside, outside = luma[:, 20:28, 20:28].mean((1, 2)), luma[:, :3].mean((1, 2))
    assert abs(np.median(inside) - 190) < 15 and abs(np.median(outside) - 60) < 15
    assert (inside - outside > 40).mean() > 0.9


def test_a_rim_differs_from_the_ink_and_surrounds_it(coverage):
    ink = np.random.default_rng(1).uniform(0, 255, (500, 3)).astype(np.float32)
    colour = clutter._rim_colour(ink, np.random.default_rng(0))[:, 0, 0]
    assert np.abs((colour - ink) @ clutter.LUMA).min() > 59.9
    alpha = clutter._rim(coverage, np.random.default_rng(0))[..., 0]
    present = alpha.max(axis=(1, 2)) > 0
    assert 0.2 < present.mean() < 0.5
    assert alpha[:, :4].max() == 0 and alpha[present][:, 8:11, 23].max() > 0  # far away none, close above the disc some


def test_patterns_cover_part_of_a_picture():
    patches = clutter._pattern(200, 48, np.random.default_rng(0))
    assert patches.min() >= 0 and patches.max() <= 1
    assert 0.3 < patches.mean() < 0.7 and np.quantile(patches.std(axis=(1, 2)), 0.1) > 0.02


def test_a_share_of_the_pictures_is_cluttered():
    blank = np.zeros((400, 64, 64), np.uint8)
    bend = [
        np.abs(np.diff(plain.plain_batch(blank, np.random.default_rng(0), cluttered=share).astype(float), 2, 1)).max(
            axis=(1, 2, 3)
        )
        for share in (0.0, 0.5)
    ]
    assert (bend[0] <= 4).all()  # a linear gradient, cut at black or white, at most
    assert 0.35 < (bend[1] > 4).mean() < 0.5  # some cluttered pictures draw neither patches nor grain
