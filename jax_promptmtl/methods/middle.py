"""Methods at the split layer of a video backbone without auxiliaries: free prompts and a token adapter.

With split layer 0, free prompts are VPT-shallow; initialised from saved prompts they are static inference.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.methods.blocks import Adapter, vpt_uniform
from jax_promptmtl.methods.method import Method, Prompts


class MiddlePrompts(Method):
    """Learn free prompts, the same for every video.

    Attributes:
      primary_dim: D_pri.
      middle: split layer, before which the prompts enter.
      num_prompts: P.
    """

    primary_dim: int
    middle: int
    num_prompts: int

    @nn.compact
    def __call__(self, context: None = None) -> Prompts:
        """Return {"primary": {middle: float[P, D_pri]}}."""
        if self.num_prompts < 1:
            raise UserError(f"num_prompts is {self.num_prompts}; give at least 1, or the method 'none'.")
        shape = (self.num_prompts, self.primary_dim)
        return {"primary": {self.middle: self.param("tokens", vpt_uniform, shape)}}


class MiddleAdapter(Method):
    """Adapt the primary's middle tokens instead of prompting them; 2 D r + r + D parameters.

    Attributes:
      primary_dim: D_pri.
      rank: r; `rank_of_size` matches the parameter count of another method.
    """

    primary_dim: int
    rank: int

    def setup(self) -> None:
        """Create the adapter."""
        self.adapter = Adapter(self.rank)

    @property
    def adapts(self) -> tuple[str, ...]:
        """Return ("primary",)."""
        return ("primary",)

    def __call__(self, context: None = None) -> Prompts:
        """Return {}: no prompts; `adapt` changes the tokens."""
        self.adapter(jnp.zeros((1, self.primary_dim)))  # creates the parameters
        return {}

    def adapt(self, tower: str, features: jax.Array) -> jax.Array:
        """Adapt the tokens float[..., D_pri]."""
        return self.adapter(features)


def rank_of_size(size: int, width: int) -> int:
    """Return the rank whose adapter is nearest to `size` parameters.

    >>> rank_of_size(99_136, 768)
    64
    """
    return max(round((size - width) / (2 * width + 1)), 1)
