"""Pretraining pictures: deterministic, varied, and the glyph can always be seen."""

import numpy as np
import pytest

from jax_promptmtl.data.icons import plain


@pytest.fixture(scope="module")
def masks():
    disc = np.hypot(*(np.mgrid[:64, :64] - 31.5)) < 24
    return np.repeat((disc * 255).astype(np.uint8)[None], 64, 0)


def test_same_generator_same_pictures(masks):
    first, second = (plain.plain_batch(masks, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (64, 48, 48, 3) and first.dtype == np.uint8
    assert len(np.unique(first.reshape(64, -1), axis=0)) == 64
    single = plain.plain(masks[0], np.random.default_rng(7))
    assert single.shape == (48, 48, 3)


def test_no_picture_of_a_glyph_is_nearly_uniform(masks):
    pictures = plain.plain_batch(masks, np.random.default_rng(0)).astype(float)
    assert pictures.std(axis=(1, 2)).max(axis=1).min() > 8


def test_both_polarities_occur(masks):
    luma = plain.plain_batch(masks, np.random.default_rng(0)) @ plain.LUMA
    darker = luma[:, 20:28, 20:28].mean((1, 2)) < luma[:, :2].mean((1, 2))
    assert 0.2 < darker.mean() < 0.8


def test_colours_differ_in_luma():
    ground, ink = plain._colours(2000, np.random.default_rng(0))
    assert np.abs((ink - ground) @ plain.LUMA).min() > 35
    assert min(ground.min(), ink.min()) >= 0 and max(ground.max(), ink.max()) <= 255


def test_a_blank_mask_shows_no_drawing():
    pictures = plain.plain_batch(np.zeros((16, 64, 64), np.uint8), np.random.default_rng(0)).astype(float)
    # a linear gradient at most: second differences are rounding
    assert np.abs(np.diff(pictures, 2, axis=1)).max() <= 2
