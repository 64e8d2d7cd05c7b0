"""Multi-task image classification with a CLIP: class texts, mixed-task image batches, loss and prediction.

Written once for every method: prompts come in as {tower: {layer: tokens}}, tuned weights as leaves of the backbone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, repeat

from jax_promptmtl import tree
from jax_promptmtl.backbones.clip import Backbone, score
from jax_promptmtl.errors import UserError, pick
from jax_promptmtl.methods import METHODS
from jax_promptmtl.problem import Problem
from jax_promptmtl.sharing import expand as expand_slots
from jax_promptmtl.sharing import slots

Array = jax.Array
PyTree = Any


def class_tokens(backbone: Backbone, class_names: Sequence[str], template: str, slot: int) -> np.ndarray:
    """Return the token rows of the class texts.

    Args:
      backbone: whose tokenizer and context length to use.
      class_names: C names; "_" reads as a space.
      template: such as "a photo of a {}.".
      slot: placeholder ids after the start token; prompts of layer 0 replace them.

    Returns:
      int32[C, context length], zero-padded.
    """
    tokenizer, length = backbone.tokenizer, backbone.config.context_length
    texts = [template.format(name.replace("_", " ")) for name in class_names]
    tokens = tokenizer.tokenize(texts, length - slot)
    return np.insert(tokens, [1] * slot, 0, axis=1).astype(np.int32)


def stack_tokens(backbone: Backbone, tasks: Sequence, template: str, slot: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the class texts of all tasks, cut after the last end-of-text token, and which of them are real.

    Returns:
      int32[T, C, N] with C the largest class count, and bool[T, C].
    """
    rows = [class_tokens(backbone, task.class_names, template, slot) for task in tasks]
    count, length = max(map(len, rows)), 1 + max(int(row.argmax(axis=1).max()) for row in rows)
    tokens = np.stack([np.pad(row[:, :length], ((0, count - len(row)), (0, 0)), mode="edge") for row in rows])
    return tokens, np.array([[c < len(row) for c in range(count)] for row in rows])


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


def make_method(config: Mapping[str, Any], towers: Mapping[str, tuple[int, int]]) -> Any:
    """Construct the method that `config["name"]` names, with the other keys as its options."""
    options = {key: value for key, value in config.items() if key != "name"}
    constructor = METHODS[pick(config["name"], METHODS, "method")]
    legal = [field for field in constructor.__dataclass_fields__ if field not in ("parent", "name", "towers")]
    for option in options:
        pick(option, legal, f"option of the method {config['name']!r}")
    return constructor(towers=towers, **options)


