"""Trees of parameters from leaves with others' names, by tables: torch name, our path, transposition.

`{i}` in a row is the number of a block.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError

Axes = tuple[int, ...] | None
Row = tuple[str, str, Axes]
State = dict[str, np.ndarray]

KEEP: Axes = None
LINEAR: Axes = (1, 0)  # torch keeps [out, in]


def affine(torch_name: str, path: str) -> list[Row]:
    """Return the rows of an affine map."""
    return [(f"{torch_name}.weight", f"{path}/kernel", LINEAR), (f"{torch_name}.bias", f"{path}/bias", KEEP)]


def norm(torch_name: str, path: str) -> list[Row]:
    """Return the rows of a LayerNorm."""
    return [(f"{torch_name}.weight", f"{path}/scale", KEEP), (f"{torch_name}.bias", f"{path}/bias", KEEP)]


def arrange(rows: list[Row], state: Mapping[str, np.ndarray], model: str) -> dict[str, Any]:
    """Return the float32 tree that the rows make of exactly their leaves; `model` is named where others are there."""
    names = {name for name, _, _ in rows}
    problems = [f"-{name}" for name in sorted(names - state.keys())]
    problems += [f"+{name}" for name in sorted(state.keys() - names)]
    if problems:
        shown = ", ".join(problems[:8]) + (f" and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise UserError(
            f"The weights do not fit a {model}: {shown} (- missing, + surplus); give complete, unmodified weights."
        )
    leaves = {path: transpose(state[name], axes, name) for name, path, axes in rows}
    return tree.unflatten({path: leaf.astype(np.float32, copy=False) for path, leaf in leaves.items()})


def split_fused(state: State) -> State:
    """Cut torch's fused `in_proj_weight` [3 D, D] and `in_proj_bias` [3 D] into query, key and value."""
    out: State = {}
    for name, leaf in state.items():
        stem, _, kind = name.rpartition(".in_proj_")
        if stem and leaf.ndim and leaf.shape[0] % 3 == 0:
            parts = zip(("query", "key", "value"), np.split(leaf, 3), strict=True)
            out |= {f"{stem}.{part}.{kind}": array for part, array in parts}
        else:
            out[name] = leaf
    return out


def expand(layout: list[Row], leaves: Mapping[str, Any]) -> list[Row]:
    """Write out the rows of every block that the leaves mention, up to the highest number found.

    >>> expand([("a.{i}.b", "x_{i}", None)], {"a.1.b": 0})
    [('a.0.b', 'x_0', None), ('a.1.b', 'x_1', None)]
    """
    rows = [row for row in layout if "{i}" not in row[0]]
    for stem in dict.fromkeys(name.partition("{i}")[0] for name, _, _ in layout if "{i}" in name):
        pattern = re.compile(re.escape(stem) + r"(\d{1,3})(?!\d)")
        depth = max((int(match[1]) + 1 for name in leaves if (match := pattern.match(name))), default=1)
        of_stem = [row for row in layout if row[0].startswith(stem + "{i}")]
        rows += [(a.format(i=i), b.format(i=i), axes) for i in range(depth) for a, b, axes in of_stem]
    return rows


def transpose(leaf: Any, axes: Axes, name: str) -> np.ndarray:
    """Return the leaf, contiguous, with the axes in the given order."""
    leaf = np.asarray(leaf)
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        raise UserError(f"The weights have {name!r} as {leaf.dtype}; give floating-point weights, not quantised ones.")
    if axes is not None and leaf.ndim != len(axes):
        raise UserError(
            f"The weights have {name!r} with {leaf.ndim} axes and not {len(axes)}; give unmodified weights."
        )
    return np.asarray(leaf if axes is None else leaf.transpose(axes), order="C")
