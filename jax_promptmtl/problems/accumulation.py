"""Gradient accumulation over microbatches, without extra arithmetic."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.problem import Batch, Sums

Array = jax.Array
PyTree = Any
Loss = Callable[[PyTree, PyTree, Batch], tuple[Array, Sums]]


def accumulated(loss: Loss, size: int) -> Loss:
    """Return a loss that processes microbatches of `size` examples.

    The gradient of a loss that is additive over examples is additive too, so each microbatch's gradient is taken with
    its value: activations do not outlive their microbatch, and unlike rematerialisation nothing is recomputed.

    Args:
      loss: (prepared, frozen, batch) -> (scalar, sums), both additive over the examples of the batch; it is
        differentiated in `prepared` and by its scalar alone.
      size: examples per microbatch.

    Raises:
      UserError: on call, where `size` does not divide the batch.
    """

    @jax.custom_vjp
    def total(prepared: PyTree, frozen: PyTree, batch: Batch) -> tuple[Array, Sums]:
        result: tuple[Array, Sums] = accumulate(lambda part: loss(prepared, frozen, part), batch, size)
        return result

    def forward(prepared: PyTree, frozen: PyTree, batch: Batch) -> tuple[tuple[Array, Sums], PyTree]:
        value_and_grad = jax.value_and_grad(loss, has_aux=True)
        result: tuple[tuple[Array, Sums], PyTree] = accumulate(
            lambda part: value_and_grad(prepared, frozen, part), batch, size
        )
        return result

    def backward(grads: PyTree, cotangents: tuple[Array, Sums]) -> tuple[PyTree, None, None]:
        return jax.tree.map(lambda grad: cotangents[0] * grad, grads), None, None

    total.defvjp(forward, backward)
    return total


def accumulate(function: Callable[[Batch], PyTree], batch: Batch, size: int) -> PyTree:
    """Return the sum of a function over the microbatches of a batch.

    >>> float(accumulate(lambda part: part["x"].sum(), {"x": jnp.arange(6)}, 2))
    15.0
    """
    examples = len(next(iter(batch.values())))
    if examples % size:
        raise UserError(
            f"config.memory.image_chunk is {size}, which does not divide the {examples} images of a batch (on each "
            "device, with pmap); use a divisor, or 0 for all at once."
        )
    # Neighbouring examples share a device, so a microbatch takes a stride of them to occupy all devices.
    parts = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(size, -1, *x.shape[1:]), 1, 0), batch)
    first = jax.tree.map(lambda x: x[0], parts)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, first))
    add = lambda total, part: (jax.tree.map(jnp.add, total, function(part)), None)  # noqa: E731
    return jax.lax.scan(add, zeros, parts)[0]
