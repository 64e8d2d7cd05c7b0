"""Multi-task image classification with a CLIP: class texts, mixed-task image batches, loss and prediction.

Written once for every method: prompts come in as {tower: {layer: tokens}}, tuned weights as leaves of the backbone.
What does not depend on the trained parameters is computed once, when the problem is built; what does not depend on the
images, once per step or evaluation; what tasks or classes have in common, once for all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.extend.core import Var
from jax.sharding import NamedSharding, PartitionSpec

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.problem import AXIS, Problem
from jax_promptmtl.methods.make import make_method
from jax_promptmtl.methods.sharing import expand as expand_slots
from jax_promptmtl.methods.sharing import slots
from jax_promptmtl.models.clip.model import Backbone, narrow, score
from jax_promptmtl.models.clip.packing import Packed, pack
from jax_promptmtl.problems.accumulation import in_chunks
from jax_promptmtl.problems.class_texts import Ensemble, Template

Array = jax.Array
PyTree = Any


def initialise(method: Any, vectors: Mapping[str, np.ndarray], key: Array) -> dict[str, PyTree]:
    """Return a method's parameters, every subtree [S, ...] with each slot drawn for itself."""
    counts = {name: int(vector.max()) + 1 for name, vector in vectors.items()}
    draws = [method.init(jax.random.fold_in(key, s)).get("params", {}) for s in range(max(counts.values(), default=1))]
    if set(draws[0]) != set(vectors):
        raise UserError(
            f"config.sharing names {sorted(vectors)}, but the method's parameters are {sorted(draws[0])}; name those."
        )
    return {
        name: jax.tree.map(lambda *leaves: jnp.stack(leaves), *(d[name] for d in draws[: counts[name]]))
        for name in vectors
    }


