"""Prompting a frozen video model with what frozen models of other tasks see: lower halves, method, upper half, loss.

The batch is flat, every array with the leading axis B: `weight`, the labels of the primary task, and what the models
see. Where the batch brings a model's middle state itself, under `middle/<model>/...`, its lower half does not run; see
`data/middle_cache.py`. The primary is the model named "primary".

`aux_input` selects what the auxiliaries see. `same_clip`: the primary's video, in the form that each of them takes.
`other_clip`: any other video of the primary's data, the arrays under `other/` (a control: nothing of this video gets
through). `aux_data`: videos of their own data sets, under `<model>/`, and one set of prompts for the whole batch, the
mean over it. The paper can be read as the first and as the last.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.core.outline import outline
from jax_promptmtl.core.problem import AXIS, Problem
from jax_promptmtl.data.video_batches import cut_prefix
from jax_promptmtl.methods.method import Method
from jax_promptmtl.methods.none import NoPrompts
from jax_promptmtl.models.video.middle import Middle, VideoBackbone
from jax_promptmtl.models.video.view import View, unpack
from jax_promptmtl.tasks.task import VideoTask

Array = jax.Array
PyTree = Any
Batch = Mapping[str, Any]
Arrays = dict[str, np.ndarray]

PRIMARY = "primary"
PROMPT_MODES = ("dynamic", "batch_mean")
AUX_INPUTS = ("same_clip", "other_clip", "aux_data")


@dataclass(frozen=True)
class Pipeline:
    """How a batch becomes outputs of the primary model; what `build` turns into a problem.

    Attributes:
      primary: the model that is prompted.
      aux: auxiliary -> view; may be empty for methods that see none.
      task: of the primary.
      method: makes the prompts, or adapts the middle tokens.
      prompt_mode: `dynamic`, prompts of every video for itself; or `batch_mean`, the mean over the batch for all of
        it, on all devices, so that static prompts at inference are what was trained.
      aux_input: `same_clip`, `other_clip` or `aux_data`.
      cached: models whose middle states come with the batch; their lower halves' weights are not loaded.
      vary: what training alone changes at random in a batch, a pure function of it and of the step's key.
    """

    primary: View
    aux: Mapping[str, View]
    task: VideoTask
    method: Method
    prompt_mode: str = "dynamic"
    aux_input: str = "same_clip"
    cached: Collection[str] = ()
    vary: Callable[[Batch, Array], Batch] | None = None
    __repr__ = outline

    def middle(self, name: str, weights: PyTree, batch: Batch) -> Middle:
        """Return a model's middle state: the batch's, or its lower half's."""
        view = self.primary if name == PRIMARY else self.aux[name]
        if name in self.cached:
            return unpack(batch, name)
        prefix = {"same_clip": "", "other_clip": "other/", "aux_data": f"{name}/"}[self.aux_input]
        seen = batch if name == PRIMARY or not prefix else cut_prefix(batch, prefix)
        return view.backbone.lower(weights, view.adapt(seen))

    def context(self, aux: PyTree, batch: Batch) -> dict[str, tuple[Array, Array]]:
        """Return what the method sees: auxiliary -> (tokens, mask)."""
        states = {name: self.middle(name, aux.get(name), batch) for name in self.aux}
        return {name: (jax.lax.stop_gradient(state.tokens), state.mask) for name, state in states.items()}

    def prompts(self, method: PyTree, aux: PyTree, batch: Batch) -> Array | None:
        """Return the prompts float[B or 1, P, D] of a batch, `None` where the method makes none."""
        made: Any = self.method.apply({"params": method}, self.context(aux, batch) if self.aux else None)
        tokens: Array | None = made.get(PRIMARY, {}).get(self.primary.backbone.middle)
        if tokens is None:
            return None
        if tokens.ndim == 2:
            return tokens[None]
        if self.prompt_mode == "batch_mean" or self.aux_input == "aux_data":
            real = (batch["weight"] > 0).astype(tokens.dtype)
            total, count = over_devices((jnp.einsum("b, b p d -> p d", real, tokens), real.sum()))
            mean: Array = total / jnp.maximum(count, 1)
            return mean[None]
        return tokens

    def outputs(self, params: PyTree, frozen: PyTree, batch: Batch) -> tuple[Any, Array]:
        """Return the primary's outputs, and the size of the prompts beside that of its tokens, float[B]."""
        weights = tree.merge(params[PRIMARY], frozen[PRIMARY])
        state = self.middle(PRIMARY, weights, batch)
        prompts = self.prompts(params["method"], frozen["aux"], batch)
        share = jnp.zeros(len(batch["weight"])) if prompts is None else rms(prompts) / rms(state.tokens)
        if PRIMARY in self.method.adapts:
            adapted: Any = self.method.apply({"params": params["method"]}, PRIMARY, state.tokens, method="adapt")
            state = state._replace(tokens=adapted)
        share = jnp.broadcast_to(share, (len(batch["weight"]),))
        return self.primary.backbone.upper(weights, state, prompts), share


