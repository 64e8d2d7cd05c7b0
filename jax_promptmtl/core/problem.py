"""The interface between a job and the engine: trainable and frozen trees, loss and predictions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jax_promptmtl.core.outline import outline

PyTree = Any
Batch = dict[str, Any]  # name -> array of the host or of a device, [B, ...]
Sums = dict[str, Any]  # name -> float[T]
AXIS = "data"  # of the devices under pmap; a loss that needs the whole batch sums over it


@dataclass(frozen=True)
class Problem:
    """One training problem. `clip_mtl.build` and its siblings make it; `engine` runs it.

    A batch is a dict of host or device arrays with leading axis B: `image`, `label`, `task`, `weight`; an example of
    weight 0 is padding. Sums are additive over examples, so shards and batches add up exactly.

    Attributes:
      tasks: T task names; `batch["task"]` indexes them.
      params: trainable tree, fp32, with `None` where a leaf is frozen.
      frozen: the complement of `params`, and under further keys constants computed once from frozen weights;
        never differentiated, donated, updated or saved.
      mask: the same tree of bools, true where trainable.
      expand: params -> per-task params, linear; method leaves are gathered by their slots to [T, ...].
      loss: (per_task, frozen, batch, rng) -> (scalar sum of weight * loss, sums), where sums holds float[T] arrays
        `loss`, `correct` and `count`, unweighted, without padding.
      prepare: (per_task, frozen) -> what prediction needs that is independent of the image: class text features.
      predict: (prepared, frozen, batch) -> logits float[B, C], -inf beyond the classes of the example's task.
      about: metadata of its checkpoints: backbone, preprocessing, class names, groups, split hashes.
      takes_features: whether batches may hold precomputed `features` of the frozen tower in place of its inputs.
    """

    tasks: tuple[str, ...]
    params: PyTree
    frozen: PyTree
    mask: PyTree
    expand: Callable[[PyTree], PyTree]
    loss: Callable[[PyTree, PyTree, Batch, Any], tuple[Any, Sums]]
    prepare: Callable[[PyTree, PyTree], Any]
    predict: Callable[[Any, PyTree, Batch], Any]
    about: dict[str, Any]
    takes_features: bool = False
    __repr__ = outline
