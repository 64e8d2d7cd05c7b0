"""The four drawing styles: deterministic, apart from each other, and the glyph stays readable."""

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.icons import styles

DISC = ((np.hypot(*(np.mgrid[:64, :64] - 31.5)) < 26) * 255).astype(np.uint8)
RING = DISC * (np.hypot(*(np.mgrid[:64, :64] - 31.5)) > 18).astype(np.uint8)
BARS = np.zeros((64, 64), np.uint8)
BARS[8:56, 12:20] = BARS[8:56, 28:36] = BARS[8:56, 44:52] = 255


def pictures(mask, style, count=24):
    return np.stack([styles.render(mask, style, np.random.default_rng(i)) for i in range(count)]).astype(float)


@pytest.mark.parametrize("style", styles.STYLES)
def test_rendering_is_deterministic_and_varied(style):
    first, second = (styles.render(DISC, style, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (48, 48, 3) and first.dtype == np.uint8
    assert (first != styles.render(DISC, style, np.random.default_rng(4))).mean() > 0.3


@pytest.mark.parametrize("style", styles.STYLES)
def test_the_drawing_can_be_told_from_its_pictures(style):
    """The mean edge map of half of the pictures of two drawings tells which one the other half show."""
    maps = {}
    for name, mask in (("ring", RING), ("bars", BARS)):
        luma = pictures(mask, style, 40) @ styles.LUMA
        edges = np.abs(np.diff(luma, axis=2))[:, :47] + np.abs(np.diff(luma, axis=1))[:, :, :47]
        edges = edges[:, :45, :45].reshape(40, 15, 3, 15, 3).mean((2, 4)).reshape(40, -1)
        edges -= edges.mean(1, keepdims=True)
        maps[name] = edges / np.linalg.norm(edges, axis=1, keepdims=True)
    centres = {name: edges[:20].mean(0) / np.linalg.norm(edges[:20].mean(0)) for name, edges in maps.items()}
    towards_ring = centres["ring"] - centres["bars"]
    assert (maps["ring"][20:] @ towards_ring > 0).mean() >= 0.85
    assert (maps["bars"][20:] @ towards_ring < 0).mean() >= 0.85


def test_styles_have_their_own_statistics():
    saturation, brightness = {}, {}
    for style in styles.STYLES:
        batch = pictures(DISC, style)
        saturation[style] = (batch.max(-1) - batch.min(-1)).mean()
        brightness[style] = batch[:, :4].mean()
    assert saturation["clip"] > 1.5 * max(saturation["line"], saturation["product"])
    assert brightness["line"] > 215 > brightness["product"] > brightness["real"]


def test_unknown_style_is_one_sentence():
    with pytest.raises(UserError, match=r"Unknown drawing style 'oil'; legal values: clip, line, product, real\."):
        styles.render(DISC, "oil", np.random.default_rng(0))
