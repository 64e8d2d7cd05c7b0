"""Preprocessing against the formulae of torchvision, written out a second time from its documentation."""

import math

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import preprocess
from jax_promptmtl.data.preprocess import Preprocess

RNG = np.random.default_rng(0)


def picture(height, width):
    """Noise whose bicubic overshoot stays within 0..255: Pillow's versions clip between the passes or after them."""
    return RNG.integers(90, 166, (height, width, 3), np.uint8)


def bicubic(array, width, height):
    """Resample in float64 with Pillow's convolution: a = -0.5, support widened when reducing, rounded per pass."""

    def weights(old, new):
        scale = max(old / new, 1.0)
        matrix = np.zeros((new, old))
        for i in range(new):
            centre = (i + 0.5) * old / new
            lo, hi = max(0, int(centre - 2 * scale + 0.5)), min(old, int(centre + 2 * scale + 0.5))
            t = np.abs((np.arange(lo, hi) + 0.5 - centre) / scale)
            near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
            w = np.where(t < 1, near, np.where(t < 2, far, 0))
            matrix[i, lo:hi] = w / w.sum()
        return matrix

    across = np.clip(np.round(np.einsum("ij,hjc->hic", weights(array.shape[1], width), array.astype(float))), 0, 255)
    return np.clip(np.round(np.einsum("ij,jwc->iwc", weights(array.shape[0], height), across)), 0, 255)


@pytest.mark.parametrize("height,width", [(30, 30), (30, 47), (61, 33), (24, 24), (24, 31), (20, 90), (37, 24)])
def test_evaluation_resizes_crops_and_normalises(height, width):
    size = 24
    image = picture(height, width)
    if width <= height:
        w, h = size, int(size * height / width)
    else:
        w, h = int(size * width / height), size
    top, left = round((h - size) / 2.0), round((w - size) / 2.0)
    expected = bicubic(image, w, h)[top : top + size, left : left + size] / 255
    expected = (expected - np.array(preprocess.CLIP_MEAN)) / np.array(preprocess.CLIP_STD)
    actual = Preprocess(size).evaluate(image)
    assert actual.dtype == np.float32 and actual.shape == (size, size, 3)
    # Pillow works in 22-bit fixed point: at most one grey level apart, rarely
    difference = np.abs(actual - expected) * np.array(preprocess.CLIP_STD) * 255
    assert difference.max() < 1.01 and (difference > 0.01).mean() < 0.02


@pytest.mark.parametrize("long", range(224, 240))
def test_centre_crop_rounds_half_to_even_as_torchvision(long):
    ramp = np.broadcast_to(np.arange(long, dtype=np.uint8)[None, :, None], (224, long, 3))
    out = Preprocess(224, mean=(0, 0, 0), std=(1, 1, 1)).evaluate(np.ascontiguousarray(ramp))
    offset = (long - 224) / 2
    expected = math.floor(offset) if offset % 2 <= 0.5 else math.ceil(offset)  # ties go to the even number
    assert round(float(out[0, 0, 0]) * 255) == expected


def test_long_side_is_truncated():
    assert preprocess.resized(640, 427, 224) == (int(224 * 640 / 427), 224) == (335, 224)
    assert preprocess.resized(427, 640, 224) == (224, 335)


def test_random_crop_is_distributed_as_torchvision_says():
    rng = np.random.default_rng(0)
    crops = np.array([preprocess.random_crop(200, 300, (0.08, 1), (3 / 4, 4 / 3), rng) for _ in range(4000)])
    top, left, h, w = crops.T
    assert ((top >= 0) & (left >= 0) & (top + h <= 200) & (left + w <= 300) & (h > 0) & (w > 0)).all()
    ratio = w / h
    assert ratio.min() > 0.73 and ratio.max() < 1.37
    share = h * w / 60000
    # below 0.5 nothing is rejected, so the area is uniform there
    counts = np.histogram(share, bins=[0.08, 0.22, 0.36, 0.5])[0]
    assert np.ptp(counts) < 5 * math.sqrt(counts.mean())
    assert abs(np.log(ratio[share < 0.4]).mean()) < 0.02  # log-uniform is symmetric


