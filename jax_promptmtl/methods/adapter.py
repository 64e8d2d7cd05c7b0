"""CLIP-Adapter: a bottleneck on the features of a frozen tower, mixed with the features themselves (arXiv 2110.04544).

After gaopengcuhk/CLIP-Adapter `clip_adapter.py`, which has the image side only; the text side follows the paper.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.methods.blocks import torch_uniform
from jax_promptmtl.methods.method import Method, Prompts

SIDES = {"image": ("image",), "text": ("text",), "both": ("image", "text")}


class Bottleneck(nn.Module):
    """Two linear maps, E -> hidden -> E, each followed by ReLU."""

    hidden: int
    bias: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map float[..., E] to float[..., E]."""
        for name, features in (("down", self.hidden), ("up", x.shape[-1])):
            init = torch_uniform(x.shape[-1])
            x = nn.relu(nn.Dense(features, self.bias, kernel_init=init, bias_init=init, name=name)(x))
        return x


class FeatureAdapter(Method):
    """Replace the features f of a tower by ratio * A(f) + (1 - ratio) * f, before normalisation.

    Parameters: 2 E (E / reduction) per side, and E + E / reduction more with biases; one subtree per side.

    Attributes:
      embed_dim: width of the features, E.
      side: image, text or both.
      ratio: weight of the bottleneck's output.
      reduction: E / hidden width.
      bias: whether the maps have biases.
    """

    embed_dim: int
    side: str = "image"
    ratio: float = 0.2
    reduction: int = 4
    bias: bool = False

    @property
    def adapts(self) -> tuple[str, ...]:
        """Return the towers of the side."""
        return SIDES[pick(self.side, SIDES, "side of the adapter")]

    def __call__(self, context: None = None) -> Prompts:
        """Return {}: no prompts."""
        if self.is_initializing():
            for tower in self.adapts:
                self.adapt(tower, jnp.zeros(self.embed_dim))
        return {}

    @nn.compact
    def adapt(self, tower: str, features: jax.Array) -> jax.Array:
        """Return the mixed features of a tower, float[..., E]."""
        hidden, rest = divmod(self.embed_dim, self.reduction)
        if rest:
            raise UserError(f"The adapter's reduction {self.reduction} must divide the embedding {self.embed_dim}.")
        changed = Bottleneck(hidden, self.bias, name=tower)(features)
        return self.ratio * changed + (1 - self.ratio) * features
