"""RandAugment and erasing against their definitions, written with numpy."""

import numpy as np
import pytest
from PIL import Image

from jax_promptmtl.data.videos import augment
from jax_promptmtl.data.videos.augment import MEAN, OPERATIONS, STD

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(20, 200, (16, 24, 3), np.uint8)


def apply(name, share, pixels=PIXELS):
    return np.asarray(OPERATIONS[name](Image.fromarray(pixels), share)).astype(int)


def stretched(pixels):
    low, high = pixels.min((0, 1)), pixels.max((0, 1))
    return (pixels - low) * 255 / (high - low)


X = PIXELS.astype(int)
GREY_MEAN = int((X @ [299, 587, 114] / 1000).mean() + 0.5)
DEFINITIONS = [  # (operation, strength, what it makes of X, largest difference from rounding)
    ("auto_contrast", 0.7, stretched(X), 1),
    ("invert", -0.7, 255 - X, 0),
    ("posterize", 0.7, X & 0b11000000, 0),  # 4 - int(2.8) bits
    ("posterize", -0.2, X & 0b11110000, 0),
    ("solarize", 0.7, np.where(X < 256 - 179, X, 255 - X), 0),
    ("solarize_add", -0.7, np.where(X < 128, np.minimum(X + 77, 255), X), 0),
    ("brightness", 0.7, np.minimum(X * 1.63, 255), 1),
    ("brightness", -0.7, X * 0.37, 1),
    ("contrast", -0.7, GREY_MEAN + (X - GREY_MEAN) * 0.37, 2),
    ("color", -0.7, X * 0.37 + 0.63 * (X @ [299, 587, 114] / 1000)[..., None], 2),
]


@pytest.mark.parametrize(("name", "share", "wanted", "most"), DEFINITIONS)
def test_operations_on_values(name, share, wanted, most):
    assert np.abs(apply(name, share) - wanted).max() <= most
    assert np.abs(wanted - X).max() > 10


def test_equalize_spreads_the_values_and_sharpness_keeps_what_is_flat():
    spread = apply("equalize", 0.5, np.repeat(np.arange(100, 164, dtype=np.uint8), 12).reshape(16, 48, 1).repeat(3, 2))
    assert spread.min() == 0 and spread.max() == 255 and (np.diff(np.unique(spread)) >= 3).all()
    flat = np.full((8, 8, 3), 90, np.uint8)
    assert (apply("sharpness", 0.7, flat) == 90).all() and np.abs(apply("sharpness", 0.7) - X).max() > 20


def test_geometry_moves_a_dot_where_the_strength_says_and_leaves_grey():
    dot = np.zeros((40, 40, 3), np.uint8)
    dot[8:11, 28:31] = 255  # its middle is (29, 9)

    def middle(name, share):
        y, x = np.nonzero(apply(name, share, dot)[..., 0] > 200)
        return x.mean(), y.mean()

    assert middle("translate_x", 0.5) == pytest.approx((29 - 9, 9))  # the pixel at x shows that at x + 0.45 * 0.5 * 40
    assert middle("translate_y", -0.5) == pytest.approx((29, 9 + 9))
    assert middle("shear_x", 1.0) == pytest.approx((29 - 0.3 * 9, 9), abs=0.7)
    assert middle("shear_y", -1.0) == pytest.approx((29, 9 + 0.3 * 29), abs=0.7)
    turned = np.deg2rad(15)  # against the clock, around the middle (19.5, 19.5); y points down
    x, y = 29 - 19.5, 9 - 19.5
    wanted = (19.5 + x * np.cos(turned) + y * np.sin(turned), 19.5 - x * np.sin(turned) + y * np.cos(turned))
    assert middle("rotate", 0.5) == pytest.approx(wanted, abs=0.7)
    for name in ("translate_x", "translate_y", "shear_x", "shear_y", "rotate"):
        assert (apply(name, 0.7, dot) == 128).any() and (apply(name, 0.0, dot) == dot).all()


def test_draws_have_the_numbers_of_the_recipe():
    rng = np.random.default_rng(1)
    found = [operation for _ in range(2000) for operation in augment.draw(4, 7, 0.5, rng)]
    assert len(found) == pytest.approx(2000 * 4 / 2, rel=0.05)  # half of those drawn are applied
    names, counts = np.unique([name for name, _ in found], return_counts=True)
    assert set(names) == set(OPERATIONS) and len(names) == 15 and counts.min() > 0.8 * len(found) / 15
    shares = np.array([share for _, share in found])
    assert np.abs(shares).mean() == pytest.approx(0.7, abs=0.01) and np.abs(shares).std() == pytest.approx(
        0.05, abs=0.005
    )
    assert abs((shares > 0).mean() - 0.5) < 0.03
    assert max(abs(share) for _, share in augment.draw(100, 10, 5, rng)) == 1


def test_all_frames_of_a_clip_change_alike():
    frames = np.stack([PIXELS, PIXELS])
    kinds = set()
    for seed in range(20):
        found = augment.augment(frames, 4, 7, 0.5, np.random.default_rng(seed))
        np.testing.assert_array_equal(found[0], found[1])
        np.testing.assert_array_equal(found, augment.augment(frames, 4, 7, 0.5, np.random.default_rng(seed)))
        kinds.add(found.tobytes())
    assert len(kinds) > 10 and found.dtype == np.uint8 and found.shape == frames.shape


def test_erasing_fills_one_rectangle_of_all_frames_with_noise():
    frames, areas, ratios, values, erased = np.full((2, 60, 60, 3), 250, np.uint8), [], [], [], 0
    for seed in range(300):
        found = augment.erase(frames, 0.25, np.random.default_rng(seed))
        changed = (found != 250).any((0, 3))
        if not changed.any():
            continue
        erased += 1
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        h, w = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert changed.sum() > 0.97 * h * w  # a rectangle, but for noise that happens to be 250
        areas.append(h * w / 3600)
        ratios.append(h / w)
        inside = found[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].reshape(-1, 3) / 255
        values.append(inside)
        assert (found[0] != found[1]).any()  # noise of its own for every frame
    assert erased == pytest.approx(75, abs=25)
    assert 0.01 < min(areas) < 0.06 and 0.25 < max(areas) < 0.37 and min(ratios) < 0.6 and max(ratios) > 1.7
    drawn = np.concatenate(values)
    np.testing.assert_allclose(drawn.mean(0), MEAN, atol=0.01)
    np.testing.assert_allclose(drawn.std(0), STD, atol=0.02)
    assert augment.erase(frames, 0.0, np.random.default_rng(0)) is frames
