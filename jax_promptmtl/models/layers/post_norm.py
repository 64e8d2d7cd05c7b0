"""Post-norm residual layers of DETR and its descendants, and a perceptron head."""

import flax.linen as nn
import jax

from jax_promptmtl.models.layers.transformer import Attention, KeyValues, LayerNorm, Linear

Array = jax.Array


class Attend(nn.Module):
    """LayerNorm of a residual stream plus attention of queries, which may differ from the stream."""

    width: int
    heads: int

    def setup(self) -> None:
        self.attn = Attention(self.width, self.heads)
        self.norm = LayerNorm()

    def __call__(self, stream: Array, query: Array, key: Array, value: Array, mask: Array | None = None) -> Array:
        """Return float[B, N, D].

        Args:
          stream: float[B, N, D], to which the result is added.
          query: float[B, N, D].
          key: float[B, M, D].
          value: float[B, M, D].
          mask: bool[B, N, M], true where a query attends to a key, at least one per query; everywhere if None.
        """
        own = KeyValues(self.attn.key(key), self.attn.value(value))
        result: Array = self.norm(stream + self.attn(query, own, mask=mask))
        return result


class FeedForward(nn.Module):
    """LayerNorm of a residual stream plus two affine maps with a ReLU between them, `inner` wide inside."""

    inner: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        hidden = nn.relu(Linear(self.inner, name="fc")(x))
        result: Array = LayerNorm(name="norm")(x + Linear(x.shape[-1], name="proj")(hidden))
        return result


class Perceptron(nn.Module):
    """Affine maps with ReLUs between them.

    >>> import jax.numpy as jnp
    >>> Perceptron((4, 4, 2)).init_with_output(jax.random.key(0), jnp.zeros((3, 5)))[0].shape
    (3, 2)
    """

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i, width in enumerate(self.widths):
            x = Linear(width, name=f"layers_{i}")(nn.relu(x) if i else x)
        return x
