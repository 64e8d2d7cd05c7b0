"""Data parallelism over any number of devices and processes, by jit over a mesh or pmap, equal to one device."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.core.problem import AXIS, Batch

PyTree = Any
Function = Callable[..., Any]  # (first, frozen, batch, *, axis_name=None)
Compiled = Callable[[PyTree, PyTree, Batch], Any]  # (first, frozen, batch)


def make_mesh(devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """Return a 1-D mesh with the axis `data` over the given devices, all by default."""
    devices = jax.devices() if devices is None else devices
    # Auto: since JAX 0.9 the default axis type is Explicit, under which Linen's concatenations and gathers fail.
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def divisible(mode: str) -> jax.sharding.Mesh | None:
    """Return the mesh over which the class texts are sharded; None if every device encodes them all."""
    return make_mesh() if mode == "classes" and jax.device_count() > 1 else None


def replicate(tree: PyTree, devices: Sequence[jax.Device] | None = None) -> PyTree:
    """Replicate a tree, equal in all processes, on every device; leaves already there are not copied."""
    sharding = NamedSharding(make_mesh(devices), PartitionSpec())
    if num_processes(devices) == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: _lay(leaf, sharding), whole(tree))


def place(state: PyTree, mode: str, devices: Sequence[jax.Device] | None = None) -> PyTree:
    """Place the training state, equal in all processes, on the devices: replicated, or sharded in mode `fsdp`."""
    if mode != "fsdp":
        return replicate(state, devices)
    mesh = make_mesh(devices)
    shardings = jax.tree.map(lambda leaf: cut(np.shape(leaf), mesh), state)
    return jax.device_put(state, shardings) if num_processes(devices) == 1 else jax.tree.map(_lay, state, shardings)


def _lay(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """Place a leaf across processes without `device_put`, which would compare the values of all processes."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return leaf
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def whole(tree: PyTree) -> PyTree:
    """Gather leaves that are sharded across processes to the host of each."""

    def gather(leaf: Any) -> Any:
        divided = isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated)
        return multihost_utils.process_allgather(leaf, tiled=True) if divided else leaf

    return jax.tree.map(gather, tree)


def cut(shape: Sequence[int], mesh: jax.sharding.Mesh) -> NamedSharding:
    """Return the FSDP sharding of a leaf: along its longest divisible axis, else replicated."""
    axes = [axis for axis, size in enumerate(shape) if size and size % mesh.size == 0]
    chosen = max(axes, key=lambda axis: shape[axis], default=None)
    return NamedSharding(mesh, PartitionSpec(*(AXIS if axis == chosen else None for axis in range(len(shape)))))


def num_processes(devices: Sequence[jax.Device] | None) -> int:
    """Return how many processes own the devices, all by default."""
    return len({device.process_index for device in (jax.devices() if devices is None else devices)})


def split(batch: Batch, sharding: NamedSharding, count: int) -> Batch:
    """Shard a batch over all devices; each of `count` processes contributes its own block of examples."""
    if count == 1:
        result: Batch = jax.device_put(batch, sharding)
        return result

    def place(local: np.ndarray) -> jax.Array:
        shape = (len(local) * count, *local.shape[1:])  # processes must contribute equally many examples
        result: jax.Array = jax.make_array_from_process_local_data(sharding, local, shape)
        return result

    return {key: place(value) for key, value in batch.items()}


def pad(batch: Batch, size: int) -> Batch:
    """Pad a batch to `size` examples by repeating its last one with weight 0.

    A repeated example is as finite as the last one; zero rows could give NaN, which survives a weight of 0.

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
    fn: Function,
    mode: str,
    *,
    devices: Sequence[jax.Device] | None = None,
    donate: bool = False,
    per_example: bool = False,
) -> Compiled:
    """Compile `fn(first, frozen, batch, *, axis_name=None)` for all devices: batch sharded, the rest replicated.

    Args:
      fn: written for the global batch; reduces with `psum` over `axis_name` if given.
      mode: `jit` (a mesh; XLA inserts the sums), `classes` (the same, see `divisible`), `pmap` (each device sees its
        part of the batch; in one process only), or `fsdp`: as `jit`, but every device keeps only its part of `first`,
        for a `fn` that returns the next `first` and metrics.
      devices: all by default.
      donate: whether the result may reuse the memory of `first`.
      per_example: whether the leaves of the result are [B, ...]; else they are replicated.

    Returns:
      The compiled function of (first, frozen, batch). Give it `first` from `place`, `frozen` from `replicate`, and each
      process's block of the batch. A block not divisible by the process's devices is padded by `pad`. In one process
      per-example results are cut back; with several, each gets the results of all examples, padding included.
    """
    table = {"jit": _jit, "classes": _jit, "pmap": _pmap, "fsdp": _jit if per_example else _fsdp}
    devices = jax.devices() if devices is None else devices
    compiled = table[pick(mode, table, "parallel mode")](fn, devices, donate, per_example)
    count = num_processes(devices)
    if mode == "pmap" and count > 1:
        raise UserError("config.parallel 'pmap' runs in one process; use 'jit', 'classes' or 'fsdp' with several.")
    mine = sum(device.process_index == jax.process_index() for device in devices)

    def call(first: PyTree, frozen: PyTree, batch: Batch) -> Any:
        size = len(batch["weight"])
        result = compiled(first, frozen, pad(batch, -(-size // mine) * mine))
        return jax.tree.map(lambda leaf: leaf[:size], result) if per_example and count == 1 and size % mine else result

    return call


def _jit(fn: Function, devices: Sequence[jax.Device], donate: bool, per_example: bool) -> Compiled:
    mesh, count = make_mesh(devices), num_processes(devices)
    parts, copied = NamedSharding(mesh, PartitionSpec(AXIS)), NamedSharding(mesh, PartitionSpec())
    out = parts if per_example and count == 1 else copied
    compiled = jax.jit(fn, out_shardings=out, donate_argnums=(0,) if donate else ())
    return lambda first, frozen, batch: compiled(first, frozen, split(batch, parts, count))


def _fsdp(fn: Function, devices: Sequence[jax.Device], donate: bool, per_example: bool) -> Compiled:
    del per_example
    mesh, count = make_mesh(devices), num_processes(devices)
    parts, copied = NamedSharding(mesh, PartitionSpec(AXIS)), NamedSharding(mesh, PartitionSpec())

    def step(first: PyTree, frozen: PyTree, batch: Batch) -> tuple[PyTree, PyTree]:
        following, metrics = fn(first, frozen, batch)
        shardings = jax.tree.map(lambda leaf: cut(leaf.shape, mesh), following)
        constrain: Callable[[PyTree, PyTree], PyTree] = jax.lax.with_sharding_constraint
        return constrain(following, shardings), constrain(metrics, copied)

    compiled = jax.jit(step, donate_argnums=(0,) if donate else ())
    return lambda first, frozen, batch: compiled(first, frozen, split(batch, parts, count))


def _pmap(fn: Function, devices: Sequence[jax.Device], donate: bool, per_example: bool) -> Compiled:
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
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), result) if per_example else result

    return call
