"""Soft labels of recognition: smoothing, mixup and cutmix, as pure functions of a batch and a random key.

After timm's `data/mixup.py`, mode `batch`: one draw for the whole batch, which mixes video i with B - 1 - i.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

Array = jax.Array


@dataclass(frozen=True)
class Mixing:
    """Options for soft labels, all off by default.

    Attributes:
      mixup: parameter of the Beta distribution of a video's share; 0 for no mixup.
      cutmix: likewise of its share of the area; 0 for no cutmix.
      chance: probability that a batch is mixed.
      switch: probability of cutmix where both are on.
      smoothing: label mass spread uniformly over all classes.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    chance: float = 1.0
    switch: float = 0.5
    smoothing: float = 0.0

    @property
    def on(self) -> bool:
        """Return whether any option is on."""
        return bool(self.mixup or self.cutmix or self.smoothing)


def smoothed(label: Array, classes: int, smoothing: float) -> Array:
    """Return the shares float[B, C] of labels int[B].

    >>> smoothed(jnp.array([1]), 4, 0.5).tolist()
    [[0.125, 0.625, 0.125, 0.125]]
    """
    return jax.nn.one_hot(label, classes) * (1 - smoothing) + smoothing / classes


def partners(weight: Array) -> Array:
    """Return the mixing partner of each example, int[B]: the real examples, which come first, in reverse order.

    >>> partners(jnp.array([1.0, 1, 1, 0])).tolist()
    [2, 1, 0, 3]
    """
    place, real = jnp.arange(len(weight)), (weight > 0).sum()
    return jnp.where(place < real, real - 1 - place, place)


def kept(options: Mixing, height: int, width: int, rng: Array) -> Array:
    """Draw a video's share in each pixel, float[H, W]; the mean is the share of its label."""
    draw, kind, share, row, column = jax.random.split(rng, 5)
    cut = jnp.asarray(options.cutmix > 0)
    if options.mixup > 0 and options.cutmix > 0:
        cut = jax.random.uniform(kind) < options.switch
    alpha = jnp.where(cut, options.cutmix, options.mixup)
    lam = jnp.where(jax.random.uniform(draw) < options.chance, jax.random.beta(share, alpha, alpha), 1.0)
    inside = span(row, height, lam)[:, None] & span(column, width, lam)
    return jnp.where(cut, 1.0 - inside, lam)


def span(rng: Array, size: int, lam: Array) -> Array:
    """Draw the rows or columns covered by a box of area 1 - lam, bool[size], clipped at the edge."""
    half = jnp.floor(size * jnp.sqrt(1 - lam)) // 2
    centre = jax.random.randint(rng, (), 0, size)
    place = jnp.arange(size)
    return (place >= centre - half) & (place < centre + half)


def mix(options: Mixing, classes: int, batch: Mapping[str, Array], rng: Array) -> dict[str, Array]:
    """Return a batch with mixed `frames` and with `target` float[B, C].

    Args:
      options: see there.
      classes: C.
      batch: `frames` [B, L, H, W, 3], `label` int[B], and `weight`; examples of weight 0 are the last ones.
      rng: of this step.
    """
    target = smoothed(jnp.asarray(batch["label"]), classes, options.smoothing)
    if not (options.mixup or options.cutmix):
        return {**batch, "target": target}
    frames = jnp.asarray(batch["frames"])
    keep, other = kept(options, frames.shape[2], frames.shape[3], rng), partners(jnp.asarray(batch["weight"]))
    share, pixels = keep.mean(), keep[..., None]
    mixed = pixels * frames.astype(jnp.float32) + (1 - pixels) * frames[other].astype(jnp.float32)
    return {**batch, "frames": mixed, "target": share * target + (1 - share) * target[other]}