def over_devices(sums: PyTree) -> PyTree:
    """Return sums over the whole batch: under pmap those of all devices together, else what they are."""
    try:
        return jax.lax.psum(sums, AXIS)
    except NameError:  # the axis is bound under pmap only
        return sums


def rms(tokens: Array) -> Array:
    """Return the root mean square of float[B, N, D], float[B].

    >>> rms(jnp.full((1, 2, 3), -2.0)).tolist()
    [2.0]
    """
    return jnp.sqrt(jnp.mean(jnp.square(tokens.astype(jnp.float32)), axis=(1, 2)))


def method_sizes(primary: VideoBackbone, aux: Mapping[str, VideoBackbone]) -> dict[str, Any]:
    """Return what a method may know of the models: widths of `aux`, `primary_dim`, `middle` and `towers`."""
    return {
        "aux": {name: backbone.dim for name, backbone in aux.items()},
        "primary_dim": primary.dim,
        "middle": primary.middle,
        "towers": {PRIMARY: (primary.depth, primary.dim)},
    }


def alone(view: View, task: VideoTask, vary: Callable[[Batch, Array], Batch] | None = None) -> Pipeline:
    """Return the pipeline of a model without prompts, whose weights may be trained."""
    method = NoPrompts(towers=method_sizes(view.backbone, {})["towers"])
    return Pipeline(view, {}, task, method, vary=vary)


def build(
    pipeline: Pipeline,
    *,
    example: Batch,
    tune: Sequence[str] = (),
    seed: int = 0,
    initial: PyTree = None,
    start_layer: Mapping[str, str] | None = None,
    about: Mapping[str, Any] | None = None,
) -> Problem:
    """Make the problem of prompting the primary.

    Args:
      pipeline: what to compute.
      example: any batch, of which only shapes are read.
      tune: patterns of the primary's weights to train too: ("pool/head/.*",), or (".*",) for full fine-tuning.
      seed: of the method's parameters.
      initial: the method's parameters instead, such as saved prompts {"tokens": ...}.
      start_layer: auxiliary -> path of the block of it that its mapper's layer starts as a copy of, where the shapes
        are equal (eq. 1 may be read so), such as {"vit": "trunk/transformer/blocks_6"}.
      about: what a checkpoint says of itself.

    Raises:
      UserError: an unknown mode, a pattern without a match, a tuned lower half with a cached primary, an auxiliary that
        gives tokens of another width than it says.
    """
    check(pipeline)
    primary = pipeline.primary.backbone
    aux = {name: view.backbone.params for name, view in pipeline.aux.items() if name not in pipeline.cached}
    if initial is None:
        initial = initialise(pipeline, aux, example, seed)
    for name, path in (start_layer or {}).items():
        layer = copy_of(initial[name]["layer"], pipeline.aux[pick(name, pipeline.aux, "auxiliary")].backbone, path)
        initial = {**initial, name: {**initial[name], "layer": layer}}
    full = {PRIMARY: primary.params, "aux": aux, "method": initial}
    fixed = jax.tree.map(lambda _: False, aux)
    mask = {
        PRIMARY: tree.trainable(primary.params, tune),
        "aux": fixed,
        "method": jax.tree.map(lambda _: True, initial),
    }
    if PRIMARY in pipeline.cached and tune:
        require_frozen_lower(pipeline, mask[PRIMARY], example, tune)
    params, frozen = tree.partition(full, mask)

    def loss(params: PyTree, frozen: PyTree, batch: Batch, rng: Array) -> tuple[Array, dict[str, Array]]:
        batch = batch if pipeline.vary is None else pipeline.vary(batch, rng)
        outputs, share = pipeline.outputs(params, frozen, batch)
        losses, sums = pipeline.task.loss(outputs, batch)
        real = (batch["weight"] > 0).astype(jnp.float32)
        each = {"loss": losses, "count": jnp.ones_like(real), "prompt_rms": share, **sums}
        return (batch["weight"] * losses).sum(), {key: (value * real).sum()[None] for key, value in each.items()}

    def predict(params: PyTree, frozen: PyTree, batch: Batch) -> dict[str, Array]:
        return pipeline.task.decode(pipeline.outputs(params, frozen, batch)[0], batch)

    return Problem(
        tasks=(pipeline.task.name,),
        params=params,
        frozen=frozen,
        mask=mask,
        expand=lambda params: params,  # one task reads one set of parameters
        loss=loss,
        prepare=lambda params, frozen: params,
        predict=predict,
        about=dict(about or {}),
    )


def initialise(pipeline: Pipeline, aux: PyTree, example: Batch, seed: int) -> PyTree:
    """Draw the method's parameters from the shapes of its context alone; nothing runs through the models."""
    shapes: Any = jax.eval_shape(pipeline.context, aux, example) if pipeline.aux else None
    zeros = jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape[1:]), leaf.dtype), shapes)
    return jax.jit(pipeline.method.init)(jax.random.key(seed), zeros).get("params", {})


def copy_of(layer: PyTree, backbone: VideoBackbone, path: str) -> PyTree:
    """Return the block of a backbone at a path, in place of a layer of the same leaves and shapes."""
    leaves = tree.flatten(backbone.params)
    found = tree.unflatten(cut_prefix(leaves, path + "/"))
    difference = tree.describe_difference(layer, found)
    if difference:
        raise UserError(f"The mapper's layer cannot start as {path!r} of {backbone.name!r}: {difference}.")
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), found)


