"""Mask2Former's matching and losses for the queries of one video.

After facebookresearch/Mask2Former `modeling/{matcher,criterion}.py` and DVIS's `mask2former_video`. Masks are compared
at sampled points, or at every cell of the predicted maps. Sums are normalised by counts of the video itself, so that
videos do not depend on each other.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_promptmtl.core.errors import pick
from jax_promptmtl.models.layers import plane
from jax_promptmtl.tasks.matching import WORST, assign

Array = jax.Array
CLASS, MASK, DICE = 2.0, 5.0, 5.0  # weights of the losses, and of the costs
NO_OBJECT = 0.1  # weight of the class "no object"
MATCHINGS = ("released", "fixed")
OVERSAMPLE, IMPORTANCE = 3.0, 0.75  # candidates per point, and the share of points chosen by uncertainty


class Losses(NamedTuple):
    """The three parts, each a scalar, before their weights."""

    entropy: Array
    mask: Array
    dice: Array

    def total(self) -> Array:
        """Return the weighted sum."""
        return CLASS * self.entropy + MASK * self.mask + DICE * self.dice


# --- points -----------------------------------------------------------------------------------------------------------


def read(masks: Array, places: Array | None, size: tuple[int, ...]) -> Array:
    """Sample masks bilinearly at points, float[..., P].

    Args:
      masks: float[..., h, w].
      places: float[..., P, 2], x and y in [0, 1]; every cell of a map of the given size if None.
      size: rows and columns of that map.

    >>> read(jnp.array([[0.0, 4.0]]), None, (1, 4)).tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    if places is not None:
        return plane.sample(masks, places)
    whole = masks if masks.shape[-2:] == size else plane.resize(masks, *size)
    return whole.reshape(*masks.shape[:-2], -1)


def uncertain_points(key: Array, masks: Array, count: int) -> Array:
    """Sample points for masks: mostly the most uncertain of many candidates, the others uniformly.

    Args:
      key: of the draw.
      masks: logits float[..., h, w].
      count: points P per mask.

    Returns:
      float[..., P, 2], x and y in [0, 1].
    """
    first, second = jax.random.split(key)
    certain = int(IMPORTANCE * count)
    drawn = jax.random.uniform(first, (*masks.shape[:-2], int(count * OVERSAMPLE), 2))
    seen = jnp.abs(plane.sample(jax.lax.stop_gradient(masks), drawn))
    _, best = jax.lax.top_k(-seen, certain)
    kept = jnp.take_along_axis(drawn, best[..., None], axis=-2)
    return jnp.concatenate([kept, jax.random.uniform(second, (*masks.shape[:-2], count - certain, 2))], axis=-2)


# --- matching ---------------------------------------------------------------------------------------------------------


def pair_cost(logits: Array, masks: Array, label: Array, truth: Array, weight: Array) -> Array:
    """Return the matching cost of each query for each instance, float[S, Q].

    Args:
      logits: float[Q, C + 1].
      masks: logits float[Q, P] at points.
      label: int[S].
      truth: float[S, P] at the same points.
      weight: float[P], of the points.
    """
    count = jnp.maximum(weight.sum(), 1)
    inside, outside = truth * weight, (1 - truth) * weight
    entropy = (inside @ jax.nn.softplus(-masks).T + outside @ jax.nn.softplus(masks).T) / count
    chance = jax.nn.sigmoid(masks)
    both, either = 2 * inside @ chance.T, inside.sum(axis=-1)[:, None] + chance @ weight
    certain = -jax.nn.softmax(logits).T[label]
    return CLASS * certain + MASK * entropy + DICE * (1 - (both + 1) / (either + 1))


def assign_by_appearance(cost: Array, present: Array, matching: str = "fixed") -> Array:
    """Return the query of each instance, int[S], chosen in the frame where the instance is first seen.

    This is how DVIS trains its tracker. Its code intends later instances to choose among the queries left over by
    earlier ones, but does not record which are taken.

    Args:
      cost: float[L, S, Q].
      present: bool[L, S].
      matching: fixed, or released, where a later instance may take a query that is already taken; see `overtaken`.
    """
    first = present & (jnp.cumsum(present, axis=0) == 1)
    left = pick(matching, MATCHINGS, "matching") == "fixed"

    def step(state: tuple[Array, Array], frame: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        (taken, chosen), (costs, new) = state, frame
        chosen = jnp.where(new, assign(jnp.where(taken & left, WORST, costs), new), chosen)
        own = (chosen[:, None] == jnp.arange(len(taken))) & new[:, None]
        return (taken | own.any(axis=0), chosen), None

    start = jnp.zeros(cost.shape[2], bool), jnp.zeros(cost.shape[1], jnp.int32)
    return jax.lax.scan(step, start, (cost, first))[0][1]


def overtaken(chosen: Array, present: Array) -> Array:
    """Return bool[S]: the instances whose query is also assigned to a later one, for which it is then trained.

    Args:
      chosen: int[S], the query of each instance.
      present: bool[L, S].
    """
    first = jnp.where(present.any(axis=0), present.argmax(axis=0), -1)
    return ((chosen[:, None] == chosen) & (first >= 0) & (first > first[:, None])).any(axis=1)


# --- losses -----------------------------------------------------------------------------------------------------------


def class_loss(logits: Array, label: Array, chosen: Array, counted: Array, shown: Array) -> Array:
    """Return the weighted mean cross-entropy of all queries of N images; unmatched ones have the class "no object".

    Args:
      logits: float[N, Q, C + 1].
      label: int[S].
      chosen: int[N, S], the query of each instance.
      counted: bool[N, S], false where an instance is not matched.
      shown: bool[N], false where an image is padding.
    """
    images, queries, nothing = logits.shape[0], logits.shape[1], logits.shape[2] - 1
    place = jnp.where(counted, chosen, queries)  # index out of range, so the update is dropped
    rows = jnp.arange(images)[:, None]
    wanted = jnp.full((images, queries), nothing).at[rows, place].set(label, mode="drop")
    weight = jnp.where(wanted == nothing, NO_OBJECT, 1.0) * shown[:, None]
    entropy = -jnp.take_along_axis(jax.nn.log_softmax(logits), wanted[..., None], axis=-1)[..., 0]
    return (weight * entropy).sum() / jnp.maximum(weight.sum(), NO_OBJECT)


def mask_losses(masks: Array, truth: Array, weight: Array, counted: Array) -> tuple[Array, Array]:
    """Return the mean cross-entropy and mean dice loss of the counted masks.

    Args:
      masks: logits float[N, S, P] at points.
      truth: float[N, S, P] at the same points.
      weight: float[N, P], of the points.
      counted: bool[N, S].

    >>> sure, truth = jnp.array([[[9.0, 9.0, -9.0, -9.0]]]), jnp.array([[[1.0, 1.0, 0.0, 0.0]]])
    >>> [round(float(x), 3) for x in mask_losses(sure, truth, jnp.ones((1, 4)), jnp.array([[True]]))]
    [0.0, 0.0]
    """
    weight, number = weight[:, None], jnp.maximum(counted.sum(), 1)
    entropy = ((jax.nn.softplus(masks) - truth * masks) * weight).sum(-1) / jnp.maximum(weight.sum(-1), 1)
    chance = jax.nn.sigmoid(masks)
    both, either = 2 * (chance * truth * weight).sum(-1), ((chance + truth) * weight).sum(-1)
    dice = 1 - (both + 1) / (either + 1)
    return jnp.where(counted, entropy, 0).sum() / number, jnp.where(counted, dice, 0).sum() / number
