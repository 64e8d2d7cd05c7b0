"""The four drawing styles of the icon suite: a glyph mask becomes a sketch, clip art, a product shot or a photograph.

Pictures are painted at twice the size on a float canvas [96, 96, 3] in [0, 1] and averaged down to 48 x 48. All
randomness comes from the generator that the caller hands in.
"""

import colorsys
import math
from collections.abc import Callable

import numpy as np

from jax_promptmtl.core.errors import pick
from jax_promptmtl.data.icons import raster

Array = np.ndarray
Generator = np.random.Generator
SIZE = 48
CANVAS = 2 * SIZE
Y, X = raster.grid(CANVAS)
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def render(mask: Array, style: str, rng: Generator) -> Array:
    """Render a glyph in a style.

    Args:
      mask: uint8[H, H], 255 = ink.
      style: a key of `STYLES`.
      rng: the only source of randomness.

    Returns:
      uint8[48, 48, 3].

    >>> render(np.zeros((64, 64), np.uint8), "line", np.random.default_rng(0)).shape
    (48, 48, 3)
    """
    ink = np.asarray(mask, np.float32) / 255
    canvas = STYLES[pick(style, STYLES, "drawing style")](ink, rng)
    rows = canvas[::2] + canvas[1::2]
    small = (rows[:, ::2] + rows[:, 1::2]) * np.float32(255 / 4)
    result: Array = (np.clip(small, 0, 255) + 0.5).astype(np.uint8)
    return result


def line(ink: Array, rng: Generator) -> Array:
    """Sketch the glyph with two wobbly passes of a dark pen on paper; large areas are hatched."""
    canvas = _paper(rng)
    colour = _hsv(rng.uniform(0, 1), rng.uniform(0, 0.6), rng.uniform(0.05, 0.3))
    pose = _pose(rng, angle=12, scale=(0.72, 0.92), shear=0.12, room=0.12)
    grain = raster.fractal(rng, CANVAS, 0.4)[0]
    hatch = np.sin((X * _side(rng) + Y) * rng.uniform(38, 50) + 3 * raster.field(rng, 1, CANVAS, 4)[0])
    soft, deep = raster.blur(ink[None], 2)[0], raster.blur(ink[None], 14)[0]
    for _ in range(2):
        y, x = _wobble(pose, rng, strength=0.022, knots=8)
        y, x = _wobble((y, x), rng, strength=0.03, knots=3)
        level = 0.62 + 0.1 * raster.field(rng, 1, CANVAS, 6)[0]
        stroke = _threshold(_read(soft, y, x), level, 4)
        if deep.max() > 0.6:
            stroke *= 1 - _threshold(_read(deep, y, x), 0.8, 8) * (hatch < 0.1) * 0.85
        canvas = _over(canvas, colour, stroke * np.clip(0.68 + 0.16 * grain, 0.2, 1))
    return canvas


def clip(ink: Array, rng: Generator) -> Array:
    """Draw the glyph as clip art: vivid fills inside a dark contour, a sticker edge, discs and a halftone behind."""
    hue = rng.uniform(0, 1)
    canvas = _plain_ground(_hsv(hue, rng.uniform(0.05, 0.5), rng.uniform(0.85, 1)))
    for colour, radius, y, x in _discs(rng, hue):
        canvas = _over(canvas, colour, _threshold(radius - np.hypot(Y - y, X - x), 0, 40))
    canvas = _halftone(canvas, rng)
    pose = _wobble(_pose(rng, angle=18, scale=(0.68, 0.9), shear=0.1, room=0.12), rng, strength=0.012, knots=4)
    soft = _read(raster.blur(ink[None], 2)[0], *pose)
    whole = _read(raster.blur(raster.fill_holes(ink > 0.4).astype(np.float32)[None], 8)[0], *pose)
    if rng.random() < 0.6:
        canvas = _over(canvas, np.ones(3, np.float32), _threshold(whole, 0.08, 10))
    dark = _hsv(rng.uniform(0, 1), rng.uniform(0.3, 0.9), rng.uniform(0.08, 0.25))
    canvas = _over(canvas, dark, _threshold(whole, 0.25, 6))
    body = hue + rng.uniform(0.25, 0.75)
    second = _hsv(body + rng.uniform(0.15, 0.5), rng.uniform(0.1, 0.5), rng.uniform(0.9, 1))
    canvas = _over(canvas, second, _threshold(whole, 0.5, 6))
    canvas = _over(canvas, dark, _threshold(soft, 0.22, 4))
    fill = (
        _hsv(body, rng.uniform(0.75, 1), rng.uniform(0.75, 1))[None, None]
        * (1 - np.float32(0.18) * (Y + X > 0))[..., None]
    )
    return _over(canvas, fill, _threshold(soft, 0.55, 4))


