"""Multi-scale deformable attention, and an encoder of it that accepts prompts.

After fundamentalvision/Deformable-DETR `models/ops` and `models/deformable_transformer.py`: every head of a query
samples a few points around a reference point in every map, with offsets and weights predicted from the query.

Prompts have no location in a map, so they cannot be appended to one. Our rule, not DLM-VMTL's, has no parameters: the
softmax over a head's points gets one more entry per prompt, whose logit is the scaled product of the query's value and
the prompt's, minus the log of the number of prompts, and whose value is the prompt's. Irrelevant prompts thus weigh
together like one point; without the log, fifty of them would outweigh the four points of a frozen head. As queries,
prompts sample around the centre of every map, without a position, and attend to all prompts by the same rule. Without
prompts the layer is unchanged.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jax_promptmtl.models.layers.transformer import LayerNorm, Linear

Array = jax.Array
Shapes = Sequence[tuple[int, int]]  # rows and columns of every map; tokens of the maps are concatenated


def sample(value: Array, shapes: Shapes, locations: Array, weights: Array) -> Array:
    """Sum weighted bilinear samples of the maps, zero outside (align_corners is false).

    Args:
      value: float[B, H, N, C] of the N cells of all K maps.
      shapes: of the maps.
      locations: float[B, H, Q, K, P, 2], x and y of P points per map in [0, 1] of it.
      weights: float[B, H, Q, K, P].

    Returns:
      float[B, H, Q, C].

    >>> value, centre = jnp.arange(4.0).reshape(1, 1, 4, 1), jnp.full((1, 1, 1, 1, 1, 2), 0.5)
    >>> sample(value, [(2, 2)], centre, jnp.ones((1, 1, 1, 1, 1))).item()
    1.5
    """
    firsts = np.cumsum([0, *(height * width for height, width in shapes)])
    seen = [
        sample_map(value[:, :, firsts[k] : firsts[k + 1]], tuple(shape), locations[:, :, :, k], weights[:, :, :, k])
        for k, shape in enumerate(shapes)
    ]
    result: Array = sum(seen[1:], start=seen[0])
    return result


@partial(jax.checkpoint, static_argnums=1)  # recomputed in the backward pass: intermediates are 4 P times the queries
def sample_map(cells: Array, shape: tuple[int, int], locations: Array, weights: Array) -> Array:
    """Compute `sample` for one map.

    Args:
      cells: float[B, H, N, C].
      shape: rows and columns.
      locations: float[B, H, Q, P, 2].
      weights: float[B, H, Q, P].
    """
    size = np.array([shape[1], shape[0]])
    place = jnp.clip(locations * size - 0.5, -1, size)  # bilinear weights vanish at these bounds and beyond
    gathered = 4 * locations.shape[3] * cells.shape[3]  # elements per query
    return (multiplied if cells.shape[2] <= gathered else looked_up)(cells, shape, place, weights)


def multiplied(cells: Array, shape: tuple[int, int], place: Array, weights: Array) -> Array:
    """Sample a small map by one matrix product of dense weights [queries, cells] and the cells."""
    place, weights = rearrange(place, "b h q p t -> t b h p q"), rearrange(weights, "b h q p -> b h p 1 q")
    x, y = (tent(place[axis], size) for axis, size in enumerate(shape[::-1]))
    y = y * weights
    points = [y[:, :, p, :, None] * x[:, :, p, None] for p in range(y.shape[2])]  # far faster than one contraction
    share = rearrange(sum(points[1:], start=points[0]), "b h y x q -> b h (y x) q")
    return share.mT @ cells


def tent(place: Array, size: int) -> Array:
    """Return linear interpolation weights float[..., size, Q] of `size` cells at places float[..., Q].

    >>> tent(jnp.array([1.25]), 4)[:, 0].tolist()
    [0.0, 0.75, 0.25, 0.0]
    """
    cell, low = jnp.arange(size)[:, None], jnp.floor(place)[..., None, :]
    part = place[..., None, :] - low
    return jnp.where(cell == low, 1 - part, 0) + jnp.where(cell == low + 1, part, 0)


def looked_up(cells: Array, shape: tuple[int, int], place: Array, weights: Array) -> Array:
    """Sample a map by gathering the four cells around every point."""
    size = np.array([shape[1], shape[0]])
    low = jnp.floor(place)
    part = (place - low)[..., None, :]
    corner = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    at = low.astype(int)[..., None, :] + corner
    share = jnp.where(corner == 1, part, 1 - part)
    inside = ((at >= 0) & (at < size)).all(axis=-1)
    weight = weights[..., None] * share[..., 0] * share[..., 1] * inside
    at = jnp.clip(at, 0, size - 1)
    row = rearrange(at[..., 1] * shape[1] + at[..., 0], "b h q p r -> b h (q p r) 1")
    rows = jnp.take_along_axis(cells, row, axis=2, mode="promise_in_bounds")
    rows = rearrange(rows, "b h (q n) c -> b h q n c", q=weights.shape[2])
    return (rearrange(weight, "b h q p r -> b h q (p r) 1") * rows).sum(axis=3)


def directions(heads: int, levels: int, points: int) -> np.ndarray:
    """Return the initial offsets float32[H, K, P, 2] in cells: a direction per head, points at growing distance.

    >>> directions(4, 1, 2)[1].round(3).tolist()
    [[[0.0, 1.0], [0.0, 2.0]]]
    """
    angle = np.arange(heads) * 2 * np.pi / heads
    way = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    way /= np.abs(way).max(axis=-1, keepdims=True)
    steps = np.arange(1, points + 1)[:, None]
    return np.broadcast_to(way[:, None, None] * steps, (heads, levels, points, 2)).astype(np.float32)


class DeformableAttention(nn.Module):
    """Attention of queries to a few points of every map, and to prompts.

    Attributes:
      heads: H.
      levels: maps K.
      points: sampled points per head and map.
      stray: with the heads of all queries numbered in order, head i samples where head i // stray should; 1 is correct,
        others reproduce a bug of upstream's, see `models/video/transvod.py`.
    """

    heads: int
    levels: int = 1
    points: int = 4
    stray: int = 1

    @nn.compact
    def __call__(
        self,
        query: Array,
        reference: Array,
        cells: Array,
        shapes: Shapes,
        mask: Array | None = None,
        prompts: Array | None = None,
    ) -> Array:
        """Attend, float[B, Q, D].

        Args:
          query: float[B, Q, D], positions included. With prompts, the queries are the N cells, then the P prompts.
          reference: x, y of a point float[B, Q, K, 2], or x, y, width, height of a box float[B, Q, K, 4], in [0, 1].
          cells: float[B, N, D] of all maps.
          shapes: of the maps.
          mask: bool[B, N], false where a cell is padding, which reads as zero; no padding if None.
          prompts: float[B, P, D].
        """
        width, kinds = query.shape[-1], {"h": self.heads, "k": self.levels, "p": self.points}
        project, split = Linear(width, name="value"), partial(rearrange, pattern="b n (h c) -> b h n c", h=self.heads)
        value = project(cells)
        value = split(value if mask is None else jnp.where(mask[..., None], value, 0))
        count = self.levels * self.points
        logits = nn.Dense(self.heads * count, kernel_init=nn.initializers.zeros, name="weights")(query)
        logits = rearrange(logits, "b q (h n) -> b h q n", h=self.heads)
        if prompts is not None and prompts.shape[1]:
            shown = split(project(prompts))
            own = jnp.concatenate([value, shown], axis=2)
            fit = own @ shown.mT * shown.shape[-1] ** -0.5
            logits = jnp.concatenate([logits, fit - np.log(prompts.shape[1])], axis=-1)
        weights = jax.nn.softmax(logits, axis=-1)
        points = rearrange(weights[..., :count], "b h q (k p) -> b h q k p", k=self.levels)
        seen = sample(value, shapes, self.locate(query, reference, shapes, kinds), points)
        if logits.shape[-1] > count:
            seen = seen + weights[..., count:] @ shown
        return Linear(width, name="out")(rearrange(seen, "b h q c -> b q (h c)"))

    def locate(self, query: Array, reference: Array, shapes: Shapes, kinds: dict[str, int]) -> Array:
        """Return the sampling locations float[B, H, Q, K, P, 2], x and y in [0, 1] of each map."""
        bias = directions(self.heads, self.levels, self.points).ravel()
        options: dict[str, Any] = {"kernel_init": nn.initializers.zeros, "bias_init": lambda *_: jnp.asarray(bias)}
        offsets = nn.Dense(bias.size, name="offsets", **options)(query)
        offsets = rearrange(offsets, "b q (h k p t) -> b h q k p t", t=2, **kinds)
        if reference.shape[-1] == 2:
            unit = 1 / jnp.array([[width, height] for height, width in shapes], jnp.float32)[:, None]
        else:
            unit = rearrange(reference[..., 2:], "b q k t -> b 1 q k 1 t") / (2 * self.points)
        places = rearrange(reference[..., :2], "b q k t -> b 1 q k 1 t") + offsets * unit
        if self.stray == 1:
            return places
        numbered = rearrange(places, "b h q ... -> b (q h) ...")
        return rearrange(
            numbered[:, np.arange(numbered.shape[1]) // self.stray], "b (q h) ... -> b h q ...", h=self.heads
        )


class DeformableBlock(nn.Module):
    """One post-norm residual block of the encoder."""

    heads: int
    levels: int
    points: int
    inner: int

    @nn.compact
    def __call__(
        self, x: Array, prompts: Array, position: Array, reference: Array, shapes: Shapes, mask: Array
    ) -> tuple[Array, Array]:
        """Return the cells float[B, N, D] and the prompts float[B, P, D]; `reference` is that of both."""
        tokens, length = jnp.concatenate([x, prompts], axis=1), x.shape[1]
        query = jnp.concatenate([x + position, prompts], axis=1)
        attn = DeformableAttention(self.heads, self.levels, self.points, name="attn")
        y = LayerNorm(name="ln_1")(tokens + attn(query, reference, x, shapes, mask, prompts))
        hidden = nn.relu(Linear(self.inner, name="fc")(y))
        y = LayerNorm(name="ln_2")(y + Linear(x.shape[-1], name="proj")(hidden))
        return y[:, :length], y[:, length:]


class Span(NamedTuple):
    """A range of blocks to run with prompts.

    Attributes:
      start: first block.
      stop: block to stop before; the depth when `None`.
      leave: block before which the prompts leave; after the last one when `None`.
    """

    start: int = 0
    stop: int | None = None
    leave: int | None = None


WHOLE = Span()


class DeformableEncoder(nn.Module):
    """Encoder in which every cell of every map attends to points around itself.

    Attributes:
      layers: number of blocks.
      heads: attention heads H.
      levels: maps K.
      points: sampled points per head and map.
      inner: width inside the MLPs.

    >>> encoder, cells = DeformableEncoder(layers=2, heads=2, levels=1, inner=8), jnp.zeros((3, 6, 4))
    >>> run = lambda key: encoder.init_with_output(key, cells, cells, jnp.ones((3, 6), bool), [(2, 3)])[0]
    >>> jax.eval_shape(run, jax.random.key(0)).shape
    (3, 6, 4)
    """

    layers: int
    heads: int
    levels: int = 1
    points: int = 4
    inner: int = 1024

    def setup(self) -> None:
        sizes = (self.heads, self.levels, self.points, self.inner)
        self.blocks = [DeformableBlock(*sizes) for _ in range(self.layers)]

    def __call__(
        self,
        x: Array,
        position: Array,
        mask: Array,
        shapes: Shapes,
        prompts: Array | None = None,
        span: Span = WHOLE,
    ) -> Array:
        """Run the blocks of a span; prompts enter before the first of them.

        Args:
          x: float[B, N, D], the cells of all maps.
          position: float[B, N, D], added to the queries.
          mask: bool[B, N], false where a cell is padding; the padding is at the right and at the bottom of every map.
          shapes: of the maps.
          prompts: float[B, P, D].
          span: which blocks to run.

        Returns:
          float[B, N, D], arbitrary at padding.
        """
        prompts = x[:, :0] if prompts is None else prompts
        ratios = valid_ratios(mask, shapes)
        reference = cell_centres(ratios, shapes)
        for k in range(span.start, self.layers if span.stop is None else span.stop):
            prompts = prompts[:, :0] if k == span.leave else prompts
            middle = jnp.broadcast_to(0.5 * ratios[:, None], (*prompts.shape[:2], *ratios.shape[1:]))
            places = jnp.concatenate([reference, middle], axis=1)
            x, prompts = self.blocks[k](x, prompts, position, places, shapes, mask)
        return x


def valid_ratios(mask: Array, shapes: Shapes) -> Array:
    """Return the unpadded share of columns and rows of every map, float[B, K, 2], from a mask bool[B, N].

    >>> valid_ratios(jnp.array([[True, False, True, False]]), [(2, 2)]).tolist()
    [[[0.5, 1.0]]]
    """
    return jnp.stack(
        [jnp.stack([grid[:, 0].mean(axis=1), grid[:, :, 0].mean(axis=1)], axis=-1) for grid in grids(mask, shapes)],
        axis=1,
    )


def grids(tokens: Array, shapes: Shapes) -> list[Array]:
    """Cut [B, N, ...] into the maps [B, rows, columns, ...]."""
    cuts = np.cumsum([height * width for height, width in shapes])[:-1].tolist()
    parts = zip(jnp.split(tokens, cuts, axis=1), shapes, strict=True)
    return [part.reshape(len(tokens), *shape, *tokens.shape[2:]) for part, shape in parts]


def cell_centres(ratios: Array, shapes: Shapes) -> Array:
    """Return the centre of every cell in every map: float[B, N, K, 2], x and y in [0, 1] of the padded map.

    A cell has the same relative location in the unpadded parts of all maps.

    Args:
      ratios: of `valid_ratios`.
      shapes: of the maps.
    """
    places = []
    for k, (height, width) in enumerate(shapes):
        y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
        centre = np.stack([x.ravel(), y.ravel()], axis=-1).astype(np.float32)
        places.append(centre / ratios[:, None, k])
    return jnp.concatenate(places, axis=1)[:, :, None] * ratios[:, None]


def sine_position(mask: Array, width: int, shift: float = 0.5) -> Array:
    """Return sine positions of a map's cells: the first half of the channels encodes rows, the second columns.

    Rows and columns are counted from 1 and scaled to 2 pi at the last unpadded one; sine at even channels, cosine at
    odd ones, with wavelengths from 2 pi to 2 pi 10,000.

    Args:
      mask: bool[B, h, w], false in padding.
      width: channels D.
      shift: subtracted from the count; 0.5 in Deformable DETR, 0 in Mask2Former.

    Returns:
      float[B, h, w, D].
    """
    halves, channel = [], np.arange(width // 2)
    rate = 10000.0 ** (-2 * (channel // 2) / (width // 2))
    for axis in (1, 2):
        count = jnp.cumsum(mask.astype(jnp.float32), axis=axis)
        last = jax.lax.index_in_dim(count, -1, axis)
        angle = ((count - shift) / (last + 1e-6) * (2 * np.pi))[..., None] * rate.astype(np.float32)
        halves.append(jnp.where(channel % 2 == 0, jnp.sin(angle), jnp.cos(angle)))
    return jnp.concatenate(halves, axis=-1)
