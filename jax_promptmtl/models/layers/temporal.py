"""Convolution and normalisation along time, for padded sequences with prompts."""

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


class TimeConv(nn.Module):
    """Convolution of width 3 along time with zeros outside; a prompt is a step without neighbours.

    Attributes:
      features: output width.
      dilation: steps between taps.
      stride: steps between outputs, the first at step 0.
      depthwise: whether the convolution is depthwise; `features` is then the input width.
      use_bias: whether to add a bias.
      bias: its initial value.
    """

    features: int
    dilation: int = 1
    stride: int = 1
    depthwise: bool = False
    use_bias: bool = True
    bias: float = 0.0

    @nn.compact
    def __call__(self, x: Array, mask: Array, prompts: Array) -> tuple[Array, Array]:
        """Convolve.

        Args:
          x: float[B, L, D]; values at padding have no influence.
          mask: bool[B, L].
          prompts: float[B, P, D].

        Returns:
          float[B, ceil(L / stride), features] and float[B, P, features].
        """
        width = x.shape[-1]
        fan_in, inner = (3, 1) if self.depthwise else (3 * width, width)
        init = nn.initializers.uniform(2 * fan_in**-0.5)
        kernel = self.param("kernel", lambda *a: init(*a) - fan_in**-0.5, (3, inner, self.features))
        x = jnp.where(mask[..., None], x, 0).astype(kernel.dtype)
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(self.stride,),
            padding=[(self.dilation, self.dilation)],
            rhs_dilation=(self.dilation,),
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=width if self.depthwise else 1,
        )
        p = prompts * kernel[1, 0] if self.depthwise else prompts @ kernel[1]
        if self.use_bias:
            bias = self.param("bias", nn.initializers.constant(self.bias), (self.features,))
            y, p = y + bias, p + bias
        return y, p


def instance_norm(x: Array, mask: Array, prompts: Array, epsilon: float = 1e-5) -> tuple[Array, Array]:
    """Normalise every channel by its mean and variance over the steps that are not padding.

    Prompts are normalised by the mean and variance over steps and prompts together, so that they stay bounded where a
    channel is constant over steps, as many are behind a ReLU: with the variance of steps alone such a channel would
    scale prompts by up to 1 / sqrt(epsilon) in every layer.

    Args:
      x: float[B, L, D].
      mask: bool[B, L], with at least one true per example.
      prompts: float[B, P, D].
      epsilon: added to the variance.

    Returns:
      float[B, L, D] and float[B, P, D].

    >>> x, prompts = jnp.array([[[1.0], [3.0], [9.0]]]), jnp.array([[[2.0]]])
    >>> normal, same = instance_norm(x, jnp.array([[True, True, False]]), prompts)
    >>> normal[0, :2, 0].round(3).tolist(), same[0, 0, 0].tolist()
    ([-1.0, 1.0], 0.0)
    """
    mean, scale = moments(x, mask, epsilon)
    if not prompts.shape[1]:
        return (x - mean) * scale, prompts
    both = jnp.concatenate([x, prompts], axis=1)
    shown = jnp.concatenate([mask, jnp.ones(prompts.shape[:2], bool)], axis=1)
    mean_p, scale_p = moments(both, shown, epsilon)
    return (x - mean) * scale, (prompts - mean_p) * scale_p


def moments(x: Array, mask: Array, epsilon: float) -> tuple[Array, Array]:
    """Return mean and 1 / standard deviation of every channel over the masked-in steps, float[B, 1, D] each."""
    weight = mask[..., None].astype(x.dtype)
    count = weight.sum(axis=1, keepdims=True)
    mean = jnp.where(weight > 0, x, 0).sum(axis=1, keepdims=True) / count
    variance = jnp.where(weight > 0, (x - mean) ** 2, 0).sum(axis=1, keepdims=True) / count
    return mean, jax.lax.rsqrt(variance + epsilon)


def max_pool(x: Array, mask: Array, stride: int) -> Array:
    """Return the maximum over a window of three unpadded steps around every `stride`-th step.

    Args:
      x: float[B, L, D].
      mask: bool[B, L].
      stride: steps between outputs; 1 returns the input.

    Returns:
      float[B, ceil(L / stride), D], arbitrary where step `stride * t` is padding.

    >>> max_pool(jnp.array([[[1.0], [3.0], [2.0], [9.0]]]), jnp.array([[True, True, True, False]]), 2)[0, :, 0].tolist()
    [3.0, 3.0]
    """
    if stride == 1:
        return x
    seen = jnp.where(mask[..., None], x, -jnp.inf)
    result: Array = jax.lax.reduce_window(
        seen, -jnp.inf, jax.lax.max, (1, 3, 1), (1, stride, 1), ((0, 0), (1, 1), (0, 0))
    )
    return result
