"""Multi-task image classification with a CLIP: class texts, mixed-task image batches, loss and prediction.

Written once for every method: prompts come in as {tower: {layer: tokens}}, tuned weights as leaves of the backbone.
What is independent of the trained parameters is computed once, when the problem is built; what is independent of the
images, once per step or evaluation; what tasks or classes share, once for all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.extend.core import Var

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.problem import Batch, Problem, Sums
from jax_promptmtl.data.source import Suite
from jax_promptmtl.methods.make import make_method
from jax_promptmtl.methods.method import Method
from jax_promptmtl.methods.sharing import expand as expand_slots
from jax_promptmtl.methods.sharing import slots
from jax_promptmtl.models.clip.model import CLIP, Backbone, cast_params, score
from jax_promptmtl.models.clip.packing import Packed
from jax_promptmtl.problems.accumulation import accumulated
from jax_promptmtl.problems.class_texts import ClassTexts, class_texts, encode_classes
from jax_promptmtl.problems.templates import Ensemble, Template, average

Array = jax.Array
PyTree = Any


@dataclass(frozen=True)
class Options:
    """What is trained on a suite, and how it is computed.

    Attributes:
      method: `name` of the method and its options.
      sharing: parameter subtree of the method -> all | task | group.
      tune: patterns of the backbone weights to train, such as ".*/bias".
      template: of the class texts, such as "a photo of a {}.", or several; see `templates.resolve`.
      seed: of the initial parameters.
      groups: partition of the task numbers, read where sharing is "group".
      dtype: dtype of the frozen towers' matrices and biases, float32 or bfloat16.
      remat: save memory by recomputing every block in the backward pass.
      class_chunk: about how many class texts to encode at a time, to save memory; 0 is all.
      image_chunk: microbatch size of gradient accumulation, to save memory; 0 is the whole batch.
      task_gradients: give each task's replica of shared parameters exactly that task's gradient, which task grouping
        reads. Without it, tasks whose text prompts are the same parameters share one encoding of the class texts, and
        only the sum of their gradients is right, which is all that an optimiser reads.
      mesh: devices over which the class texts are sharded; if None, each device encodes all of them.
    """

    method: Mapping[str, Any]
    sharing: Mapping[str, str]
    tune: Sequence[str]
    template: Template
    seed: int
    groups: Sequence[Sequence[int]]
    dtype: str = "float32"
    remat: bool = False
    class_chunk: int = 0
    image_chunk: int = 0
    task_gradients: bool = True
    mesh: jax.sharding.Mesh | None = None


class Prepared(NamedTuple):
    """Everything that prediction needs and that is independent of the image.

    Attributes:
      weights: trained leaves of the backbone, `None` where frozen.
      classes: class features float[T, C, E].
      image: layer -> prompts of the image tower float[T, P, D].
      method: parameters of a method that adapts image features, else {}.
    """

    weights: PyTree
    classes: Array
    image: dict[int, Array]
    method: PyTree


def build(suite: Suite, backbone: Backbone, options: Options) -> Problem:
    """Join backbone, method and suite into a problem.

    Raises:
      UserError: an unknown method, option, sharing or pattern.
    """
    method = make_method(options.method, {"towers": backbone.config.towers, "embed_dim": backbone.config.embed_dim})
    vectors = {name: slots(kind, len(suite.tasks), options.groups) for name, kind in options.sharing.items()}
    full, mask = parameters(backbone, method, vectors, options)
    tuned = {tower: any(tree.flatten(mask["backbone"][tower]).values()) for tower in ("image", "text")}
    one = jax.tree.map(lambda leaf: leaf[0], full["method"])
    prompts: Any = jax.eval_shape(lambda: method.apply({"params": one}))
    read = reads(lambda p: text_prompts(method, p), one)
    slot = prompts["text"][0].shape[0] if 0 in prompts.get("text", {}) else 0
    texts = texts_of(suite, backbone, options, slot, [vectors[name] for name in sorted(read)])
    model = backbone.model.clone(remat=options.remat)
    params, frozen = tree.partition(full, mask)
    frozen["backbone"] = cast_params(frozen["backbone"], options.dtype)
    if not read and not tuned["text"]:
        whole = partial(encode_classes, model, texts=texts.together)
        frozen["classes"] = constant(lambda weights: average(whole(weights), texts.weight), backbone.params)
    classifier = Classifier(model, method, vectors, texts, tuned["image"], options.image_chunk, options.mesh)
    return Problem(
        tasks=tuple(task.name for task in suite.tasks),
        params=params,
        frozen=frozen,
        mask=mask,
        expand=classifier.expand,
        loss=classifier.loss,
        prepare=classifier.prepare,
        predict=classifier.predict,
        about=describe(suite, backbone, options),
        takes_features=not (prompts.get("image") or tuned["image"]),
    )


def parameters(
    backbone: Backbone, method: Method, vectors: Mapping[str, np.ndarray], options: Options
) -> tuple[PyTree, PyTree]:
    """Return the initial parameters and the mask of the trained ones."""
    learnt = initialise(method, vectors, jax.random.key(options.seed))
    tuned = tree.trainable(backbone.params, options.tune)
    full = {"backbone": backbone.params, "method": learnt}
    return full, {"backbone": tuned, "method": jax.tree.map(lambda _: True, learnt)}


def texts_of(suite: Suite, backbone: Backbone, options: Options, slot: int, read: Sequence[np.ndarray]) -> ClassTexts:
    """Return the class texts of a suite; see `class_texts`."""
    ensemble = Ensemble(backbone, suite.tasks, options.template, slot)
    parts = options.mesh.size if options.mesh else 1
    chunk, apart = options.class_chunk, options.task_gradients
    texts = class_texts(ensemble.tokens, slot, read, chunk=chunk, parts=parts, task_gradients=apart)
    return texts._replace(real=ensemble.real, weight=ensemble.weight)


def describe(suite: Suite, backbone: Backbone, options: Options) -> dict[str, Any]:
    """Return the metadata of checkpoints; see `Problem.about`."""
    return {
        "backbone": {**backbone.reference, "dtype": options.dtype},
        "preprocess": dict(backbone.preprocess),
        "template": options.template,
        "class_names": {task.name: list(task.class_names) for task in suite.tasks},
        "groups": [list(map(int, group)) for group in options.groups],
        "split_hash": suite.split_hash,
    }


@dataclass(frozen=True, eq=False)
class Classifier:
    """The functions that make up the `Problem`.

    Attributes:
      model: the CLIP.
      method: computes prompts, or adapts features.
      vectors: subtree of the method's parameters -> int[T], the slot that each task reads.
      texts: of the classes.
      tunes_images: whether weights of the image tower are trained.
      microbatch: images per microbatch in the loss; 0 is all.
      mesh: devices over which the class texts are sharded, or None.
    """

    model: CLIP
    method: Method
    vectors: Mapping[str, np.ndarray]
    texts: ClassTexts
    tunes_images: bool
    microbatch: int
    mesh: jax.sharding.Mesh | None

    def expand(self, params: PyTree) -> PyTree:
        """Expand every subtree of the method's parameters to [T, ...]."""
        return {"backbone": params["backbone"], "method": expand_slots(params["method"], self.vectors)}

    def prepare(self, per_task: PyTree, frozen: PyTree) -> Prepared:
        """Encode the class texts and compute the prompts."""
        return self.prepare_texts(per_task, frozen, self.texts.together)

    def prepare_texts(self, per_task: PyTree, frozen: PyTree, texts: Packed) -> Prepared:
        """Do `prepare` with the given packing of the texts."""
        weights, method = tree.merge(per_task["backbone"], frozen["backbone"]), per_task["method"]
        tasks = jnp.arange(len(self.texts.real))
        prompts: Any = jax.vmap(lambda params, _: self.method.apply({"params": params}))(method, tasks)
        classes = frozen.get("classes")
        if classes is None:
            text = prompts.get("text", {})
            classes = encode_classes(self.model, weights, text, self.texts.slot, texts=texts, mesh=self.mesh)
            classes = average(classes, self.texts.weight)
        if "text" in self.method.adapts:
            classes = self.adapt("text", method, classes)
        adapts_images = "image" in self.method.adapts
        return Prepared(per_task["backbone"], classes, prompts.get("image", {}), method if adapts_images else {})

    def adapt(self, tower: str, method: PyTree, features: Array) -> Array:
        """Adapt features to each task: float[..., E] -> float[T, ..., E]."""
        apply = partial(self.method.apply, method="adapt")
        adapted: Any = jax.vmap(lambda params, x: apply({"params": params}, tower, x))(method, features)
        return jnp.asarray(adapted)

    def predict(self, prepared: Prepared, frozen: PyTree, batch: Batch) -> Array:
        """Return logits float[B, C], -inf beyond the classes of an example's task."""
        weights, task = tree.merge(prepared.weights, frozen["backbone"]), batch["task"]
        features = self.encode_images(prepared, weights, batch)
        if "image" in self.method.adapts:  # all tasks on all rows: cheaper than gathering parameters per row
            everywhere = jnp.broadcast_to(features, (len(self.texts.real), *features.shape))
            features = self.adapt("image", prepared.method, everywhere)[task, jnp.arange(task.shape[0])]
        # Likewise all tasks' classes on all rows: one small product instead of class features gathered per row.
        logits = score(features, rearrange(prepared.classes, "t c e -> (t c) e"), weights["logit_scale"])
        logits = logits.reshape(task.shape[0], *self.texts.real.shape)  # B may be symbolic, which has no len()
        logits = jnp.take_along_axis(logits, task[:, None, None], axis=1)[:, 0]
        return jnp.where(jnp.asarray(self.texts.real)[task], logits, -jnp.inf)

    def encode_images(self, prepared: Prepared, weights: PyTree, batch: Batch) -> Any:
        """Return features float[B, E]: the batch's precomputed ones, else those of its images."""
        features: Any = batch.get("features")
        if features is None:
            prompts = {"prompts": prepared.image, "rows": batch["task"]} if prepared.image else {}
            features = self.model.apply({"params": weights}, batch["image"], **prompts, method="encode_image")
        elif prepared.image or self.tunes_images:
            raise UserError("The batch has features of images, but this method changes the image tower; give images.")
        return features

    def objective(self, prepared: Prepared, frozen: PyTree, batch: Batch) -> tuple[Array, Sums]:
        """Return the weighted loss, a scalar, and sums float[T]."""
        return cross_entropy(self.predict(prepared, frozen, batch), batch, len(self.texts.real))

    def loss(self, per_task: PyTree, frozen: PyTree, batch: Batch, rng: Array) -> tuple[Array, Sums]:
        """Compute `Problem.loss`."""
        accumulates = 0 < self.microbatch < batch["task"].shape[0]
        run = accumulated(self.objective, self.microbatch) if accumulates else self.objective
        return run(self.prepare_texts(per_task, frozen, self.texts.apart), frozen, batch)


