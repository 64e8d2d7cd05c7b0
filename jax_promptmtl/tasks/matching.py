"""Bipartite matching of objects and queries at minimum total cost (Hungarian algorithm)."""

import jax
import jax.numpy as jnp
import optax

from jax_promptmtl.core.errors import UserError

Array = jax.Array
WORST = 1e6  # replaces non-finite costs


def assign(cost: Array, valid: Array) -> Array:
    """Assign a distinct query to every object at minimum total cost.

    Args:
      cost: float[..., S, Q] of every object and query. No gradient passes through it.
      valid: bool[..., S], false where a slot holds no object.

    Returns:
      int[..., S], the queries; empty slots get arbitrary remaining ones.

    Raises:
      UserError: more slots than queries.

    >>> assign(jnp.array([[1.0, 2.0, 9.0], [1.0, 4.0, 9.0]]), jnp.array([True, True])).tolist()
    [1, 0]
    """
    slots, queries = cost.shape[-2:]
    if slots > queries:
        raise UserError(
            f"A clip has room for {slots} objects and the model for {queries}, its number of queries; give more "
            "queries, or clips with fewer objects."
        )
    cost = jnp.nan_to_num(cost, nan=WORST, posinf=WORST, neginf=WORST)
    cost = jax.lax.stop_gradient(jnp.where(valid[..., None], cost, 0.0))  # an empty slot accepts any query at no cost

    def one(table: Array) -> Array:
        slot, query = optax.assignment.hungarian_algorithm(table)  # in an order of its own
        return jnp.zeros(slots, query.dtype).at[slot].set(query)

    return jax.vmap(one)(cost.reshape(-1, slots, queries)).reshape(valid.shape)
