"""Initialise parameters from a file; heads for other classes, and parts of other stages, stay random."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError

PyTree = Any


def adopt(
    drawn: PyTree, given: PyTree, name: str, *, head: str, later: tuple[str, ...] = (), unused: int = 0
) -> PyTree:
    """Replace random parameters by given ones where the shapes match.

    Args:
      drawn, given: trees of parameters; given may be {}.
      name: of the weights, for the message.
      head: in the path of what depends on the classes.
      later: parts that a later training stage adds; where the file lacks them they stay random.
      unused: leading classes of a head to drop: upstream's detector counts from 1.

    Raises:
      UserError: weights of different sizes.
    """
    if not given:
        return drawn
    wanted = tree.flatten(drawn)
    parts = set(drawn)
    there = {path: leaf for path, leaf in tree.flatten(given).items() if belongs(path, parts, later)}
    heads = {path: fit(leaf, wanted[path], unused) for path, leaf in there.items() if is_head(path, head, wanted)}
    missing = {path: leaf for path, leaf in wanted.items() if path.split("/")[0] in later and path not in there}
    found = tree.unflatten(there | heads | missing)
    if difference := tree.describe_difference(drawn, found):
        raise UserError(f"The weights {name!r} do not fit config.model: {difference[:300]}; set its sizes to theirs.")
    return found


def belongs(path: str, parts: set[str], later: tuple[str, ...]) -> bool:
    """Return whether a weight belongs to the stage, or to no later stage."""
    part = path.split("/")[0]
    return part in parts or part not in later


def is_head(path: str, head: str, wanted: Mapping[str, Any]) -> bool:
    """Return whether a weight depends on the classes."""
    return path in wanted and f"/{head}" in path


def fit(leaf: Any, drawn: Any, unused: int) -> Any:
    """Return a head's weight, without its leading classes if it then fits; else the random one."""
    for some in (leaf, leaf[..., unused:]):
        if np.shape(some) == np.shape(drawn):
            return some
    return drawn
