"""One-to-one assignment of what there is to what was found, at the least total cost (Hungarian algorithm)."""

import jax
import jax.numpy as jnp
import optax

from jax_promptmtl.core.errors import UserError

Array = jax.Array
WORST = 1e6  # stands for a cost that is not finite


def assign(cost: Array, valid: Array) -> Array:
    """Give every true object a query of its own, so that the sum of the costs is least.

    Args:
      cost: float[..., S, Q] of every object and query. No gradient passes through it.
      valid: bool[..., S], false where a slot holds no object.

    Returns:
      int[..., S], the queries; those of empty slots are any others.

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
    cost = jax.lax.stop_gradient(jnp.where(valid[..., None], cost, 0.0))  # an empty slot is content with any query

    def one(table: Array) -> Array:
        slot, query = optax.assignment.hungarian_algorithm(table)  # in an order of its own
        return jnp.zeros(slots, query.dtype).at[slot].set(query)

    return jax.vmap(one)(cost.reshape(-1, slots, queries)).reshape(valid.shape)
