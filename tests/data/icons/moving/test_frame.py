"""Brightness and bytes."""

import numpy as np
import pytest

from jax_promptmtl.data.icons.moving import frame


def test_planes_become_rounded_bytes():
    frames = frame.finish(np.float32([300.0, -4.0, 7.6]).reshape(1, 3, 1, 1, 1))
    assert frames.shape == (1, 1, 1, 1, 3) and frames.dtype == np.uint8
    assert frames.ravel().tolist() == [255, 0, 8]


@pytest.mark.parametrize("level", [30.0, 120.0, 220.0])
def test_shade_gives_the_luma_asked_for_inside_the_range(level):
    colour = np.random.default_rng(0).uniform(0, 255, (50, 3))
    shaded = frame.shade(colour, np.full(50, level))
    np.testing.assert_allclose(shaded @ [0.299, 0.587, 0.114], level, atol=0.01)
    assert shaded.min() >= -0.01 and shaded.max() <= 255.01
