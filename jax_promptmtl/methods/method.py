"""The base class of methods: a Linen module that returns prompts and may adapt the features of a tower."""

from collections.abc import Mapping

import flax.linen as nn
import jax

from jax_promptmtl.core.errors import UserError

Prompts = dict[str, dict[int, jax.Array]]


class Method(nn.Module):
    """Return prompts, `method(context) -> {tower: {layer: tokens}}`; leave features alone unless `adapts` names them.

    A constructor gets `towers` ({tower: (layers, width)}) and `embed_dim` if it declares them as fields. `init` runs
    only `__call__`, which must therefore create every parameter.
    """

    @property
    def adapts(self) -> tuple[str, ...]:
        """Return the towers whose features `adapt` changes; it is not called for others."""
        return ()

    def adapt(self, tower: str, features: jax.Array) -> jax.Array:
        """Return the adapted features float[..., E] of a tower, before normalisation."""
        del tower
        return features


def check_depth(depth: int, towers: Mapping[str, tuple[int, int]]) -> None:
    """Refuse prompts for layers that a tower does not have.

    Args:
      depth: number of layers, from the first on, that get prompts of their own.
      towers: tower -> (layers, width).
    """
    for tower, (layers, _) in towers.items():
        if not 1 <= depth <= layers:
            raise UserError(f"The prompts' depth {depth} does not fit the {tower} tower; give 1 to {layers} layers.")
