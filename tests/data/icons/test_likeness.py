"""The measure of near-duplicates, and what follows from it."""

import numpy as np

from jax_promptmtl.data.icons import concepts, glyphs, likeness


def slow_cosine(left, right):
    """Pearson correlation of reduced, blurred masks in float64: another formula for the same number."""

    blur = 4 * np.eye(32) + np.eye(32, k=1) + np.eye(32, k=-1)

    def describe(mask):
        small = np.array([[mask[r : r + 2, c : c + 2].mean() for c in range(0, 64, 2)] for r in range(0, 64, 2)])
        return (blur @ small @ blur).ravel()

    return np.corrcoef([describe(m) for m in (*left, *right)])[: len(left), len(left) :]


def test_cosine_equals_a_correlation_computed_the_slow_way():
    masks = glyphs.render_masks("typicons")[1][::28]
    fast = likeness.cosine(masks[:5], masks)
    np.testing.assert_allclose(fast, slow_cosine(masks[:5], masks), atol=2e-6)
    np.testing.assert_allclose(likeness.nearest(masks, masks[:5], block=4), fast.max(0), atol=1e-6)
    assert (likeness.nearest(masks, masks[:0]) == -1).all()


def test_cosine_joins_a_redrawn_icon_and_parts_two_icons():
    fa5, fa6 = glyphs.render_keys(["fa5s:bell", "fa6s:bell"])
    heart, bell = glyphs.render_keys(["fa6s:heart", "fa6s:bell"])
    assert (
        likeness.cosine(fa5[None], fa6[None])[0, 0]
        >= likeness.SAME_DRAWING
        > likeness.cosine(heart[None], bell[None])[0, 0]
    )


def test_group_joins_chains_and_variants_only():
    rng = np.random.default_rng(0)
    one, other = (rng.integers(0, 2, (8, 8), dtype=np.uint8).repeat(8, 0).repeat(8, 1) * 255 for _ in range(2))
    masks = np.stack([one, other, one, 255 - one])
    variants = [concepts.variant(key) for key in ("eva:a", "eva:b", "ion:c", "eva:b-outline")]
    assert likeness.group(variants, masks) == [0, 1, 0, 1]
