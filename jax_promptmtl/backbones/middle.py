"""The seam in every video backbone: what its lower half hands to its upper half, and the handle that carries both."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

Array = jax.Array


class Middle(NamedTuple):
    """The state of a frozen backbone between its halves; a pytree, so it can be cached, batched and differentiated.

    Attributes:
      tokens: float[B, N, D], E_middle of DLM-VMTL.
      mask: bool[B, N], false where a token is padding.
      carry: pytree of arrays, all else that the upper half needs; () where it needs nothing.
    """

    tokens: Array
    mask: Array
    carry: Any = ()


@dataclass(frozen=True)
class VideoBackbone:
    """A loaded video model, cut in two; `upper(params, lower(params, inputs), None)` is the unsplit model bit for bit.

    Attributes:
      name: what reports call it.
      dim: width D of the middle tokens.
      depth: number of layers that count for the cut.
      middle: layers in the lower half, depth // 2 unless told otherwise.
      params: nested dict of arrays, frozen.
      lower: (params, inputs) -> Middle.
      upper: (params, middle, prompts float[B, P, D], float[1, P, D] or None) -> outputs of the task.
    """

    name: str
    dim: int
    depth: int
    middle: int
    params: Mapping[str, Any]
    lower: Callable[[Any, Any], Middle]
    upper: Callable[[Any, Middle, Array | None], Any]
