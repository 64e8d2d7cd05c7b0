"""Hard parameter sharing: one trunk, a head per task, one batch of every task per step, the sum of their losses.

A batch has the arrays of every task under `<task>/`; row b holds one video of each, with a common `weight`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.problem import Problem
from jax_promptmtl.data.video_batches import cut_prefix
from jax_promptmtl.models.video.middle import VideoBackbone
from jax_promptmtl.models.video.view import View
from jax_promptmtl.tasks.task import VideoTask

Array = jax.Array
PyTree = Any
Batch = Mapping[str, Any]


def build(
    views: Mapping[str, View], tasks: Mapping[str, VideoTask], *, private: Sequence[str], about: Mapping[str, Any]
) -> Problem:
    """Build the problem of training one model for several tasks; all weights are trainable.

    Args:
      views: task -> model and its input form; the trunk is initialised from the first one's weights.
      tasks: of the same names.
      private: patterns of task-specific weights, such as ("pool/.*",).
      about: metadata of checkpoints; see `Problem.about`.

    Raises:
      UserError: trunks of different architectures.
    """
    cut = {name: split(view.backbone.params, private) for name, view in views.items()}
    first = next(iter(views))
    for name, (shared, _) in cut.items():
        difference = tree.describe_difference(cut[first][0], shared)
        if difference:
            raise UserError(
                f"The models of {first!r} and {name!r} cannot share a trunk: {difference}; give equal ones."
            )
    params = {"shared": cut[first][0], "private": {name: own for name, (_, own) in cut.items()}}

    def outputs(params: PyTree, batch: Batch) -> Iterator[tuple[str, Batch, Any]]:
        for name, view in views.items():
            part, model = cut_prefix(batch, f"{name}/"), model_of(name, view.backbone, params)
            yield name, part, model.upper(model.params, model.lower(model.params, view.adapt(part)), None)

    def loss(params: PyTree, frozen: PyTree, batch: Batch, rng: Array) -> tuple[Array, dict[str, Array]]:
        real, total, rows = (batch["weight"] > 0).astype(jnp.float32), jnp.zeros(()), []
        for name, part, found in outputs(params, batch):
            losses, _ = tasks[name].loss(found, part)
            total += (batch["weight"] * losses).sum()
            rows.append((losses * real).sum())
        return total, {"loss": jnp.stack(rows), "count": jnp.full(len(rows), real.sum())}

    def predict(params: PyTree, frozen: PyTree, batch: Batch) -> dict[str, Array]:
        decoded = {name: tasks[name].decode(found, part) for name, part, found in outputs(params, batch)}
        return {f"{name}/{key}": value for name, arrays in decoded.items() for key, value in arrays.items()}

    paths = tree.flatten(params)
    return Problem(
        tasks=tuple(views),
        params=params,
        frozen=tree.unflatten(dict.fromkeys(paths)),
        mask=tree.unflatten(dict.fromkeys(paths, True)),
        expand=lambda params: params,
        loss=loss,
        prepare=lambda params, frozen: params,
        predict=predict,
        about=dict(about),
    )


def split(params: PyTree, private: Sequence[str]) -> tuple[PyTree, PyTree]:
    """Split the weights into shared and task-specific ones, without holes.

    >>> split({"trunk": {"a": 1}, "head": {"b": 2}}, ["head/.*"])
    ({'trunk': {'a': 1}}, {'head': {'b': 2}})
    """
    own, leaves = tree.flatten(tree.trainable(params, private)), tree.flatten(params)
    parts = [{path: leaf for path, leaf in leaves.items() if own[path] == mine} for mine in (False, True)]
    return tree.unflatten(parts[0]), tree.unflatten(parts[1])


def model_of(name: str, backbone: VideoBackbone, params: PyTree) -> VideoBackbone:
    """Return one task's model with the trained weights, for evaluation on its own."""
    weights = tree.flatten(params["shared"]) | tree.flatten(params["private"][name])
    return replace(backbone, params=tree.unflatten(weights))
