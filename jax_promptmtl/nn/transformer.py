"""The pre-norm transformer of CLIP and ViT, and the one insertion rule that every prompt method uses.

Numerics follow openai/CLIP `clip/model.py`: LayerNorm epsilon 1e-5 in float32, QuickGELU or exact GELU. Matrix products
run in the dtype of their kernel; the residual stream, LayerNorm and softmax stay float32.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

Array = jax.Array
LayerPrompts = Mapping[int, Array]  # layer -> [P, D] for all examples, or [B, P, D]

ACTIVATIONS = {
    # The tanh form of x * sigmoid(1.702 x) is the same function and faster on CPUs.
    "quick_gelu": lambda x: x * (0.5 + 0.5 * jnp.tanh(0.851 * x)),
    "gelu": lambda x: nn.gelu(x, approximate=False),
}


def insert(x: Array, tokens: Array, at: int, width: int) -> Array:
    """Replace the `width` tokens of the slot at position `at` by `tokens`.

    Args:
      x: float[B, N, D].
      tokens: float[P, D], or float[B, P, D].
      at: first position of the slot.
      width: number of tokens in the slot now.

    Returns:
      float[B, N - width + P, D].

    >>> insert(jnp.zeros((2, 5, 3)), jnp.ones((4, 3)), at=1, width=0).shape
    (2, 9, 3)
    """
    tokens = jnp.broadcast_to(tokens, (x.shape[0], *tokens.shape[-2:])).astype(x.dtype)
    return jnp.concatenate([x[:, :at], tokens, x[:, at + width :]], axis=1)


def causal_mask(length: int) -> Array:
    """Return bool[length, length], true where the row may attend to the column.

    >>> causal_mask(2).tolist()
    [[True, False], [True, True]]
    """
    return jnp.tril(jnp.ones((length, length), bool))


class LayerNorm(nn.LayerNorm):
    """LayerNorm with CLIP's epsilon, always in float32."""

    epsilon: float = 1e-5
    dtype: jax.typing.DTypeLike = jnp.float32


class Linear(nn.Module):
    """Affine map `x @ kernel + bias` over the last axis, as one 2-D product (twice as fast on CPUs as a 3-D one).

    Attributes:
      features: output width.
      scale: factor on the initial standard deviation, which is fan_in ** -0.5.
    """

    features: int
    use_bias: bool = True
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = nn.initializers.normal(self.scale * x.shape[-1] ** -0.5)
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        y = x.reshape(-1, x.shape[-1]).astype(kernel.dtype) @ kernel
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,))
        return y.reshape(*x.shape[:-1], self.features)


class Attention(nn.Module):
    """Multi-head self-attention over [B, N, D]."""

    heads: int
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None) -> Array:
        width = x.shape[-1]
        query, key, value = (
            rearrange(Linear(width, name=name)(x), "b n (h c) -> (b h) n c", h=self.heads)
            for name in ("query", "key", "value")
        )
        logits = (query @ key.mT).astype(jnp.float32) * (width // self.heads) ** -0.5
        if mask is not None:
            logits = jnp.where(mask, logits, -jnp.inf)
        mixed = jax.nn.softmax(logits, axis=-1).astype(value.dtype) @ value
        return Linear(width, scale=self.scale, name="out")(rearrange(mixed, "(b h) n c -> b n (h c)", h=self.heads))


class Mlp(nn.Module):
    """Two affine maps with the activation between them, four times as wide inside."""

    activation: str
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        hidden = ACTIVATIONS[self.activation](Linear(4 * x.shape[-1], name="fc")(x))
        return Linear(x.shape[-1], scale=self.scale, name="proj")(hidden)


class Block(nn.Module):
    """One pre-norm residual block."""

    heads: int
    activation: str
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None) -> Array:
        x = x + Attention(self.heads, self.scale, name="attn")(LayerNorm(name="ln_1")(x), mask)
        return x + Mlp(self.activation, self.scale, name="mlp")(LayerNorm(name="ln_2")(x))


class Transformer(nn.Module):
    """A stack of blocks that accepts prompt tokens before any layer.

    The insertion rule: tokens given for layer k replace the prompt slot before layer k; a layer without an entry lets
    the slot flow on; `[0, D]` tokens empty it; on exit the slot is back to its entry width, so that positions after it
    (such as the end-of-text token) have not moved.
    """

    layers: int
    heads: int
    activation: str
    causal: bool = False

    @nn.compact
    def __call__(
        self,
        x: Array,
        prompts: LayerPrompts | None = None,
        *,
        at: int,
        width: int = 0,
        start: int = 0,
        stop: int | None = None,
    ) -> Array:
        """Run layers `start` to `stop`.

        Args:
          x: float[B, N, D], with `width` slot tokens from position `at` on.
          prompts: layer -> float[P, D] or float[B, P, D].
          at: position of the slot.
          width: slot tokens in `x` at entry.
          start: first layer to run.
          stop: layer to stop before; the depth when `None`.

        Returns:
          float[B, N, D].
        """
        prompts, slot = prompts or {}, width
        for k in range(start, self.layers if stop is None else stop):
            if k in prompts:
                x, slot = insert(x, prompts[k], at, slot), prompts[k].shape[-2]
            mask = causal_mask(x.shape[1]) if self.causal else None
            x = Block(self.heads, self.activation, (2 * self.layers) ** -0.5, name=f"blocks_{k}")(x, mask)
        if slot == width:
            return x
        kept = x[:, at : at + min(slot, width)]
        kept = jnp.pad(kept, ((0, 0), (0, width - kept.shape[1]), (0, 0)))
        return insert(x, kept, at, slot)
