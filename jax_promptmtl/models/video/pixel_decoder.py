"""Mask2Former's pixel decoder: a deformable encoder over three maps of a frame, and one upsampling step.

After facebookresearch/Mask2Former `pixel_decoder/msdeformattn.py`. The split of DVIS is inside the encoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jax_promptmtl.models.layers import plane
from jax_promptmtl.models.layers.deformable import DeformableEncoder, Shapes, Span, grids
from jax_promptmtl.models.layers.transformer import Linear
from jax_promptmtl.models.video.mask_decoder import positions

Array = jax.Array


@dataclass(frozen=True)
class PixelDecoderConfig:
    """Sizes of a pixel decoder; the defaults are those of Mask2Former.

    Attributes:
      width: channels D.
      heads: attention heads.
      points: sampled points per head and map.
      inner: width inside the encoder's MLPs.
      layers: encoder layers.
      levels: number of maps in the encoder, of strides 32, 16 and 8.
      groups: of the GroupNorms.
      mask_width: channels of the mask features.
    """

    width: int = 256
    heads: int = 8
    points: int = 4
    inner: int = 1024
    layers: int = 6
    levels: int = 3
    groups: int = 32
    mask_width: int = 256


class PixelDecoder(nn.Module):
    """The encoder with its input and output layers.

    >>> config = PixelDecoderConfig(width=8, heads=2, inner=16, layers=2, levels=2, groups=2, mask_width=4)
    >>> maps = [jnp.zeros((3, size, size, channels)) for size, channels in ((2, 6), (4, 5), (8, 4))]
    >>> levels, features = jax.eval_shape(PixelDecoder(config).init_with_output, jax.random.key(0), maps)[0]
    >>> [level.shape for level in levels], features.shape
    ([(3, 2, 2, 8), (3, 4, 4, 8)], (3, 8, 8, 4))
    """

    config: PixelDecoderConfig

    def setup(self) -> None:
        c = self.config
        self.project = [Linear(c.width) for _ in range(c.levels)]
        self.project_norm = [group_norm(c.groups) for _ in range(c.levels)]
        self.level = self.param("level", nn.initializers.normal(1.0), (c.levels, c.width))
        self.encoder = DeformableEncoder(c.layers, c.heads, c.levels, c.points, c.inner)
        self.lateral, self.lateral_norm = Linear(c.width, use_bias=False), group_norm(c.groups)
        self.smooth, self.smooth_norm = nn.Conv(c.width, (3, 3), use_bias=False), group_norm(c.groups)
        self.features = Linear(c.mask_width)

    def begin(self, maps: Sequence[Array]) -> Array:
        """Return the encoder's tokens float[F, N, D] of maps float[F, h_i, w_i, C_i], coarse to fine."""
        layers = zip(maps, self.project, self.project_norm, strict=True)
        return jnp.concatenate([rearrange(norm(project(x)), "f h w d -> f (h w) d") for x, project, norm in layers], 1)

    def encode(
        self,
        tokens: Array,
        shapes: Shapes,
        prompts: Array | None = None,
        start: int = 0,
        stop: int | None = None,
        leave: int | None = None,
    ) -> Array:
        """Run encoder layers `start` to `stop` with prompts float[F, P, D]; see `DeformableEncoder`."""
        places = [positions(*shape, self.config.width) + self.level[i] for i, shape in enumerate(shapes)]
        place = jnp.broadcast_to(jnp.concatenate(places), tokens.shape)
        no_padding = jnp.ones(tokens.shape[:2], bool)  # upstream does not mask the padding of a batch either
        return self.encoder(tokens, place, no_padding, shapes, prompts, Span(start, stop, leave))

    def finish(self, tokens: Array, shapes: Shapes, fine: Array) -> tuple[list[Array], Array]:
        """Return the maps for the mask decoder, and the mask features.

        Args:
          tokens: float[F, N, D], of the encoder.
          shapes: of their maps.
          fine: float[F, h, w, C], the map of stride 4.

        Returns:
          float[F, h_i, w_i, D] of every level, and float[F, h, w, M].
        """
        maps = grids(tokens, shapes)
        coarse = plane.resize(jnp.moveaxis(maps[-1], -1, 1), *fine.shape[1:3])
        x = self.lateral_norm(self.lateral(fine)) + jnp.moveaxis(coarse, 1, -1)
        return maps, self.features(nn.relu(self.smooth_norm(self.smooth(x))))

    def __call__(self, maps: Sequence[Array]) -> tuple[list[Array], Array]:
        """Return the levels and the mask features of maps float[F, h_i, w_i, C_i], coarse to fine; see `finish`."""
        *coarse, fine = maps
        shapes = shapes_of(coarse)
        return self.finish(self.encode(self.begin(coarse), shapes), shapes, fine)


def group_norm(groups: int) -> nn.GroupNorm:
    """Return torch's GroupNorm over the last axis."""
    return nn.GroupNorm(groups, epsilon=1e-5, use_fast_variance=False)


def shapes_of(maps: Sequence[Array]) -> list[tuple[int, int]]:
    """Return the rows and columns of maps [F, h, w, D]."""
    return [(x.shape[1], x.shape[2]) for x in maps]
