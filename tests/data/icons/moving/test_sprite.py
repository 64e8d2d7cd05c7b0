"""Drawings of a part: not a near-duplicate of another part's, large enough, and of the right concept."""

import numpy as np
import pytest

from jax_promptmtl.data.icons import concepts, glyphs, likeness, moving_icons
from jax_promptmtl.data.icons.moving import sprite
from jax_promptmtl.data.icons.moving.draws import Draws

MOTION = moving_icons.DOMAINS["segmentation", "shifted"]
NAMED = [moving_icons.DOMAINS[task, "base"] for task in ("video_object", "video_instance")]


@pytest.mark.parametrize("domain", [MOTION, *NAMED], ids=lambda d: d.families[0])
def test_no_drawing_is_in_two_parts(domain):
    parts = [moving_icons.drawings(domain, part) for part in moving_icons.PARTS]
    keys = [key for part in parts for key in part.keys]
    assert len(keys) == len(set(keys)) and len(parts[0]) > len(parts[2]) > 0
    masks = [glyphs.render_keys(part.keys) for part in parts]
    for i, one in enumerate(masks):
        for other in masks[:i]:
            assert likeness.cosine(one, other).max() < likeness.SAME_DRAWING


@pytest.mark.parametrize("domain", NAMED, ids=lambda d: d.families[0])
def test_every_concept_has_drawings_that_name_it_in_every_part(domain):
    for part in moving_icons.PARTS:
        drawings = moving_icons.drawings(domain, part)
        assert np.bincount(drawings.concept, minlength=12).min() >= 1
        for key, number in zip(drawings.keys, drawings.concept, strict=True):
            assert concepts.concept(*key.split(":")) == domain.classes[number]


def test_concepts_are_drawn_equally_often_whatever_their_number_of_drawings():
    drawings = moving_icons.drawings(NAMED[1], "train")
    count = np.bincount(drawings.concept)
    chosen = drawings.concept[drawings.choose(Draws(("choose",), range(1200)))]
    assert count.max() > 3 * count.min() and np.bincount(chosen).min() > 65 and np.bincount(chosen).max() < 140


def test_sprites_are_visible_have_an_empty_rim_and_blur_more_and_more():
    drawings = moving_icons.drawings(MOTION, "test")
    assert drawings.ink.shape == drawings.body.shape == (len(drawings), 3, 40, 40)
    for levels in (drawings.ink, drawings.body):
        assert not levels[..., 0, :].any() and not levels[..., :, -1].any()
        assert levels.min() >= 0 and levels.max() <= 1 and levels.max((2, 3)).min() > 0.3
        steep = np.abs(np.diff(levels, axis=-1)).max((2, 3))
        assert np.all(steep[:, 0] > steep[:, 1]) and np.all(steep[:, 1] > steep[:, 2])
    assert np.all(drawings.body >= drawings.ink - 1e-6) and drawings.body.sum() > 1.1 * drawings.ink.sum()


def test_discs_and_lines_are_left_out():
    y, x = np.indices((64, 64)) - 31.5
    disc, square, line = np.hypot(y, x) < 28, np.maximum(abs(y), abs(x)) < 28, (abs(y) < 3) & (abs(x) < 28)
    masks = np.stack([disc, square, line]).astype(np.uint8) * 255
    alike = sprite._least_turned(masks)
    assert alike[0] > 0.95 and alike[1] < alike[0] and alike[2] < sprite._TURNED
    assert sprite._large(masks).tolist() == [True, True, False]
