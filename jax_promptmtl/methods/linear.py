"""Linear maps with torch's initial values, one per layer of a tower."""

import math

import flax.linen as nn
import jax


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
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return float[K, P, features] of float[K, P, D]."""
        layers, _, width = x.shape
        init = torch_uniform(width)
        y = x @ self.param("kernel", init, (layers, width, self.features))
        return y + self.param("bias", init, (layers, self.features))[:, None] if self.use_bias else y
