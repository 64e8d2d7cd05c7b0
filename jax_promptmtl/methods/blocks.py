"""Building blocks that methods share: free tokens, linear maps, the bottleneck adapter, and their initial values."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jax_promptmtl.models.layers.transformer import ACTIVATIONS

Array = jax.Array
Initializer = jax.nn.initializers.Initializer
VPT_PATCH = 16  # VPT draws its prompts for patches of 16 x 16 pixels and 3 channels
ADAPTER_INIT = nn.initializers.truncated_normal(1e-3)  # near the identity; adapter-bert `modeling.py`


def vpt_uniform(key: Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike = jnp.float32) -> Array:
    """Draw prompts [P, D] as VPT does: uniform in +-sqrt(6 / (3 * 16 * 16 + D)).

    >>> bool(abs(vpt_uniform(jax.random.key(0), (9, 64))).max() < (6 / 832) ** 0.5)
    True
    """
    bound = (6 / (3 * VPT_PATCH**2 + shape[-1])) ** 0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def torch_uniform(inputs: int) -> nn.initializers.Initializer:
    """Return the initialiser of torch's `nn.Linear`, weights and bias alike: U(-1/sqrt(inputs), 1/sqrt(inputs)).

    >>> values = torch_uniform(4)(jax.random.key(0), (100,))
    >>> bool((abs(values) <= 0.5).all() and abs(values).max() > 0.45)
    True
    """
    bound = 1 / math.sqrt(inputs)
    return lambda key, shape, dtype=float: jax.random.uniform(key, shape, dtype, -bound, bound)


class LinearStack(nn.Module):
    """Map the tokens of each layer with that layer's own matrix.

    Attributes:
      features: output width.
      use_bias: whether to add a bias per layer.
    """

    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return float[K, P, features] of float[K, P, D]."""
        layers, _, width = x.shape
        init = torch_uniform(width)
        y = x @ self.param("kernel", init, (layers, width, self.features))
        return y + self.param("bias", init, (layers, self.features))[:, None] if self.use_bias else y


class Tokens(nn.Module):
    """The tokens of one tower, float[K, P, D]."""

    layers: int
    length: int
    width: int
    std: float

    @nn.compact
    def __call__(self) -> Array:
        """Return the parameter itself."""
        return self.param("tokens", nn.initializers.normal(self.std), (self.layers, self.length, self.width))


class Affine(nn.Module):
    """The kernel [D, features] and bias [features] of an affine map."""

    features: int
    kernel_init: Initializer = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(self, width: int) -> tuple[Array, Array]:
        """Return the two parameters."""
        kernel = self.param("kernel", self.kernel_init, (width, self.features))
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


class Adapter(nn.Module):
    """Houlsby adapter: x + W_up gelu(W_down x + b) + b', near the identity at the start.

    Attributes:
      rank: r, the width inside.
    """

    rank: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map float[..., D]."""
        down, bias = Affine(self.rank, ADAPTER_INIT, name="down")(x.shape[-1])
        up, shift = Affine(x.shape[-1], ADAPTER_INIT, name="up")(self.rank)
        return x + ACTIVATIONS["gelu"](x @ down + bias) @ up + shift