def build(
    suite: Any,
    backbone: Backbone,
    *,
    method: Mapping[str, Any],
    sharing: Mapping[str, str],
    tune: Sequence[str],
    template: Template,
    seed: int,
    groups: Sequence[Sequence[int]],
    dtype: str = "float32",
    remat: bool = False,
    class_chunk: int = 0,
    image_chunk: int = 0,
    task_gradients: bool = True,
    mesh: jax.sharding.Mesh | None = None,
) -> Problem:
    """Join backbone, method and suite into a problem.

    Args:
      suite: tasks with names and class names.
      backbone: the loaded CLIP.
      method: `name` of the method and its options.
      sharing: parameter subtree of the method -> all | task | group.
      tune: patterns of the backbone weights to train, such as ".*/bias".
      template: of the class texts, such as "a photo of a {}.", or several; see `class_texts.resolve`.
      seed: of the initial parameters.
      groups: partition of the task numbers, read where sharing is "group".
      dtype: of the frozen towers' matrices and biases, float32 or bfloat16.
      remat: save memory by computing the inside of every block again in the backward pass.
      class_chunk: save memory by encoding about so many class texts at a time; 0 is all.
      image_chunk: save memory by taking so many images of a batch at a time through both passes; 0 is all.
      task_gradients: give each task's replica of shared parameters exactly that task's gradient, which task grouping
        reads. Without it, tasks whose text prompts are the same parameters share one encoding of the class texts, and
        only the sum of their gradients is right, which is all that an optimiser reads.
      mesh: of the devices that divide the class texts among them; each encodes all of them where it is None.

    Raises:
      UserError: an unknown method, option, sharing or pattern.
    """
    tasks, model = suite.tasks, backbone.model.clone(remat=remat)
    prompter: Any = make_method(method, {"towers": backbone.config.towers, "embed_dim": backbone.config.embed_dim})
    vectors = {name: slots(kind, len(tasks), groups) for name, kind in sharing.items()}
    full = {
        "backbone": backbone.params,
        "method": initialise(prompter, vectors, jax.random.key(seed)),
    }
    mask = {
        "backbone": tree.trainable(backbone.params, tune),
        "method": jax.tree.map(lambda _: True, full["method"]),
    }
    params, frozen = tree.partition(full, mask)
    frozen["backbone"] = narrow(frozen["backbone"], dtype)
    one = jax.tree.map(lambda leaf: leaf[0], full["method"])
    shapes = jax.eval_shape(lambda: prompter.apply({"params": one}))
    slot = shapes["text"][0].shape[0] if 0 in shapes.get("text", {}) else 0
    ensemble = Ensemble(backbone, tasks, template, slot)
    real = np.arange(max(ensemble.classes)) < np.array(ensemble.classes)[:, None]
    used = reads(lambda p: prompter.apply({"params": p}).get("text", {}), one)
    packed = partial(pack, ensemble.tokens, chunk=class_chunk, parts=mesh.size if mesh else 1)
    together = packed(same([vectors[name] for name in sorted(used)], len(tasks)))
    apart = packed(range(len(tasks))) if used and task_gradients else together
    tuned = {tower: any(tree.flatten(mask["backbone"][tower]).values()) for tower in ("image", "text")}
    if not used and not tuned["text"]:
        whole = partial(encode_classes, model, texts=together)
        frozen["classes"] = constant(lambda weights: ensemble.average(whole(weights)), backbone.params)

    def expand(params):
        return {"backbone": params["backbone"], "method": expand_slots(params["method"], vectors)}

    def prepare(per_task, frozen, texts=together):
        weights, method = tree.merge(per_task["backbone"], frozen["backbone"]), per_task["method"]
        prompts = jax.vmap(lambda p, _: prompter.apply({"params": p}))(method, jnp.arange(len(tasks)))
        classes = frozen.get("classes")
        if classes is None:
            classes = encode_classes(model, weights, prompts.get("text", {}), slot, texts=texts, mesh=mesh)
            classes = ensemble.average(classes)
        return {
            "backbone": per_task["backbone"],
            "classes": adapt("text", method, classes) if "text" in prompter.adapts else classes,
            "image": prompts.get("image", {}),
            "method": method if "image" in prompter.adapts else {},
        }

    def adapt(tower, params, features):
        apply = partial(prompter.apply, method="adapt")
        return jax.vmap(lambda p, x: apply({"params": p}, tower, x))(params, features)

    def predict(prepared, frozen, batch):
        weights, task = tree.merge(prepared["backbone"], frozen["backbone"]), batch["task"]
        features = batch.get("features")
        if features is None:
            prompts = {"prompts": prepared["image"], "rows": task} if prepared["image"] else {}
            features = model.apply({"params": weights}, batch["image"], **prompts, method="encode_image")
        elif prepared["image"] or tuned["image"]:
            raise UserError("The batch has features of images, but this method changes the image tower; give images.")
        if "image" in prompter.adapts:  # every task's on all rows: that is tiny, parameters gathered per row are not
            everywhere = jnp.broadcast_to(features, (len(tasks), *features.shape))
            features = adapt("image", prepared["method"], everywhere)[task, jnp.arange(task.shape[0])]
        # All tasks' classes on all rows as well: one small product instead of class features gathered per row.
        logits = score(features, rearrange(prepared["classes"], "t c e -> (t c) e"), weights["logit_scale"])
        logits = logits.reshape(task.shape[0], *real.shape)  # B may be a symbol, which has no len()
        logits = jnp.take_along_axis(logits, task[:, None, None], axis=1)[:, 0]
        return jnp.where(jnp.asarray(real)[task], logits, -jnp.inf)

    def objective(prepared, frozen, batch):
        return cross_entropy(predict(prepared, frozen, batch), batch, len(tasks))

    def loss(per_task, frozen, batch, rng):
        run = in_chunks(objective, image_chunk) if 0 < image_chunk < batch["task"].shape[0] else objective
        return run(prepare(per_task, frozen, apart), frozen, batch)

    about = {
        "backbone": {**backbone.reference, "dtype": dtype},
        "preprocess": dict(backbone.preprocess),
        "template": template,
        "class_names": {task.name: list(task.class_names) for task in tasks},
        "groups": [list(map(int, group)) for group in groups],
        "split_hash": suite.split_hash,
    }
    names, blind = tuple(task.name for task in tasks), not (shapes.get("image") or tuned["image"])
    return Problem(names, params, frozen, mask, expand, loss, prepare, predict, about, takes_features=blind)