@pytest.mark.parametrize(
    "height,width,expected", [(10, 100, (0, 43, 10, 13)), (100, 10, (43, 0, 13, 10)), (10, 12, (0, 0, 10, 12))]
)
def test_random_crop_falls_back_to_the_centre(height, width, expected):
    # an area of four times the image never fits
    assert preprocess.random_crop(height, width, (4, 4), (3 / 4, 4 / 3), np.random.default_rng(0)) == expected


def test_augmentation_is_the_resized_crop_perhaps_mirrored():
    image = picture(40, 50)
    plain = dict(mean=(0, 0, 0), std=(1, 1, 1))
    never, always = (Preprocess(16, flip=flip, **plain) for flip in (0.0, 1.0))
    for seed in range(5):
        top, left, h, w = preprocess.random_crop(40, 50, never.scale, never.ratio, np.random.default_rng(seed))
        expected = bicubic(image[top : top + h, left : left + w], 16, 16)
        out = never.augment(image, np.random.default_rng(seed))
        assert np.abs(out * 255 - expected).max() < 1.01
        np.testing.assert_array_equal(always.augment(image, np.random.default_rng(seed)), out[:, ::-1])
    mirrored = [
        not np.array_equal(
            Preprocess(16, **plain).augment(image, np.random.default_rng(s)),
            never.augment(image, np.random.default_rng(s)),
        )
        for s in range(200)
    ]
    assert 70 < sum(mirrored) < 130


def test_augmentation_can_be_switched_off():
    image = picture(24, 24)
    still = Preprocess(24, scale=(1, 1), ratio=(1, 1), flip=0)
    np.testing.assert_array_equal(still.augment(image, np.random.default_rng(0)), still.evaluate(image))


@pytest.mark.parametrize("size", [(30, 47), (61, 33), (24, 24), (9, 12), (40, 17)])
@pytest.mark.parametrize("resize", ["longest", "squash", "none"])
def test_other_ways_to_resize(size, resize):
    """Against open_clip's `ResizeKeepRatio`, `Resize` to a pair, and `CenterCropOrPad` with fill, written out anew."""
    side, (height, width), image = 24, size, picture(*size)
    scale = max(height, width) / side
    h, w = {"longest": (round(height / scale), round(width / scale)), "squash": (side, side), "none": size}[resize]
    expected = np.full((side, side, 3), 77.0)
    inner = bicubic(image, w, h) if (h, w) != size else image.astype(float)
    top, left = (-((side - n) // 2) if n < side else round((n - side) / 2) for n in (h, w))
    for y in range(side):
        for x in range(side):
            if 0 <= y + top < h and 0 <= x + left < w:
                expected[y, x] = inner[y + top, x + left]
    actual = Preprocess(side, (0, 0, 0), (1, 1, 1), resize=resize, fill=77).evaluate(image)
    assert np.abs(actual * 255 - expected).max() < 1.01  # Pillow takes the passes in either order


def test_other_filters_and_scales():
    image = picture(48, 48)
    nearest = Preprocess(16, (0, 0, 0), (1, 1, 1), interpolation="nearest", rescale=1.0)
    np.testing.assert_array_equal(nearest.evaluate(image), image[1::3, 1::3])
    np.testing.assert_allclose(nearest.shown(nearest.evaluate(image)), image[1::3, 1::3] / 255, rtol=1e-6)
    np.testing.assert_array_equal(
        Preprocess(
            16, scale=(1, 1), ratio=(1, 1), flip=1, interpolation="nearest", mean=(0, 0, 0), std=(1, 1, 1)
        ).augment(image, np.random.default_rng(0)),
        (image[1::3, 1::3][:, ::-1] / np.float32(255)).astype(np.float32),
    )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"resize": "short"}, "Unknown way to resize"),
        ({"interpolation": "cubic"}, "Unknown interpolation"),
        ({"offset": "up"}, "Unknown offset"),
        ({"size": 0}, "Pictures of 0 pixels"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Preprocess(**options)