def check(pipeline: Pipeline) -> None:
    """Refuse what cannot be built."""
    pick(pipeline.prompt_mode, PROMPT_MODES, "prompt_mode")
    pick(pipeline.aux_input, AUX_INPUTS, "aux_input")
    if PRIMARY in pipeline.aux:
        raise UserError(f"An auxiliary must not be named {PRIMARY!r}; give it another name.")
    for name in pipeline.cached:
        pick(name, [PRIMARY, *pipeline.aux], "cached model")


def require_frozen_lower(pipeline: Pipeline, mask: PyTree, example: Batch, tune: Sequence[str]) -> None:
    """Refuse to train weights that the cached lower half of the primary was computed with."""
    primary = pipeline.primary
    read = read_by(lambda weights: primary.backbone.lower(weights, primary.adapt(example)), primary.backbone.params)
    tuned = [path for path, keep in tree.flatten(mask).items() if keep and tree.flatten(read)[path]]
    if tuned:
        raise UserError(
            f"config.tune {tuple(tune)} trains {tuned[0]!r}, which the cached lower half of the primary was computed "
            "with; tune what is above the middle, or do not cache the primary."
        )


def read_by(function: Any, params: PyTree) -> PyTree:
    """Return the tree of bools, true where a function of the parameters reads the leaf.

    >>> read_by(lambda params: params["a"] + 1, {"a": jnp.zeros(1), "b": jnp.zeros(1)})
    {'a': True, 'b': False}
    """
    jaxpr = jax.make_jaxpr(function)(params).jaxpr
    used = {id(var) for equation in jaxpr.eqns for var in equation.invars} | {id(var) for var in jaxpr.outvars}
    return jax.tree.unflatten(jax.tree.structure(params), [id(var) in used for var in jaxpr.invars])


def static_prompts(pipeline: Pipeline, problem: Problem, params: PyTree, batches: Iterable[Batch]) -> np.ndarray:
    """Return the mean of the prompts over all videos of weight above 0, float32[P, D].

    A pass over the training set with the trained mapper gives the mean exactly, so that no running average has to be
    carried through training.

    Raises:
      UserError: no video, or a method without prompts.
    """
    per_clip = replace(pipeline, prompt_mode="dynamic")
    run = jax.jit(lambda params, frozen, batch: per_clip.prompts(params["method"], frozen["aux"], batch))
    total, count = np.zeros(()), 0
    for batch in batches:
        real = np.asarray(batch["weight"]) > 0
        prompts = run(params, problem.frozen, batch)
        if prompts is None:
            raise UserError("This method makes no prompts, so there are none to save.")
        rows = np.broadcast_to(np.asarray(prompts, np.float64), (len(real), *prompts.shape[1:]))
        total, count = total + rows[real].sum(axis=0), count + int(real.sum())
    if not count:
        raise UserError("There is no clip to take the mean prompts of; give at least one.")
    return (total / count).astype(np.float32)


def evaluate(problem: Problem, params: PyTree, task: VideoTask, batches: Iterable[Batch]) -> dict[str, float]:
    """Predict every video once and measure; videos of weight 0 are padding.

    Returns:
      What `task.measure` returns.
    """
    return evaluator(problem, task)(params, batches)


def evaluator(problem: Problem, task: VideoTask) -> Callable[[PyTree, Iterable[Batch]], dict[str, float]]:
    """Compile the evaluation of a problem once; returns a function of (params, batches), see `evaluate`."""
    answer = predictor(problem, task)
    return lambda params, batches: task.measure(*answer(params, batches))


def predictor(problem: Problem, task: VideoTask) -> Callable[[PyTree, Iterable[Batch]], tuple[Arrays, Arrays]]:
    """Compile the predictions of a problem once; returns a function of (params, batches).

    It returns what `task.measure` reads: the predictions for all videos of weight above 0, and their labels.
    """
    predict = jax.jit(partial(predict_step, problem))

    def run(params: PyTree, batches: Iterable[Batch]) -> tuple[Arrays, Arrays]:
        predictions, labels = [], []
        for batch in batches:
            real = np.asarray(batch["weight"]) > 0
            found = jax.device_get(predict(params, problem.frozen, batch))
            predictions.append({key: value[real] for key, value in found.items()})
            labels.append({key: np.asarray(batch[key])[real] for key in task.labels})
        if not labels:
            raise UserError("There is no clip to evaluate; look at the test part of the data.")
        return join(predictions), join(labels)

    return run


def predict_step(problem: Problem, params: PyTree, frozen: PyTree, batch: Batch) -> PyTree:
    """Return the predictions of a batch."""
    return problem.predict(problem.prepare(problem.expand(params), frozen), frozen, dict(batch))


def join(parts: Sequence[Mapping[str, np.ndarray]]) -> Arrays:
    """Concatenate arrays of batches key by key.

    >>> join([{"a": np.array([1])}, {"a": np.array([2])}])["a"].tolist()
    [1, 2]
    """
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
