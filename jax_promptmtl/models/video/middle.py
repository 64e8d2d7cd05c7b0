"""The split of a video backbone: the state between its lower and upper half, and the handle on both."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.outline import outline

Array = jax.Array


class Middle(NamedTuple):
    """The state of a frozen backbone between its halves; a pytree, so it can be cached, batched and differentiated.

    Attributes:
      tokens: float[B, N, D], E_middle of DLM-VMTL.
      mask: bool[B, N], false where a token is padding.
      carry: pytree of arrays with everything else that the upper half needs; () if nothing.
    """

    tokens: Array
    mask: Array
    carry: Any = ()


@dataclass(frozen=True)
class VideoBackbone:
    """A loaded video model, cut in two; `upper(params, lower(params, inputs), None)` is the unsplit model bit for bit.

    Attributes:
      name: in reports.
      dim: width D of the middle tokens.
      depth: number of layers among which to split.
      middle: split layer: layers in the lower half, depth // 2 by default.
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
    __repr__ = outline


@dataclass(frozen=True)
class Cut:
    """The split layer of a model, and how many layers see prompts.

    Attributes:
      middle: layers in the lower half; half the depth when `None`.
      drop_after: layers that see the prompts; all of the upper half if 0.
    """

    middle: int | None = None
    drop_after: int = 0


IN_HALF = Cut()


def halves(
    name: str,
    dim: int,
    depth: int,
    params: Mapping[str, Any],
    lower: Callable[[int, Any, Any], Middle],
    upper: Callable[[int, int, Any, Middle, Array | None], Any],
    cut: Cut = IN_HALF,
) -> VideoBackbone:
    """Return a model split in two halves.

    Args:
      name, dim, depth, params: see `VideoBackbone`.
      lower: (middle, params, inputs) -> middle state.
      upper: (middle, leave, params, middle state, prompts) -> outputs; prompts leave before layer `leave`, which is the
        depth where all upper layers see them.
      cut: see there.

    Raises:
      UserError: a split outside the model, or more layers with prompts than above the split.
    """
    middle, drop_after = layers_below(depth, cut.middle), cut.drop_after
    if not 0 <= drop_after <= depth - middle:
        raise UserError(
            f"drop_after is {drop_after}, and {depth - middle} layers of {name!r} are above the prompts; give 1 to "
            f"{depth - middle}, or 0 to keep them."
        )
    leave = middle + drop_after if drop_after else depth
    return VideoBackbone(name, dim, depth, middle, params, partial(lower, middle), partial(upper, middle, leave))


def layers_below(depth: int, middle: int | None) -> int:
    """Return the split layer: `middle` if legal, half the depth if None.

    >>> layers_below(7, None)
    3
    """
    if middle is None:
        return depth // 2
    if not 0 <= middle < depth:
        raise UserError(f"The middle {middle} lies outside the backbone; give 0 to {depth - 1} layers below it.")
    return middle


def read_features(inputs: Mapping[str, Array], width: int, length: int | None = None) -> tuple[Array, Array]:
    """Return features float[B, L, width] and their mask bool[B, L].

    Args:
      inputs: {features, mask}.
      width: expected.
      length: expected L; any if `None`.

    Raises:
      UserError: other shapes.
    """
    features, mask = inputs["features"], inputs["mask"]
    steps = features.shape[1] if length is None and features.ndim == 3 else length
    if features.ndim != 3 or features.shape[1:] != (steps, width) or mask.shape != features.shape[:2]:
        wanted = "frames" if length is None else length
        raise UserError(
            f"Features of shape {features.shape} with a mask of shape {mask.shape} do not fit; "
            f"give [videos, {wanted}, {width}] and [videos, {wanted}]."
        )
    return features, mask


def until(prompts: Array | None, middle: int, leave: int, depth: int) -> dict[int, Array] | None:
    """Return prompts [B or 1, P, D] by layer: they enter before layer `middle` and leave before layer `leave`.

    >>> {layer: tokens.shape for layer, tokens in until(jax.numpy.zeros((1, 2, 4)), 3, 5, 6).items()}
    {3: (1, 2, 4), 5: (1, 0, 4)}
    """
    if prompts is None:
        return None
    return {middle: prompts} | ({leave: prompts[:, :0]} if leave < depth else {})


def draw(model: nn.Module, inputs: tuple[Any, ...], seed: int) -> Any:
    """Initialise a model from inputs of any legal shape."""
    return initialiser(model)(jax.random.key(seed), *inputs)["params"]


@cache
def initialiser(model: nn.Module) -> Any:
    """Return the compiled initialiser of a model, cached so that training and tests get equal parameters."""
    return jax.jit(model.init)