def text_prompts(method: Method, params: PyTree) -> PyTree:
    """Return the prompts of the text tower, {} where there are none."""
    prompts: Any = method.apply({"params": params})
    return prompts.get("text", {})


def initialise(method: Method, vectors: Mapping[str, np.ndarray], key: Array) -> dict[str, PyTree]:
    """Initialise a method's parameters: every subtree [S, ...], each slot drawn independently."""
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


def reads(function: Callable[[dict[str, PyTree]], PyTree], params: dict[str, PyTree]) -> set[str]:
    """Return the names of the subtrees on which a function's result depends.

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


def constant(function: Callable[[PyTree], Array], params: PyTree) -> Array:
    """Evaluate a function of frozen weights once; where they are abstract, return its shape."""
    abstract = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(params))
    result: Array = jax.eval_shape(function, params) if abstract else jax.jit(function)(params)
    return result


def cross_entropy(logits: Array, batch: Mapping[str, Array], num_tasks: int) -> tuple[Array, dict[str, Array]]:
    """Return the weighted sum of the cross-entropies, and per task the sums of loss, hits and examples."""
    label = batch["label"][:, None]
    losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), label, axis=1)[:, 0]
    member = jax.nn.one_hot(batch["task"], num_tasks) * (batch["weight"] > 0)[:, None]
    hits = logits.argmax(axis=1) == batch["label"]
    each = jnp.where(member > 0, losses[:, None], 0).sum(axis=0)  # a product would spread a NaN to all tasks
    sums = {"loss": each, "correct": hits.astype(jnp.float32) @ member, "count": member.sum(axis=0)}
    return (batch["weight"] * losses).sum(), sums
