"""Class texts of all tasks: tokens, packing with shared prefixes, and features."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.sharding import NamedSharding, PartitionSpec

from jax_promptmtl.core.problem import AXIS
from jax_promptmtl.models.clip.model import CLIP, Backbone
from jax_promptmtl.models.clip.packing import Packed, pack
from jax_promptmtl.models.layers.transformer import KeyValues
from jax_promptmtl.problems.templates import tokenize

Array = jax.Array
PyTree = Any
Prefix = tuple[KeyValues, ...]


class ClassTexts(NamedTuple):
    """The class texts of T tasks.

    Attributes:
      slot: placeholder ids in every text, which prompts of layer 0 replace.
      together: packed with one set for all tasks whose text prompts are the same parameters.
      apart: packed with a set per task where the tasks' gradients are told apart.
      real: bool[T, C], true for the classes that a task has.
      weight: float32[T, C, M] of each of M texts in a class's feature; None where every class has one text.
    """

    slot: int
    together: Packed
    apart: Packed
    real: np.ndarray
    weight: np.ndarray | None = None


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
    return tokenize(backbone, [template.format(name.replace("_", " ")) for name in class_names], slot)


def class_texts(
    tokens: Sequence[np.ndarray],
    slot: int,
    read: Sequence[np.ndarray],
    *,
    chunk: int = 0,
    parts: int = 1,
    task_gradients: bool = True,
) -> ClassTexts:
    """Pack the class texts of T tasks.

    Args:
      tokens: of every task, from `class_tokens`.
      slot: placeholders in every text.
      read: the slot vectors int[T] of the parameters that the text prompts depend on.
      chunk, parts: see `pack`.
      task_gradients: whether per-task gradients are needed.
    """
    real = np.arange(max(map(len, tokens))) < np.array([[len(rows)] for rows in tokens])
    together = pack(tokens, same(read, len(tokens)), chunk, parts)
    apart = pack(tokens, range(len(tokens)), chunk, parts) if read and task_gradients else together
    return ClassTexts(slot, together, apart, real)


def same(vectors: Sequence[np.ndarray], num_tasks: int) -> list[int]:
    """Number tasks such that those with equal slots in all vectors share a number, counting from 0.

    >>> same([np.array([0, 0, 1, 0]), np.array([2, 2, 2, 1])], 4)
    [0, 0, 1, 2]
    """
    keys = [tuple(int(vector[task]) for vector in vectors) for task in range(num_tasks)]
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return [number[key] for key in keys]


def encode_classes(
    model: CLIP,
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
      texts: class texts; each set's prefix is encoded once, then its suffixes.
      mesh: devices over which the suffixes are sharded.
    """
    prompts = prompts or {}
    if len(texts.first) < len(texts.where):
        prompts = {layer: rows[texts.first] for layer, rows in prompts.items()}
    prefix: Any = model.apply({"params": weights}, texts.prefix, prompts, slot=slot, method="prefill_text")

    def encode(weights: PyTree, prefix: Prefix, suffixes: Sequence[Array]) -> Array:
        rows = [rearrange(x, "u r n -> (u r) n") for x in suffixes]
        features: Any = model.apply({"params": weights}, prefix, *rows, method="encode_suffixes")
        rows_of_sets: Array = rearrange(features, "(u r) n e -> u r n e", u=len(texts.first))
        return rows_of_sets

    if mesh:
        rows = PartitionSpec(None, AXIS)
        encode = jax.shard_map(encode, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec(), rows), out_specs=rows)
    features = in_chunks(partial(encode, {key: weights[key] for key in ("text", "logit_scale")}, prefix), texts)
    if mesh:
        features = jax.lax.with_sharding_constraint(features, NamedSharding(mesh, PartitionSpec()))
    return features[tuple(np.moveaxis(texts.where, -1, 0))]


def in_chunks(encode: Callable[[Sequence[Array]], Array], texts: Packed) -> Array:
    """Return the features float[U, R, n, E] of the suffixes, with activations of one chunk at a time in both passes."""
    suffixes = [rearrange(x, "u (k r) n -> k u r n", k=texts.chunks) for x in texts.suffixes]
    if texts.chunks == 1:
        return encode([x[0] for x in suffixes])
    chunks = jax.lax.map(jax.checkpoint(encode), jax.tree.map(jnp.asarray, suffixes))
    result: Array = rearrange(chunks, "k u r n e -> u (k r) n e")
    return result