def product(ink: Array, rng: Generator) -> Array:
    """Show the glyph as a lit, extruded object with a soft shadow in a grey studio."""
    pose = _pose(rng, angle=10, scale=(0.66, 0.88), shear=0.2, room=0.08)
    soft = _read(raster.blur(ink[None], 1)[0], *pose)
    cover = _threshold(soft, 0.5, 3)
    turn = _side(rng)
    canvas = _studio(rng)
    shadow = _soften(raster.shifted(cover, 9, 6 * turn), 6)
    canvas = _over(canvas, np.full(3, 0.12), shadow * rng.uniform(0.5, 0.75))
    colour = _hsv(
        rng.uniform(0, 1), float(rng.choice([0.05, 0.5, 0.85])) * rng.uniform(0.8, 1.2), rng.uniform(0.35, 0.95)
    )
    colour = colour * min(1, 0.5 / (colour @ LUMA))  # darker than the studio
    for depth in range(rng.integers(4, 8), 0, -1):
        side = raster.shifted(cover, depth, (depth * turn) // 2)
        canvas = _over(canvas, colour * (0.5 - 0.03 * depth), side)
    light, gloss = _shade(cover, turn)
    lit = colour[None, None] * (0.55 + 0.6 * light)[..., None] + (rng.uniform(0.2, 0.6) * gloss)[..., None]
    return _over(canvas, lit, cover)


def real(ink: Array, rng: Generator) -> Array:
    """Photograph the glyph: seen in perspective, textured on a textured ground, lit, blurred and noisy."""
    tilt = rng.uniform(-0.28, 0.28, 2).astype(np.float32)
    depth = 1 + tilt[0] * Y + tilt[1] * X
    pose = _pose(rng, angle=14, scale=(0.7, 0.92), shear=0.15, room=0.1, y=Y / depth, x=X / depth)
    soft = _read(raster.blur(ink[None], 2)[0], *pose)
    cover = _threshold(soft, 0.45, 3)
    ground, body = _contrast(rng)
    canvas = _texture(ground, rng)
    down, right = int(rng.integers(2, 7)), int(rng.integers(-5, 6))
    shadow = _soften(raster.shifted(cover, down, right), 2)
    canvas = _over(canvas, ground * 0.15, shadow * rng.uniform(0.35, 0.7))
    light, gloss = _shade(cover, _side(rng))
    surface = _texture(body, rng) * (0.75 + 0.35 * light)[..., None] + 0.15 * gloss[..., None]
    canvas = _over(canvas, surface, cover)
    lamp = 1 + 0.22 * raster.field(rng, 1, CANVAS, 3)[0] - 0.18 * (Y * Y + X * X)
    canvas = canvas * lamp[..., None] * _tint(rng, 0.12)
    canvas = np.moveaxis(raster.blur(np.moveaxis(canvas, -1, 0).astype(np.float32), int(rng.integers(1, 4))), 0, -1)
    noise = rng.standard_normal((CANVAS, CANVAS, 3), np.float32) * rng.uniform(0.02, 0.09)
    result: Array = np.clip(canvas, 0, 1) ** rng.uniform(0.75, 1.25) + noise
    return result


STYLES: dict[str, Callable[[Array, Generator], Array]] = {"line": line, "clip": clip, "product": product, "real": real}


def _pose(
    rng: Generator,
    *,
    angle: float,
    scale: tuple[float, float],
    shear: float,
    room: float,
    y: Array = Y,
    x: Array = X,
) -> tuple[Array, Array]:
    """Draw an affine pose; return the mask coordinates (y, x), [S, S] each, that the canvas pixels show."""
    y, x = raster.affine(
        y,
        x,
        angle=np.deg2rad(rng.uniform(-angle, angle, 1)),
        scale=rng.uniform(*scale, 1),
        shear=rng.uniform(-shear, shear, 1),
        shift=rng.uniform(-room, room, (1, 2)),
    )
    return y[0], x[0]


def _wobble(pose: tuple[Array, Array], rng: Generator, *, strength: float, knots: int) -> tuple[Array, Array]:
    """Displace a pose by smooth noise of `strength` half-widths."""
    dy, dx = raster.field(rng, 2, CANVAS, knots) * np.float32(strength)
    return pose[0] + dy, pose[1] + dx


def _read(soft: Array, y: Array, x: Array) -> Array:
    """Sample a mask [H, H] in a pose, zero outside the mask."""
    inside = (np.abs(y) < 1) & (np.abs(x) < 1)
    result: Array = raster.sample(soft[None], y[None], x[None])[0] * inside
    return result


def _threshold(value: Array, level: Array | float, gain: float) -> Array:
    """Return coverage in [0, 1]: one half where value = level, with slope `gain`."""
    return np.clip((value - level) * gain + 0.5, 0, 1).astype(np.float32)


def _over(canvas: Array, colour: Array, alpha: Array) -> Array:
    """Paint a colour [3] or picture [S, S, 3] over the canvas with opacity alpha [S, S]."""
    mixed: Array = canvas + (np.asarray(colour, np.float32) - canvas) * alpha[..., None]
    return mixed


def _soften(cover: Array, passes: int) -> Array:
    """Blur [S, S] widely: `passes` filters at half the size, worth four times as many at full size."""
    rows = cover[::2] + cover[1::2]
    half = (rows[:, ::2] + rows[:, 1::2]) * np.float32(0.25)
    result: Array = raster.blur(raster.blur(half[None], passes).repeat(2, 1).repeat(2, 2), 1)[0]
    return result


def _hsv(hue: float, saturation: float, value: float) -> Array:
    return np.array(colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1)), np.float32)


