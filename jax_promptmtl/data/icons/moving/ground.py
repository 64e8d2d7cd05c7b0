"""What icons move on: periodic textures in two colours, still or under a moving camera, and sensor noise."""

import functools
from collections.abc import Callable

import numpy as np

from jax_promptmtl.core.errors import pick
from jax_promptmtl.data.icons import raster
from jax_promptmtl.data.icons.moving.draws import Draws
from jax_promptmtl.data.icons.moving.frame import SIZE, luma

Array = np.ndarray
TILE = 2 * SIZE
COUNT = 40  # textures of a kind
_STOCK = 1 << 20


def _cloud(rng: np.random.Generator) -> Array:
    texture: Array = raster.fractal(rng, TILE, 1.4)[0] * 0.6
    return texture


def _grain(rng: np.random.Generator) -> Array:
    tile: Array = raster.fractal(rng, TILE, 0.7)[0] * 0.5
    return tile


def _blobs(rng: np.random.Generator) -> Array:
    texture: Array = np.tanh(4 * raster.fractal(rng, TILE, 2.0)[0])
    return texture


def _stripes(rng: np.random.Generator) -> Array:
    y, x = np.meshgrid(np.arange(TILE), np.arange(TILE), indexing="ij")
    down, right = rng.integers(1, 6), rng.integers(-5, 6)
    return np.sin(2 * np.pi * (down * y + right * x) / TILE + rng.uniform(0, 6))


def _checker(rng: np.random.Generator) -> Array:
    y, x = np.meshgrid(np.arange(TILE), np.arange(TILE), indexing="ij")
    side = rng.choice([4, 8])
    return np.where((y // side + x // side) % 2, 0.8, -0.8)


def _glow(rng: np.random.Generator) -> Array:
    y, x = np.meshgrid(np.arange(TILE), np.arange(TILE), indexing="ij")
    turn = rng.uniform(0, 2 * np.pi, 2)
    texture: Array = np.sin(2 * np.pi * y / TILE + turn[0]) * 0.7 + np.sin(2 * np.pi * x / TILE + turn[1]) * 0.7
    return texture


KINDS: dict[str, Callable[[np.random.Generator], Array]] = {
    "cloud": _cloud,
    "grain": _grain,
    "blobs": _blobs,
    "stripes": _stripes,
    "checker": _checker,
    "glow": _glow,
}


@functools.cache
def tiles(kind: str) -> Array:
    """Return the textures of a kind, float32[40, 64, 64], periodic in both directions, about -1 to 1.

    >>> tiles("glow").shape
    (40, 64, 64)
    """
    make = KINDS[pick(kind, KINDS, "background")]
    return np.stack([make(np.random.default_rng([7, number])) for number in range(COUNT)]).astype(np.float32)


def paint(draws: Draws, kind: str, colour: Array, frames: int, pan: float) -> tuple[Array, Array]:
    """Draw the background of B clips.

    Args:
      draws: random numbers of B clips.
      kind: a key of `KINDS`.
      colour: float32[B, 3], the mean, 0 to 255.
      frames: L.
      pan: length of the camera's way in pixels; 0 for a camera that stands still.

    Returns:
      Planes float32[B, 3, L, 32, 32], L = 1 if the camera stands still, and what the camera adds to positions in the
      frame, float32[B, 2 (y, x), L], in pixels.
    """
    texture = tiles(kind)[draws.below(COUNT)]
    corner = draws.below(TILE, 2).astype(np.float32)
    tint = draws.uniform(-1, 1, 3) + np.where(draws.chance(0.5), 1, -1)[:, None]
    tint = tint * (draws.uniform(8, 18) / np.maximum(np.abs(luma(tint)), 0.6))[:, None]
    turn, length = draws.uniform(0, 2 * np.pi), draws.uniform(0.4 * pan, pan)
    share = np.linspace(-0.5, 0.5, frames, dtype=np.float32) if pan else np.zeros(1, np.float32)
    way = np.stack([np.sin(turn) * length, np.cos(turn) * length], axis=1)[..., None] * share
    value = _window(texture, corner[..., None] - way)
    planes = colour[:, :, None, None, None] + tint[:, :, None, None, None] * value[:, None]
    return planes, np.broadcast_to(way, (len(draws), 2, frames))


def _window(texture: Array, corner: Array) -> Array:
    """Cut float32[B, L, 32, 32] out of periodic textures [B, 64, 64] at real-valued corners [B, 2, L]."""
    whole = np.floor(corner).astype(int)
    part = (corner - whole).astype(np.float32)[..., None, None]
    places = (whole[..., None] + np.arange(SIZE + 1)) % TILE  # [B, 2, L, 33]
    batch = np.arange(len(texture))[:, None, None, None]
    cut = texture[batch, places[:, 0, :, :, None], places[:, 1, :, None, :]]
    rows = cut[:, :, :-1] + (cut[:, :, 1:] - cut[:, :, :-1]) * part[:, 0]
    result: Array = rows[..., :-1] + (rows[..., 1:] - rows[..., :-1]) * part[:, 1]
    return result


@functools.cache
def _noise() -> Array:
    return np.random.default_rng(11).standard_normal(_STOCK, np.float32)


def add_noise(draws: Draws, planes: Array, strongest: float) -> None:
    """Add sensor noise to planes [B, ...] in place: a random piece of one long stock, of a random strength."""
    strength, start = draws.uniform(1, strongest), draws.below(_STOCK - planes[0].size)
    for clip, scale, at in zip(planes, strength, start, strict=True):
        clip += _noise()[at : at + clip.size].reshape(clip.shape) * scale