def build(
    suite: Any,
    backbone: Backbone,
    *,
    method: Mapping[str, Any],
    sharing: Mapping[str, str],
    tune: Sequence[str],
    template: str,
    seed: int,
    groups: Sequence[Sequence[int]],
) -> Problem:
    """Join backbone, method and suite into a problem.

    Args:
      suite: tasks with names and class names.
      backbone: the loaded CLIP.
      method: `name` of the method and its options.
      sharing: parameter subtree of the method -> all | task | group.
      tune: patterns of the backbone weights to train, such as ".*/bias".
      template: of the class texts, such as "a photo of a {}.".
      seed: of the initial parameters.
      groups: partition of the task numbers, read where sharing is "group".

    Raises:
      UserError: an unknown method, option, sharing or pattern.
    """
    tasks, model = suite.tasks, backbone.model
    prompter = make_method(method, backbone.config.towers)
    vectors = {name: slots(kind, len(tasks), groups) for name, kind in sharing.items()}
    full = {
        "backbone": backbone.params,
        "method": initialise(prompter, vectors, jax.random.key(seed)),
    }
    mask = {
        "backbone": trainable(backbone.params, tune),
        "method": jax.tree.map(lambda _: True, full["method"]),
    }
    params, frozen = tree.partition(full, mask)
    shapes = jax.eval_shape(lambda: prompter.apply({"params": jax.tree.map(lambda leaf: leaf[0], full["method"])}))
    slot = shapes["text"][0].shape[0] if 0 in shapes.get("text", {}) else 0
    tokens, real = stack_tokens(backbone, tasks, template, slot)

    def expand(params):
        return {"backbone": params["backbone"], "method": expand_slots(params["method"], vectors)}

    def prepare(per_task, frozen):
        weights = tree.merge(per_task["backbone"], frozen["backbone"])
        prompts = jax.vmap(lambda p, _: prompter.apply({"params": p}))(per_task["method"], jnp.arange(len(tasks)))
        return {
            "backbone": per_task["backbone"],
            "classes": encode_classes(model, weights, tokens, prompts.get("text", {}), slot),
            "image": prompts.get("image", {}),
        }

    def predict(prepared, frozen, batch):
        weights, task = tree.merge(prepared["backbone"], frozen["backbone"]), batch["task"]
        prompts = {layer: rows[task] for layer, rows in prepared["image"].items()}
        features: Any = model.apply({"params": weights}, batch["image"], prompts, method="encode_image")
        logits = score(features, prepared["classes"][task], weights["logit_scale"])
        return jnp.where(jnp.asarray(real)[task], logits, -jnp.inf)

    def loss(per_task, frozen, batch, rng):
        return cross_entropy(predict(prepare(per_task, frozen), frozen, batch), batch, len(tasks))

    about = {
        "backbone": {"name": backbone.name, "sha256": backbone.sha256, "activation": backbone.config.activation},
        "preprocess": dict(backbone.preprocess),
        "template": template,
        "class_names": {task.name: list(task.class_names) for task in tasks},
        "groups": [list(map(int, group)) for group in groups],
        "split_hash": suite.split_hash,
    }
    names = tuple(task.name for task in tasks)
    return Problem(names, params, frozen, mask, expand, loss, prepare, predict, about)


def trainable(params: PyTree, patterns: Sequence[str]) -> PyTree:
    """Return the mask of the tuned backbone weights; a pattern that matches nothing is an error."""
    if isinstance(patterns, str):
        raise UserError(f"config.tune is the text {patterns!r}; give a tuple of patterns, such as ({patterns!r},).")
    for pattern in patterns:
        if not any(tree.flatten(tree.mask_from_patterns(params, [pattern])).values()):
            path = next(iter(tree.flatten(params)))
            raise UserError(f"The pattern {pattern!r} in config.tune matches no weight; paths look like {path!r}.")
    return tree.mask_from_patterns(params, patterns)


def encode_classes(model: Any, weights: PyTree, tokens: np.ndarray, prompts: Mapping[int, Array], slot: int) -> Array:
    """Return the class features of all tasks, float[T, C, E].

    Args:
      tokens: int[T, C, N].
      prompts: layer -> float[T, P, D]. Without any, equal texts of several tasks are encoded once.
      slot: placeholders in every row.
    """
    num_tasks, num_classes, _ = tokens.shape
    rows = rearrange(tokens, "t c n -> (t c) n")
    if not prompts:
        rows, where = np.unique(rows, axis=0, return_inverse=True)
        features = model.apply({"params": weights}, jnp.asarray(rows), method="encode_text")[where.reshape(-1)]
    else:
        per_row = {layer: repeat(p, "t p d -> (t c) p d", c=num_classes) for layer, p in prompts.items()}
        features = model.apply({"params": weights}, jnp.asarray(rows), per_row, slot=slot, method="encode_text")
    return rearrange(features, "(t c) e -> t c e", t=num_tasks)


def cross_entropy(logits: Array, batch: Mapping[str, Array], num_tasks: int) -> tuple[Array, dict[str, Array]]:
    """Return the weighted sum of the cross-entropies, and per task the sums of loss, hits and examples."""
    label = batch["label"][:, None]
    losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), label, axis=1)[:, 0]
    member = jax.nn.one_hot(batch["task"], num_tasks) * (batch["weight"] > 0)[:, None]
    hits = logits.argmax(axis=1) == batch["label"]
    sums = {"loss": losses @ member, "correct": hits.astype(jnp.float32) @ member, "count": member.sum(axis=0)}
    return (batch["weight"] * losses).sum(), sums
