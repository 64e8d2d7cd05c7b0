"""Windowed attention along time, for padded sequences and for prompts outside of time."""

import jax
import jax.numpy as jnp
from einops import rearrange

Array = jax.Array


def windows(x: Array, size: int, halo: int) -> Array:
    """Cut time into blocks with a halo on both sides, zeros (or False) beyond the ends.

    Args:
      x: [B, L, ...].
      size: time steps per block.
      halo: steps before and after a block, at most `size`.

    Returns:
      [B, W, halo + size + halo, ...] with W = ceil(L / size).

    >>> windows(jnp.arange(1, 6)[None], size=2, halo=1)[0].tolist()
    [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 0, 0]]
    """
    blocks = split(x, size)
    edge = jnp.zeros_like(blocks[:, :1, :halo])
    before = jnp.concatenate([edge, blocks[:, :-1, size - halo :]], axis=1)
    after = jnp.concatenate([blocks[:, 1:, :halo], edge], axis=1)
    return jnp.concatenate([before, blocks, after], axis=2)


def split(x: Array, size: int) -> Array:
    """Cut time into blocks, the last one padded: [B, L, ...] -> [B, W, size, ...].

    >>> split(jnp.arange(1, 4)[None], 2).tolist()
    [[[1, 2], [3, 0]]]
    """
    padded = jnp.pad(x, ((0, 0), (0, -x.shape[1] % size), *[(0, 0)] * (x.ndim - 2)))
    return padded.reshape(x.shape[0], -1, size, *x.shape[2:])


def join(blocks: Array, length: int) -> Array:
    """Invert `split`: [B, W, size, ...] -> [B, L, ...].

    >>> join(split(jnp.arange(3)[None], 2), 3).tolist()
    [[0, 1, 2]]
    """
    return blocks.reshape(blocks.shape[0], -1, *blocks.shape[3:])[:, :length]


def band(size: int, radius: int) -> Array:
    """Return bool[size, radius + size + radius], true where the key of a window is within the radius of its query.

    >>> band(2, 1).astype(int).tolist()
    [[1, 1, 1, 0], [0, 1, 1, 1]]
    """
    distance = jnp.arange(size + 2 * radius)[None] - radius - jnp.arange(size)[:, None]
    return jnp.abs(distance) <= radius


def attend_in_windows(
    query: Array, key: Array, value: Array, mask: Array, pattern: Array, extra: tuple[Array, Array], soft: float = 0.0
) -> Array:
    """Attend from every time step to the steps of its window allowed by the pattern, and to all prompts.

    Args:
      query: float[B, L, C].
      key: float[B, L, C].
      value: float[B, L, D].
      mask: bool[B, L], false where a step is padding.
      pattern: bool[size, halo + size + halo], keys of its window visible to each query of a block.
      extra: keys float[B, P, C] and values float[B, P, D] of the prompts.
      soft: relative weight of a masked key in the softmax denominator; its value never counts. ASFormer has 1e-6.

    Returns:
      float[B, L, D], arbitrary at padding.
    """
    size = pattern.shape[0]
    halo = (pattern.shape[1] - size) // 2
    scale = query.shape[-1] ** -0.5
    hide = ~mask[..., None]
    keys = windows(jnp.where(hide, 0, key), size, halo)
    values = windows(jnp.where(hide, 0, value), size, halo)
    seen = windows(mask, size, halo)[:, :, None] & pattern
    queries = split(jnp.where(hide, 0, query), size)
    near = jnp.einsum("bwqc,bwkc->bwqk", queries, keys) * scale
    far = jnp.einsum("bwqc,bpc->bwqp", queries, extra[0]) * scale
    if soft:
        near, far = near + jnp.log(seen + soft), far + jnp.log(1 + soft)
    else:
        near = jnp.where(seen, near, -1e30)  # finite: a block of padding only must not give NaN
    weights = jax.nn.softmax(jnp.concatenate([near, far], axis=-1), axis=-1)
    mixed = jnp.einsum("bwqk,bwkd->bwqd", weights[..., : near.shape[-1]] * seen, values)
    mixed = mixed + jnp.einsum("bwqp,bpd->bwqd", weights[..., near.shape[-1] :], extra[1])
    return join(mixed, query.shape[1])


def attend_to_all(query: Array, key: Array, value: Array, mask: Array) -> Array:
    """Let prompts attend to every step that is not padding.

    Args:
      query: float[B, P, C].
      key: float[B, N, C].
      value: float[B, N, D].
      mask: bool[B, N], with at least one true per example where P > 0.

    Returns:
      float[B, P, D].
    """
    logits = jnp.einsum("bpc,bnc->bpn", query, key) * query.shape[-1] ** -0.5
    weights = jax.nn.softmax(jnp.where(mask[:, None], logits, -jnp.inf), axis=-1)
    return jnp.einsum("bpn,bnd->bpd", weights, value)


def heads_to_batch(x: Array, heads: int) -> Array:
    """Move heads into the batch: [B, N, H C] -> [B H, N, C]."""
    return rearrange(x, "b n (h c) -> (b h) n c", h=heads)


def heads_from_batch(x: Array, heads: int) -> Array:
    """Invert `heads_to_batch`."""
    return rearrange(x, "(b h) n c -> b n (h c)", h=heads)