def reads(function: Callable[[dict[str, PyTree]], PyTree], params: dict[str, PyTree]) -> set[str]:
    """Return the names of the subtrees that the result of a function depends on.

    >>> sorted(reads(lambda p: p["a"] + p["b"], {"a": 1.0, "b": 2.0, "c": 3.0}))
    ['a', 'b']
    """
    jaxpr = jax.make_jaxpr(function)(params).jaxpr
    needed = set(filter(lambda var: isinstance(var, Var), jaxpr.outvars))
    for equation in reversed(jaxpr.eqns):
        if needed.intersection(equation.outvars):
            needed.update(var for var in equation.invars if isinstance(var, Var))
    names = [name for name in sorted(params) for _ in jax.tree.leaves(params[name])]
    return {name for name, var in zip(names, jaxpr.invars, strict=True) if var in needed}


def same(vectors: Sequence[np.ndarray], num_tasks: int) -> list[int]:
    """Number the tasks by what they read: those with equal slots in all vectors get one number, counting from 0.

    >>> same([np.array([0, 0, 1, 0]), np.array([2, 2, 2, 1])], 4)
    [0, 0, 1, 2]
    """
    keys = [tuple(int(vector[task]) for vector in vectors) for task in range(num_tasks)]
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return [number[key] for key in keys]


def constant(function: Callable[[PyTree], Array], params: PyTree) -> Array:
    """Return the result for weights that training does not change; of shapes, its shape."""
    abstract = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(params))
    return jax.eval_shape(function, params) if abstract else jax.jit(function)(params)


def encode_classes(
    model: Any,
    weights: PyTree,
    prompts: Mapping[int, Array] | None = None,
    slot: int = 0,
    *,
    texts: Packed,
    mesh: jax.sharding.Mesh | None = None,
) -> Array:
    """Return the class features of all tasks, float[T, C, E].

    Args:
      model: the CLIP.
      weights: of the CLIP.
      prompts: layer -> float[T, P, D]; the tasks of a set of `texts` have the same.
      slot: placeholders in every row.
      texts: class texts; each set's beginning is encoded once, then its ends.
      mesh: of the devices that divide the ends among them.
    """
    apply = partial(model.apply, {"params": weights})
    prompts = prompts or {}
    if len(texts.first) < len(texts.where):
        prompts = {layer: rows[texts.first] for layer, rows in prompts.items()}
    past = apply(texts.start, prompts, slot=slot, method="remember_text")

    def finish(weights, past, ends):
        rows = [rearrange(x, "u r n -> (u r) n") for x in ends]
        features = model.apply({"params": weights}, past, *rows, method="finish_text")
        return rearrange(features, "(u r) n e -> u r n e", u=len(texts.first))

    if mesh:
        rows = PartitionSpec(None, AXIS)
        finish = jax.shard_map(finish, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec(), rows), out_specs=rows)
    finish = partial(finish, {key: weights[key] for key in ("text", "logit_scale")}, past)
    ends = [rearrange(x, "u (k r) n -> k u r n", k=texts.chunks) for x in texts.ends]
    if texts.chunks == 1:
        features = finish([x[0] for x in ends])
    else:  # one chunk's activations at a time, in the backward pass too
        chunks = jax.lax.map(jax.checkpoint(finish), jax.tree.map(jnp.asarray, ends))
        features = rearrange(chunks, "k u r n e -> u (k r) n e")
    if mesh:
        features = jax.lax.with_sharding_constraint(features, NamedSharding(mesh, PartitionSpec()))
    return features[tuple(np.moveaxis(texts.where, -1, 0))]


def cross_entropy(logits: Array, batch: Mapping[str, Array], num_tasks: int) -> tuple[Array, dict[str, Array]]:
    """Return the weighted sum of the cross-entropies, and per task the sums of loss, hits and examples."""
    label = batch["label"][:, None]
    losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), label, axis=1)[:, 0]
    member = jax.nn.one_hot(batch["task"], num_tasks) * (batch["weight"] > 0)[:, None]
    hits = logits.argmax(axis=1) == batch["label"]
    each = jnp.where(member > 0, losses[:, None], 0).sum(axis=0)  # a product would spread one NaN over all tasks
    sums = {"loss": each, "correct": hits.astype(jnp.float32) @ member, "count": member.sum(axis=0)}
    return (batch["weight"] * losses).sum(), sums
