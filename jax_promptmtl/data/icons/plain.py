"""The rendering of the pretraining corpus: random colours, at times cluttered, never one of the four task styles."""

from collections.abc import Iterator

import numpy as np

from jax_promptmtl.data.icons import clutter, raster
from jax_promptmtl.data.icons.raster import column

Array = np.ndarray
SIZE = 48
CHUNK = 32  # masks at a time: their float copies stay in the cache
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def plain_batch(
    masks: Array, rng: np.random.Generator, printed: float = 0.0, warp: float = 1.0, cluttered: float = 0.0
) -> Array:
    """Render glyphs in random flat colours or gradients after a random warp and change of stroke.

    Args:
      masks: uint8[B, H, H], 255 = ink.
      rng: the only source of randomness.
      printed: share of the pictures in black on white instead; easier, for the start of a pretraining.
      cluttered: share of the pictures with patchy colours, rims, uneven light, blur and noise, see `clutter`.
      warp: strength of rotation, scaling, shift, shear, elastic warp and change of stroke, 0 to 1; likewise.

    Returns:
      uint8[B, 48, 48, 3].

    >>> plain_batch(np.zeros((2, 64, 64), np.uint8), np.random.default_rng(0)).shape
    (2, 48, 48, 3)
    """
    out = np.empty((len(masks), SIZE, SIZE, 3), np.uint8)
    for start in range(0, len(masks), CHUNK):
        part = slice(start, start + CHUNK)
        coverage = _coverage(masks[part], rng, warp)
        for channel, plane in enumerate(_paint(coverage, rng, printed)):
            out[part, ..., channel] = plane
        busy = np.flatnonzero(rng.random(len(coverage)) < cluttered) if cluttered else np.zeros(0, int)
        if len(busy):
            out[start + busy] = clutter.paint(coverage[busy], *_colours(len(busy), rng), rng)
    return out


def plain(mask: Array, rng: np.random.Generator) -> Array:
    """Render one glyph uint8[H, H] as `plain_batch` does, to uint8[48, 48, 3]."""
    picture: Array = plain_batch(mask[None], rng)[0]
    return picture


def _coverage(masks: Array, rng: np.random.Generator, warp: float) -> Array:
    """Return the ink coverage float32[B, 48, 48] in [0, 1] of warped masks with other strokes, some only outlined."""
    count = len(masks)
    soft = raster.blur(masks.astype(np.float32) * np.float32(1 / 255), 2)
    thick = rng.random(count) < 0.3 * warp  # a wider blur allows a larger change of stroke
    soft[thick] = raster.blur(soft[thick], 4)
    value = raster.sample(soft, *_coordinates(count, rng, warp))
    outline = rng.random(count) < 0.12 * warp
    value[outline] = 1 - np.abs(2 * value[outline] - 1)
    level = np.where(outline, rng.uniform(0.35, 0.55, count), 0.44 + warp * rng.uniform(-0.16, 0.16, count))
    gain = rng.uniform(1.4, 2.4, count)
    value *= column(gain)
    value += column(0.5 - level * gain)
    return np.clip(value, 0, 1, out=value)


def _coordinates(count: int, rng: np.random.Generator, warp: float) -> tuple[Array, Array]:
    """Draw the source coordinates of `count` random affine maps with a slight elastic warp."""
    angle = warp * np.deg2rad(rng.uniform(-15, 15, count))
    scale = 0.95 + warp * rng.uniform(-0.25, 0.1, count)
    shear = warp * rng.uniform(-0.15, 0.15, count)
    room = warp * np.maximum(1.05 - scale, 0.05)[:, None]
    shift = rng.uniform(-1, 1, (count, 2)) * room
    y, x = raster.affine(*raster.grid(SIZE), angle=angle, scale=scale, shear=shear, shift=shift)
    strength = column(np.where(rng.random(count) < 0.5 * warp, rng.uniform(0.01, 0.045, count), 0))
    y += raster.field(rng, count, SIZE, 5) * strength
    x += raster.field(rng, count, SIZE, 5) * strength
    return y, x


def _paint(coverage: Array, rng: np.random.Generator, printed: float) -> Iterator[Array]:
    """Yield the three colour planes uint8[B, 48, 48] of ink over ground, each flat or a linear gradient."""
    count = len(coverage)
    ground, ink = _colours(count, rng)
    shaded = rng.random((2, count, 1)) < 0.3
    ground_step, ink_step = rng.uniform(-60, 60, (2, count, 3)).astype(np.float32) * shaded
    black = rng.random(count) < printed
    ground[black], ink[black], ground_step[black], ink_step[black] = 255, 0, 0, 0
    turn = rng.uniform(0, 2 * np.pi, count)
    y, x = raster.grid(SIZE)
    slope = column(np.cos(turn)) * x + column(np.sin(turn)) * y
    for channel in range(3):
        # ground + coverage * (ink - ground), both linear in the slope
        difference = column((ink_step - ground_step)[:, channel]) * slope
        difference += column((ink - ground)[:, channel])
        difference *= coverage
        difference += column(ground_step[:, channel]) * slope
        difference += column(ground[:, channel] + np.float32(0.5))
        yield np.clip(difference, 0, 255, out=difference)


def _colours(count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw ground and ink colours float32[B, 3] of either polarity whose luma differs by 70 or more."""
    ground, ink = rng.uniform(0, 255, (2, count, 3)).astype(np.float32)
    grey = rng.random((2, count, 1)) < 0.2
    ground = np.where(grey[0], ground[:, :1], ground)
    ink = np.where(grey[1], ink[:, :1], ink)
    gap = (ink - ground) @ LUMA
    missing = np.sign(gap + np.float32(1e-3)) * np.maximum(0, 70 - np.abs(gap))
    # What ink cannot take up before it clips, ground gives in the other direction.
    ink, ground = ink + missing[:, None] * 0.5, ground - missing[:, None] * 0.5
    return np.clip(ground, 0, 255), np.clip(ink, 0, 255)
