"""ResNet with bottleneck blocks and frozen batch norms, folded into a scale and bias per channel.

After pytorch/vision `torchvision/models/resnet.py` with its `replace_stride_with_dilation`, which detectors call DC5
when it keeps the last stage at the rate of the one before: there the first block still has the dilation of the stage
before, the others have the new one.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax

Array = jax.Array


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes of a ResNet; the defaults are those of ResNet-50 DC5.

    Attributes:
      depths: blocks of every stage.
      width: channels of the stem; stage i has 4 * 2 ** i times as many.
      strides: of every stage.
      dilated: stages that are dilated instead of having their stride, such as (3,).
      stem: kernel size of the first convolution, whose stride is 2 with pooling and 1 without.
      pool: whether to max-pool by 2 after the stem.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    strides: tuple[int, ...] = (1, 2, 2, 2)
    dilated: tuple[int, ...] = (3,)
    stem: int = 7
    pool: bool = True

    @property
    def channels(self) -> int:
        """Return the width of the last stage."""
        result: int = 4 * self.width * 2 ** (len(self.depths) - 1)
        return result

    def shape_of(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of the map of an image, both rounded up at every halving.

        >>> ResNetConfig().shape_of(600, 1000)
        (38, 63)
        """
        return self.shapes_of(height, width)[-1]

    def shapes_of(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return rows and columns of the map of every stage; see `shape_of`.

        >>> ResNetConfig().shapes_of(600, 1000)
        [(150, 250), (75, 125), (38, 63), (38, 63)]
        """
        shapes = []
        for i, stride in enumerate(self.strides):
            stem = 4 if self.pool and i == 0 else 1  # two halvings, rounded up, are one quartering, rounded up
            step = stem * (1 if i in self.dilated else stride)
            height, width = -(-height // step), -(-width // step)
            shapes.append((height, width))
        return shapes


class Conv(nn.Module):
    """Convolution without bias and the frozen norm after it; zeros outside.

    Attributes:
      features: output channels.
      size: side of the kernel.
      stride: of both axes.
      dilation: cells between taps.
      scale: initial factor of the norm.
    """

    features: int
    size: int = 1
    stride: int = 1
    dilation: int = 1
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return float[B, ceil(h / stride), ceil(w / stride), features]."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        factor = self.param("scale", nn.initializers.constant(self.scale), (self.features,))
        summand = self.param("bias", nn.initializers.zeros, (self.features,))
        margin = self.dilation * (self.size // 2)
        y = jax.lax.conv_general_dilated(
            x.astype(kernel.dtype),
            kernel,
            window_strides=(self.stride, self.stride),
            padding=[(margin, margin)] * 2,
            rhs_dilation=(self.dilation, self.dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y * factor + summand


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside the identity, or beside a projection where the shapes differ."""

    inner: int
    stride: int
    dilation: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = nn.relu(Conv(self.inner, name="conv_1")(x))
        y = nn.relu(Conv(self.inner, 3, self.stride, self.dilation, name="conv_2")(y))
        y = Conv(4 * self.inner, scale=0.5, name="conv_3")(y)
        if x.shape != y.shape:
            x = Conv(4 * self.inner, stride=self.stride, name="shortcut")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Backbone from images to the map of the last stage, or of all stages.

    >>> config = ResNetConfig(depths=(1, 1), width=2, strides=(2, 2), dilated=(1,), stem=3, pool=False)
    >>> ResNet(config).init_with_output(jax.random.key(0), jax.numpy.zeros((3, 8, 6, 3)))[0].shape
    (3, 4, 3, 16)
    """

    config: ResNetConfig

    def __call__(self, images: Array) -> Array:
        """Return float[B, h, w, C] of normalised images float[B, H, W, 3]; see `ResNetConfig.shape_of`."""
        return self.maps(images)[-1]

    @nn.compact
    def maps(self, images: Array) -> list[Array]:
        """Return the map float[B, h, w, C] of every stage; see `ResNetConfig.shapes_of`."""
        c, maps = self.config, []
        x = nn.relu(Conv(c.width, c.stem, stride=2 if c.pool else 1, name="stem")(images))
        if c.pool:
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))  # type: ignore[no-untyped-call]
        dilation = 1
        for i, (depth, stride) in enumerate(zip(c.depths, c.strides, strict=True)):
            before = dilation
            if i in c.dilated:
                dilation, stride = dilation * stride, 1
            for j in range(depth):
                block = Bottleneck(c.width * 2**i, 1 if j else stride, dilation if j else before, name=f"block_{i}_{j}")
                x = block(x)
            maps.append(x)
        return maps
