"""The Kronecker product that turns a small source prompt into the prompts of a tower (eq. 6-7 of MmAP)."""

import jax
import jax.numpy as jnp

from jax_promptmtl.core.errors import pick

Array = jax.Array

# "scale_source" is M (x) P_s of eq. 6-7; "source_scale" is P_s (x) M of eq. 9-10. They tie different columns.
ORDERS = {"scale_source": "...pq,...mn->...pmqn", "source_scale": "...pq,...mn->...mpnq"}


def kronecker(scale: Array, source: Array, order: str = "scale_source") -> Array:
    """Return the Kronecker product over the last two axes.

    Args:
      scale: float[..., p, q], the scaling matrix M.
      source: float[..., m, n], the source prompt P_s.
      order: "scale_source" (M first, eq. 6-7) or "source_scale" (P_s first, eq. 9-10).

    Returns:
      float[..., p * m, q * n].

    >>> kronecker(jnp.array([[1.0, 2.0]]), jnp.array([[10.0], [20.0]])).tolist()
    [[10.0, 20.0], [20.0, 40.0]]
    """
    product = jnp.einsum(ORDERS[pick(order, ORDERS, "Kronecker order")], scale, source)
    *batch, rows_a, rows_b, columns_a, columns_b = product.shape
    return product.reshape(*batch, rows_a * rows_b, columns_a * columns_b)
