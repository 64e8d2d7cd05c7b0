"""One function on many devices: jit over a mesh, or pmap; both equal the function on one device."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jax_promptmtl.errors import pick
from jax_promptmtl.problem import AXIS

PyTree = Any
Batch = dict[str, Any]


def make_mesh(devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """Return a mesh with the one axis `data` over the given devices, all by default."""
    devices = jax.devices() if devices is None else devices
    # Auto: since JAX 0.9 the default axis type is Explicit, under which Linen's concatenations and gathers fail.
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicate(tree: PyTree, devices: Sequence[jax.Device] | None = None) -> PyTree:
    """Put a tree on every device; what is there already is not copied."""
    return jax.device_put(tree, NamedSharding(make_mesh(devices), PartitionSpec()))


def pad(batch: Batch, size: int) -> Batch:
    """Lengthen a batch to `size` examples by repeating its last one with weight 0.

    A repeated example is finite where the last one is; rows of zeros could turn into NaN, which weight 0 keeps.

    >>> {k: v.tolist() for k, v in pad({"label": np.array([3, 5]), "weight": np.array([1.0, 1.0])}, 3).items()}
    {'label': [3, 5, 5], 'weight': [1.0, 1.0, 0.0]}
    """
    missing = size - len(batch["weight"])
    if missing == 0:
        return batch
    longer = {key: np.concatenate([value, np.repeat(value[-1:], missing, axis=0)]) for key, value in batch.items()}
    longer["weight"][-missing:] = 0
    return longer


def parallelize(
    fn: Callable,
    mode: str,
    *,
    devices: Sequence[jax.Device] | None = None,
    donate: bool = False,
    per_example: bool = False,
) -> Callable[[PyTree, PyTree, Batch], Any]:
    """Compile `fn(first, frozen, batch, *, axis_name=None)` for all devices; the batch is split, the rest copied.

    Args:
      fn: written for the whole batch; reduces with `psum` over `axis_name` where one is given.
      mode: `jit` (a mesh; XLA inserts the sums) or `pmap` (each device sees its part of the batch).
      devices: all by default.
      donate: let the result reuse the memory of `first`.
      per_example: the result is [B, ...], else it is the same on every device.

    Returns:
      The compiled function of (first, frozen, batch). Give it `first` and `frozen` from `replicate`. A batch that the
      devices do not divide is padded by `pad`, and a result per example is cut back.
    """
    table = {"jit": _jit, "pmap": _pmap}
    devices = jax.devices() if devices is None else devices
    compiled = table[pick(mode, table, "parallel mode")](fn, devices, donate, per_example)

    def call(first: PyTree, frozen: PyTree, batch: Batch) -> Any:
        size = len(batch["weight"])
        result = compiled(first, frozen, pad(batch, -(-size // len(devices)) * len(devices)))
        return result[:size] if per_example and size % len(devices) else result

    return call


def _jit(fn: Callable, devices: Sequence[jax.Device], donate: bool, per_example: bool) -> Callable:
    mesh = make_mesh(devices)
    split, copied = NamedSharding(mesh, PartitionSpec(AXIS)), NamedSharding(mesh, PartitionSpec())
    compiled = jax.jit(fn, out_shardings=split if per_example else copied, donate_argnums=(0,) if donate else ())
    return lambda first, frozen, batch: compiled(first, frozen, jax.device_put(batch, split))


def _pmap(fn: Callable, devices: Sequence[jax.Device], donate: bool, per_example: bool) -> Callable:
    compiled = jax.pmap(
        partial(fn, axis_name=AXIS),
        axis_name=AXIS,
        in_axes=(None, None, 0),
        out_axes=0 if per_example else None,
        devices=devices,
        donate_argnums=(0,) if donate else (),
    )

    def call(first: PyTree, frozen: PyTree, batch: Batch) -> Any:
        parts = {key: value.reshape(len(devices), -1, *value.shape[1:]) for key, value in batch.items()}
        result = compiled(first, frozen, parts)
        return result.reshape(-1, *result.shape[2:]) if per_example else result

    return call
