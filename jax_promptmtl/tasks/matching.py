"""One-to-one assignment of what there is to what was found, at the least total cost (Hungarian algorithm)."""

import jax
import jax.numpy as jnp
import optax

Array = jax.Array


def assign(cost: Array, valid: Array) -> Array:
    """Give every true object a query of its own, so that the sum of the costs is least.

    Args:
      cost: float[..., S, Q] of every object and query, Q >= S; finite. No gradient passes through it.
      valid: bool[..., S], false where a slot holds no object.

    Returns:
      int[..., S], the queries; those of empty slots are any others.

    >>> assign(jnp.array([[1.0, 2.0, 9.0], [1.0, 4.0, 9.0]]), jnp.array([True, True])).tolist()
    [1, 0]
    """
    cost = jax.lax.stop_gradient(jnp.where(valid[..., None], cost, 0.0))  # an empty slot is content with any query
    flat = cost.reshape(-1, *cost.shape[-2:])
    chosen = jax.vmap(lambda c: optax.assignment.hungarian_algorithm(c)[1])(flat)
    return chosen.reshape(valid.shape)
