"""From poses to pixels: the coverage of icons, the pictures they are painted into, their boxes and visible masks."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jax_promptmtl.data.icons import raster
from jax_promptmtl.data.icons.moving.draws import Draws
from jax_promptmtl.data.icons.moving.frame import SIZE

Array = np.ndarray
SIDE = 40  # pixels of a sprite
FILLED = 0.7  # share of its side that the long side of the drawing takes; the empty rim keeps every warp clean
_PASSES = (1, 2, 5)  # blur of the levels: for a drawing shown at about its own size, at 1/2 and at 1/3
SOLID = 0.3  # share of the largest coverage from which a pixel belongs to an icon
_GRID = raster.grid(SIZE)
_GAIN = np.float32(1.3)  # thin strokes, blurred, would be pale
_BLOCK = 128  # frames warped at a time: their coordinates stay in the cache


@dataclass(frozen=True)
class Sprites:
    """N drawings at 3 levels of blur.

    Attributes:
      keys: N strings `family:name`.
      ink: coverage float32[N, 3, 40, 40] of the strokes.
      body: coverage float32[N, 3, 40, 40] of the strokes and all that they enclose.
      concept: int[N], ascending: place in the concepts asked for; zeros if none were.
    """

    keys: tuple[str, ...]
    ink: Array
    body: Array
    concept: Array

    def __len__(self) -> int:
        return len(self.keys)

    def choose(self, draws: Draws, *shape: int) -> Array:
        """Draw int[B, *shape]: a concept, all alike likely, and one of its drawings."""
        count = np.bincount(self.concept)
        start = np.cumsum(count) - count
        concept = draws.below(len(count), *shape)
        drawn: Array = start[concept] + draws.below(count[concept], *shape)
        return drawn


def levels(masks: Array) -> Array:
    """Halve float32[N, 64, 64], put it in the middle of 40 x 40 and blur it more and more: float32[N, 3, 40, 40]."""
    half = masks.reshape(len(masks), 32, 2, 32, 2).mean((2, 4), dtype=np.float32)
    rim = (SIDE - 32) // 2
    padded = np.pad(half, ((0, 0), (rim, rim), (rim, rim)))
    levels = np.stack([raster.blur(padded, passes) for passes in _PASSES], axis=1)
    levels[..., [0, -1], :] = levels[..., [0, -1]] = 0  # `raster.sample` repeats the border
    return levels


class Cast(NamedTuple):
    """A actors in B clips of L frames: which drawing, where, how large."""

    sprite: Array  # int[B, A]
    present: Array  # bool[B, A]
    y: Array  # float32[B, A, L], half frames, as all lengths
    x: Array  # float32[B, A, L]
    size: Array  # float32[B, A, L]; long side of the drawing over the side of the frame
    angle: Array  # float32[B, A, L]
    opacity: Array  # float32[B, A, L]


def cover(levels: Array, cast: Cast) -> Array:
    """Draw the coverage of every actor as if it were alone and opaque.

    Args:
      levels: drawings float32[N, 3, 40, 40], see `Sprites`.
      cast: the poses.

    Returns:
      float32[B, A, L, 32, 32] in [0, 1]; zero for actors that are not present.
    """
    batch, actors, frames = cast.x.shape
    rows, columns = np.nonzero(cast.present)
    y, x, size, angle = (value[rows, columns].ravel() for value in (cast.y, cast.x, cast.size, cast.angle))
    scale = size / np.float32(FILLED)
    shrunk = SIDE / (scale * SIZE)  # pixels of the drawing per pixel of the frame
    level = (shrunk > 1.4).astype(int) + (shrunk > 2.3)
    sprite = np.repeat(cast.sprite[rows, columns], frames)
    drawn = np.empty((len(x), SIZE, SIZE), np.float32)
    for start in range(0, len(x), _BLOCK):
        part = slice(start, start + _BLOCK)
        where = raster.affine(
            *_GRID,
            angle=angle[part],
            scale=scale[part],
            shear=np.zeros_like(angle[part]),
            shift=np.stack([y[part], x[part]], axis=1),
        )
        drawn[part] = raster.sample(levels[sprite[part], level[part]], *where)
    out = np.zeros((batch, actors, frames, SIZE, SIZE), np.float32)
    out[rows, columns] = np.minimum(drawn * _GAIN, 1).reshape(-1, frames, SIZE, SIZE)
    return out


def paint(planes: Array, coverage: Array, colour: Array, opacity: Array) -> None:
    """Paint one actor over planes float32[B, 3, L, 32, 32] in place.

    Args:
      planes: the picture so far.
      coverage: float32[B, L, 32, 32].
      colour: float32[B, 3].
      opacity: float32[B, L].
    """
    alpha = coverage * opacity[..., None, None]
    for channel in range(3):
        plane = planes[:, channel]
        plane += alpha * (colour[:, channel, None, None, None] - plane)


def solid(coverage: Array) -> Array:
    """Return the pixels that belong to an icon, bool like coverage[..., 32, 32]; none where there is no coverage."""
    most = coverage.max(axis=(-2, -1), keepdims=True)
    inside: Array = (coverage > SOLID * most) & (most > 0)
    return inside


def boxes(masks: Array) -> Array:
    """Return the tight boxes float32[..., 4] of masks bool[..., 32, 32]: x1, y1, x2, y2 over the side, 0 if empty.

    >>> boxes(np.pad(np.ones((1, 8, 16), bool), ((0, 0), (8, 16), (0, 16))))
    array([[0.  , 0.25, 0.5 , 0.5 ]], dtype=float32)
    """
    rows, columns = np.asarray(masks.any(-1)), np.asarray(masks.any(-2))
    edges = [line.argmax(-1) for line in (columns, rows)]
    edges += [SIZE - line[..., ::-1].argmax(-1) for line in (columns, rows)]
    return np.where(rows.any(-1, keepdims=True), np.stack(edges, axis=-1) / np.float32(SIZE), 0).astype(np.float32)


def visible(masks: Array) -> Array:
    """Take from each mask bool[B, A, ...] what later actors, who are in front, hide of it."""
    out = masks.copy()
    for actor in range(masks.shape[1] - 1):
        out[:, actor] &= ~masks[:, actor + 1 :].any(1)
    return out
