"""Cluttered pictures of glyphs for the pretraining: patchy grounds and inks, rims, uneven light, blur and noise.

Random in every respect and drawn without outlines, discs, paper, shading, shadows or perspective, so that the four
styles of the icon suite stay unseen.
"""

import functools

import numpy as np

from jax_promptmtl.data.icons import raster
from jax_promptmtl.data.icons.raster import column

Array = np.ndarray
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
TILES = 64


def paint(coverage: Array, ground: Array, ink: Array, rng: np.random.Generator) -> Array:
    """Paint ink over ground.

    Args:
      coverage: float32[B, S, S] of the ink, in [0, 1].
      ground, ink: colours float32[B, 3], 0 to 255.
      rng: the only source of randomness.

    Returns:
      float32[B, S, S, 3], 0 to 255.

    >>> red, blue = np.float32([[200, 0, 0]]), np.float32([[0, 0, 90]])
    >>> paint(np.ones((1, 8, 8), np.float32), red, blue, np.random.default_rng(0)).shape
    (1, 8, 8, 3)
    """
    picture = _surface(coverage, ground, rng)
    picture = _over(picture, _rim_colour(ink, rng), _rim(coverage, rng))
    picture = _over(picture, _surface(coverage, ink, rng), coverage[..., None])
    result: Array = np.clip(_photograph(picture, rng), 0, 255)
    return result


def _surface(coverage: Array, colour: Array, rng: np.random.Generator) -> Array:
    """Draw float32[B, S, S, 3]: a colour, patches of a second one of about the same luma, and a grain."""
    count, size, _ = coverage.shape
    shift = rng.uniform(-130, 130, (count, 3)).astype(np.float32)
    shift -= 0.7 * (shift @ LUMA)[:, None]  # shifts luma less than hue
    shift *= rng.random((count, 1)) < 0.7
    grain = _grain(count, size, rng) * column(rng.uniform(0, 32, count) * (rng.random(count) < 0.6))
    surface: Array = (
        colour[:, None, None] + _pattern(count, size, rng)[..., None] * shift[:, None, None] + grain[..., None]
    )
    return surface


def _pattern(count: int, size: int, rng: np.random.Generator) -> Array:
    """Draw patches float32[B, S, S] in [0, 1] with soft or hard edges: blobs, or stripes."""
    y, x = raster.grid(size)
    turn, period = rng.uniform(0, np.pi, count), rng.uniform(4, 22, count)
    stripes = np.sin((column(np.cos(turn)) * x + column(np.sin(turn)) * y) * column(period))
    blobs = raster.field(rng, count, size, int(rng.integers(3, 8)))
    value = np.where(column(rng.random(count) < 0.35) > 0, stripes, blobs)
    patches: Array = np.clip(value * column(np.exp(rng.uniform(-1, 2.5, count))) + 0.5, 0, 1)
    return patches


def _grain(count: int, size: int, rng: np.random.Generator) -> Array:
    """Draw noise float32[B, S, S] of many scales, zero mean and unit variance, from a stock of tiles."""
    tiles = _tiles(2 * size)[rng.integers(TILES, size=count)]
    top, left = rng.integers(size, size=(2, count))
    rows, columns = top[:, None] + np.arange(size), left[:, None] + np.arange(size)
    tile: Array = tiles[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None]]
    return tile


@functools.cache
def _tiles(size: int) -> Array:
    """Return float32[TILES, size, size] of 1/f noise with exponents from 0.3 to 1.6."""
    rng = np.random.default_rng(0)
    return np.stack([raster.fractal(rng, size, exponent)[0] for exponent in np.linspace(0.3, 1.6, TILES)])


def _rim(coverage: Array, rng: np.random.Generator) -> Array:
    """Draw the opacity float32[B, S, S, 1] of a band around the ink, none for most pictures."""
    near = raster.blur(coverage, int(rng.integers(2, 9)))
    present = column(rng.random(len(coverage)) < 0.35)
    opacity: Array = (np.clip((near - column(rng.uniform(0.08, 0.3, len(coverage)))) * 9, 0, 1) * present)[..., None]
    return opacity


def _rim_colour(ink: Array, rng: np.random.Generator) -> Array:
    """Draw colours float32[B, 1, 1, 3] whose luma differs from the ink's by 60 or more."""
    colour = rng.uniform(0, 255, ink.shape).astype(np.float32)
    gap = (colour - ink) @ LUMA
    side = np.where(ink @ LUMA > 127, -1, 1)
    return (colour + (np.where(np.abs(gap) < 60, side * 60 - gap, 0))[:, None])[:, None, None]


def _over(picture: Array, top: Array, alpha: Array) -> Array:
    mixed: Array = picture + (top - picture) * alpha
    return mixed


def _photograph(picture: Array, rng: np.random.Generator) -> Array:
    """Light unevenly, blur and add noise, each to a random degree."""
    count, size = picture.shape[:2]
    light = raster.field(rng, count, size, 3) * column(rng.uniform(0, 0.22, count))
    picture = picture * (1 + light)[..., None]
    blurred = rng.random(count) < 0.4
    planes = np.moveaxis(picture[blurred], -1, 1).reshape(-1, size, size)
    soft = raster.blur(planes, int(rng.integers(1, 4))).reshape(-1, 3, size, size)
    picture[blurred] = np.moveaxis(soft, 1, -1)
    noisy = np.flatnonzero(rng.random(count) < 0.5)
    noise = rng.standard_normal((len(noisy), size, size, 3), np.float32)
    picture[noisy] += noise * column(rng.uniform(2, 20, len(noisy)))[..., None]
    return picture
