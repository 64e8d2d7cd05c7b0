"""Bilinear sampling and resizing of 2-D maps, equal to torch's."""

import jax
import jax.numpy as jnp

from jax_promptmtl.models.layers.position import resampling

Array = jax.Array


def sample(maps: Array, points: Array) -> Array:
    """Read maps at points by bilinear interpolation, as `grid_sample(maps, 2 * points - 1, align_corners=False)` does.

    Args:
      maps: float[..., h, w]; zero outside.
      points: float[..., P, 2], x and y in [0, 1] of the whole map, with the same leading axes.

    Returns:
      float[..., P].

    >>> sample(jnp.array([[0.0, 1.0]]), jnp.array([[0.25, 0.5], [0.5, 0.5], [0.75, 0.5]])).tolist()
    [0.0, 0.5, 1.0]
    """
    height, width = maps.shape[-2:]
    flat = maps.reshape(*maps.shape[:-2], height * width)
    place = points * jnp.array([width, height], points.dtype) - 0.5
    corner = jnp.floor(place)
    share = place - corner
    total = jnp.zeros(points.shape[:-1], maps.dtype)
    for right in (0, 1):
        for below in (0, 1):
            column, row = corner[..., 0] + right, corner[..., 1] + below
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            weight = jnp.abs(1 - right - share[..., 0]) * jnp.abs(1 - below - share[..., 1]) * inside
            index = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
            total += weight * jnp.take_along_axis(flat, index.astype(int), axis=-1)
    return total


def resize(maps: Array, height: int, width: int) -> Array:
    """Resize maps float[..., h, w] bilinearly, as `interpolate(mode="bilinear", align_corners=False)` does.

    >>> resize(jnp.array([[0.0, 4.0]]), 1, 4).tolist()
    [[0.0, 1.0, 3.0, 4.0]]
    """
    down = jnp.asarray(resampling(maps.shape[-2], height, cubic=False), maps.dtype)
    across = jnp.asarray(resampling(maps.shape[-1], width, cubic=False), maps.dtype)
    return jnp.einsum("ah,...hw,bw->...ab", down, maps, across)