def _tint(rng: Generator, strength: float) -> Array:
    """Draw a factor per channel around 1."""
    return 1 + rng.uniform(-strength, strength, 3).astype(np.float32)


def _side(rng: Generator) -> int:
    """Draw -1 or 1, for left or right."""
    return 1 if rng.random() < 0.5 else -1


def _plain_ground(colour: Array) -> Array:
    return np.broadcast_to(colour, (CANVAS, CANVAS, 3)).astype(np.float32)


def _paper(rng: Generator) -> Array:
    """Draw a sheet of paper: off-white, fibrous, at times ruled or squared."""
    base = _hsv(float(rng.choice([0.1, 0.13, 0.6])), rng.uniform(0, 0.14), rng.uniform(0.88, 0.99))
    canvas = _plain_ground(base) + 0.025 * raster.fractal(rng, CANVAS, 0.7)[0][..., None]
    kind = rng.random()
    period, first = rng.uniform(0.2, 0.32), rng.uniform(0, 1)
    ruled = np.abs((Y / period + first) % 1 - 0.5) > 0.44
    squared = ruled | (np.abs((X / period + first) % 1 - 0.5) > 0.44)
    lines = ruled if kind < 0.35 else squared if kind < 0.6 else np.zeros_like(ruled)
    return _over(canvas, _hsv(rng.uniform(0.5, 0.66), 0.5, 0.85), lines * np.float32(0.4))


def _discs(rng: Generator, hue: float) -> list[tuple[Array, float, float, float]]:
    """Draw discs (colour, radius, y, x): one large behind the object and a few small ones around it."""
    large = (_hsv(hue + rng.uniform(0.1, 0.4), rng.uniform(0.4, 0.9), rng.uniform(0.8, 1)), rng.uniform(0.6, 0.95))
    discs = [(*large, rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2))]
    for _ in range(rng.integers(2, 7)):
        turn, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.2)
        colour = _hsv(rng.uniform(0, 1), rng.uniform(0.6, 1), rng.uniform(0.7, 1))
        discs.append((colour, rng.uniform(0.06, 0.25), far * math.sin(turn), far * math.cos(turn)))
    return discs


def _halftone(canvas: Array, rng: Generator) -> Array:
    """Lay printing dots over the ground, growing towards one corner."""
    period, side = rng.uniform(0.12, 0.18), _side(rng)
    dots = np.hypot((Y / period) % 1 - 0.5, (X / period) % 1 - 0.5)
    radius = np.clip(0.22 + 0.2 * (Y + side * X), 0, 0.45)
    return canvas * (1 - 0.22 * _threshold(radius - dots, 0, 8))[..., None]


def _studio(rng: Generator) -> Array:
    """Draw a grey backdrop that sweeps into a lighter table, darker towards the corners."""
    table = 1 / (1 + np.exp(-(Y - rng.uniform(0.1, 0.5)) * rng.uniform(4, 12)))
    grey = rng.uniform(0.62, 0.78) + rng.uniform(0.1, 0.2) * table - 0.12 * (X * X + Y * Y)
    result: Array = grey[..., None] * _tint(rng, 0.03)
    return result


def _shade(cover: Array, turn: int) -> tuple[Array, Array]:
    """Return (diffuse in [-1, 1], gloss in [0, 1]) of a cushion over the coverage [S, S], lit from above one side."""
    height = raster.blur(cover[None], 3)[0] * 2 + _soften(cover, 3) * 5
    slope_y, slope_x = np.gradient(height)
    length = np.sqrt(slope_y**2 + slope_x**2 + 0.25)
    towards = (slope_y * 0.75 + slope_x * 0.5 * turn + 0.5 * 0.43) / length
    return towards, np.clip(towards, 0, 1) ** 12


def _texture(colour: Array, rng: Generator) -> Array:
    """Return a picture of 1/f noise around a colour, some of it towards another hue."""
    bright, tinted = raster.fractal(rng, CANVAS, rng.uniform(0.8, 1.5), 2)[..., None]
    tint = rng.uniform(-0.08, 0.08, 3).astype(np.float32)
    result: Array = colour + rng.uniform(0.06, 0.14) * bright + tint * tinted
    return result


def _contrast(rng: Generator) -> tuple[Array, Array]:
    """Draw the mean colours of ground and object, muted, whose luma differs by 0.25 to 0.5."""
    middle, gap = rng.uniform(0.4, 0.6), rng.uniform(0.25, 0.5) * _side(rng)
    colours = [_hsv(rng.uniform(0, 1), rng.uniform(0.1, 0.7), 0.8) for _ in range(2)]
    targets = (middle - gap / 2, middle + gap / 2)
    ground, body = (colour * (target / (colour @ LUMA)) for colour, target in zip(colours, targets, strict=True))
    return np.clip(ground, 0, 1), np.clip(body, 0, 1)
