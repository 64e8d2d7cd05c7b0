"""Raster operations against brute force."""

import numpy as np

from jax_promptmtl.data.icons import raster


def test_blur_equals_a_binomial_convolution():
    picture = np.random.default_rng(0).random((2, 7, 9)).astype(np.float32)
    padded = np.pad(picture, ((0, 0), (1, 1), (1, 1)), mode="edge")
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    expected = sum(kernel[i, j] * padded[:, i : i + 7, j : j + 9] for i in range(3) for j in range(3))
    np.testing.assert_allclose(raster.blur(picture, 1), expected, rtol=1e-5)


def test_sample_at_pixel_centres_is_the_identity_and_between_them_linear():
    picture = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)
    y, x = (np.broadcast_to(c, (3, 8, 8)) for c in raster.grid(8))
    np.testing.assert_allclose(raster.sample(picture, y, x), picture, atol=1e-2)
    half = raster.sample(picture, y, x + np.float32(1 / 8))[:, :, :7]
    np.testing.assert_allclose(half, (picture[:, :, :-1] + picture[:, :, 1:]) / 2, atol=1e-2)


def test_affine_turns_scales_and_shifts_a_point_as_the_matrix_says():
    angle, scale, shear, shift = 0.3, 0.8, 0.1, np.array([[0.2, -0.1]])
    source = np.array([0.3, 0.5])  # y, x
    y, x = raster.affine(
        np.float32([[source[0]]]),
        np.float32([[source[1]]]),
        angle=np.array([angle]),
        scale=np.array([scale]),
        shear=np.array([shear]),
        shift=shift,
    )
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
    expected = turn @ (source - shift[0])
    expected[1] += shear * expected[0]
    np.testing.assert_allclose([y.item(), x.item()], expected, rtol=1e-5)


def test_fill_holes_agrees_with_a_flood_fill_by_stack():
    ink = np.random.default_rng(1).random((20, 20)) < 0.45
    outside, stack = np.zeros((22, 22), bool), [(0, 0)]
    free = np.pad(~ink, 1, constant_values=True)
    while stack:
        i, j = stack.pop()
        if 0 <= i < 22 and 0 <= j < 22 and free[i, j] and not outside[i, j]:
            outside[i, j] = True
            stack += [(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)]
    np.testing.assert_array_equal(raster.fill_holes(ink), ~outside[1:-1, 1:-1])


def test_fractal_noise_falls_off_with_frequency():
    noise = raster.fractal(np.random.default_rng(0), 64, 1.0, 8)
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(0)
    ratio = power[1:3, 1:3].mean() / power[8:24, 8:24].mean()
    radius = lambda part: np.mean([1 / (i * i + j * j) for i in part for j in part])  # noqa: E731
    assert 0.5 < ratio / (radius(range(1, 3)) / radius(range(8, 24))) < 2
