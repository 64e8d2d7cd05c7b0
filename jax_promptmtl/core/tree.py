"""Parameter trees: paths, masks from patterns, the trainable/frozen partition, counts, differences, checksums.

A path is the keys of a leaf joined by "/", such as `image/blocks_0/attn/query/kernel`.
"""

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jax_promptmtl.core.errors import UserError

PyTree = Any  # JAX has no type for trees
Tree = Mapping[Any, Any]  # of dicts


def flatten(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """Return {path: leaf} of a tree of dicts, sorted by path; `None` is a leaf.

    >>> flatten({"b": {"c": 1}, "a": None})
    {'a': None, 'b/c': 1}
    """
    leaves: dict[str, Any] = {}
    for key in sorted(tree, key=str):
        path = f"{prefix}{key}"
        leaves |= flatten(tree[key], path + "/") if isinstance(tree[key], Mapping) else {path: tree[key]}
    return leaves


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Invert `flatten`.

    >>> unflatten({"a": None, "b/c": 1})
    {'a': None, 'b': {'c': 1}}
    """
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def mask_from_patterns(tree: Tree, patterns: Iterable[str]) -> dict[str, Any]:
    """Return the tree with true where a leaf's whole path matches any of the regular expressions.

    >>> mask_from_patterns({"fc": {"bias": 0, "kernel": 0}}, [".*/bias"])
    {'fc': {'bias': True, 'kernel': False}}
    """
    compiled = [re.compile(pattern) for pattern in patterns]
    return unflatten({path: any(p.fullmatch(path) for p in compiled) for path in flatten(tree)})


def trainable(params: Tree, patterns: Sequence[str]) -> dict[str, Any]:
    """Return the mask of the weights that `config.tune` selects; a pattern without a match is a user error."""
    if isinstance(patterns, str):
        raise UserError(f"config.tune is the text {patterns!r}; give a tuple of patterns, such as ({patterns!r},).")
    for pattern in patterns:
        if not any(flatten(mask_from_patterns(params, [pattern])).values()):
            path = next(iter(flatten(params)))
            raise UserError(f"The pattern {pattern!r} in config.tune matches no weight; paths look like {path!r}.")
    return mask_from_patterns(params, patterns)


def partition(tree: PyTree, mask: PyTree) -> tuple[PyTree, PyTree]:
    """Partition a tree into the leaves where the mask is true and the rest, with `None` in the holes.

    >>> partition({"a": 1, "b": 2}, {"a": True, "b": False})
    ({'a': 1, 'b': None}, {'a': None, 'b': 2})
    """
    chosen = jax.tree.map(lambda leaf, keep: leaf if keep else None, tree, mask)
    others = jax.tree.map(lambda leaf, keep: None if keep else leaf, tree, mask)
    return chosen, others


def merge(first: PyTree, second: PyTree) -> PyTree:
    """Fill the `None` holes of one tree with the leaves of the other; the inverse of `partition`.

    >>> merge({"a": 1, "b": None}, {"a": None, "b": 2})
    {'a': 1, 'b': 2}
    """
    return jax.tree.map(lambda a, b: b if a is None else a, first, second, is_leaf=lambda leaf: leaf is None)


def count(tree: PyTree) -> int:
    """Return the number of scalars in all leaves; holes count 0.

    >>> count({"a": np.zeros((2, 3)), "b": None})
    6
    """
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def describe_difference(expected: Tree, given: Tree) -> str:
    """Return "-path" for missing leaves, "+path" for unexpected ones, and both shapes where they differ; else "".

    >>> describe_difference({"a": np.zeros(2), "b": np.zeros(1)}, {"b": np.zeros(3), "c": np.zeros(1)})
    '-a, +c, b has shape (3,) not (1,)'
    """
    want, have = flatten(expected), flatten(given)
    lines = [f"-{path}" for path in want.keys() - have.keys()]
    lines += [f"+{path}" for path in have.keys() - want.keys()]
    lines.sort(key=lambda line: (line[0] == "+", line))
    for path in sorted(want.keys() & have.keys()):
        if np.shape(want[path]) != np.shape(have[path]):
            lines.append(f"{path} has shape {np.shape(have[path])} not {np.shape(want[path])}")
    return ", ".join(lines)


def checksums(tree: Tree) -> dict[str, int]:
    """Return {path: CRC-32 of the leaf's bytes}, to find a flipped bit in a restored checkpoint.

    >>> checksums({"a": np.zeros(1, np.float32), "b": None})
    {'a': 558161692}
    """
    leaves = {path: leaf for path, leaf in flatten(tree).items() if leaf is not None}
    return {path: zlib.crc32(np.ascontiguousarray(leaf).tobytes()) for path, leaf in leaves.items()}
