"""Mask2Former's transformer decoder: queries that each predict a class and a mask from the feature maps of a frame.

After facebookresearch/Mask2Former `mask2former_transformer_decoder.py`: every layer attends to one level of the maps,
within the mask predicted by the previous layer, then among the queries; the heads run before the first layer and after
each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jax_promptmtl.models.layers import plane
from jax_promptmtl.models.layers.deformable import sine_position
from jax_promptmtl.models.layers.post_norm import Attend, FeedForward, Perceptron
from jax_promptmtl.models.layers.transformer import LayerNorm, Linear

Array = jax.Array


@dataclass(frozen=True)
class MaskDecoderConfig:
    """Sizes of a mask decoder; the defaults are those of YouTube-VIS 2019 with a ResNet-50.

    Attributes:
      width: channels D of queries and maps.
      heads: attention heads.
      inner: width inside the feed-forward layers.
      layers: number of layers K.
      queries: number of queries Q.
      levels: feature maps that the layers take in turns, coarse to fine.
      mask_width: channels of the features that masks are made of.
      classes: labels C, without "no object".
    """

    width: int = 256
    heads: int = 8
    inner: int = 2048
    layers: int = 9
    queries: int = 100
    levels: int = 3
    mask_width: int = 256
    classes: int = 40


class Segments(NamedTuple):
    """Predictions for F frames, before the first layer and after each of K.

    Attributes:
      logits: float[K + 1, F, Q, C + 1]; the last class is "no object".
      masks: float[K + 1, F, Q, h, w], logits.
      queries: float[F, Q, D], after the last layer and its norm.
    """

    logits: Array
    masks: Array
    queries: Array


class MaskHeads(nn.Module):
    """The norm of queries and their heads: a class and, with a frame's mask features, a mask."""

    width: int
    mask_width: int
    classes: int

    def setup(self) -> None:
        self.norm = LayerNorm()
        self.classify = Linear(self.classes + 1)
        self.embed = Perceptron((self.width, self.width, self.mask_width))

    def masks(self, normal: Array, features: Array) -> Array:
        """Return logits float[..., Q, h, w] of normalised queries [..., Q, D] and features [..., h, w, M]."""
        return jnp.einsum("...qm,...hwm->...qhw", self.embed(normal), features)

    def __call__(self, queries: Array, features: Array) -> tuple[Array, Array]:
        """Return logits float[..., Q, C + 1] and masks float[..., Q, h, w]."""
        normal = self.norm(queries)
        return self.classify(normal), self.masks(normal, features)


class MaskDecoderLayer(nn.Module):
    """Attention to a map, attention among the queries, feed-forward."""

    config: MaskDecoderConfig

    def setup(self) -> None:
        c = self.config
        self.cross, self.own = Attend(c.width, c.heads), Attend(c.width, c.heads)
        self.feed = FeedForward(c.inner)

    def __call__(
        self, x: Array, place: Array, memory: Array, memory_place: Array, seen: Array, prompts: Array
    ) -> tuple[Array, Array]:
        """Return the queries float[F, Q, D] and the prompts float[F, P, D], which only take part among the queries.

        Args:
          x: float[F, Q, D].
          place: float[Q, D], the learned positions of the queries.
          memory: float[F, N, D], the tokens of a map.
          memory_place: float[N, D], their positions.
          seen: bool[F, Q, N].
          prompts: float[F, P, D].
        """
        x = self.cross(x, x + place, memory + memory_place, memory, seen)
        both, key = (jnp.concatenate([part, prompts], axis=1) for part in (x, x + place))
        both = self.feed(self.own(both, key, key, both))
        return both[:, : x.shape[1]], both[:, x.shape[1] :]


class MaskDecoder(nn.Module):
    """The decoder and its heads.

    >>> config = MaskDecoderConfig(width=8, heads=2, inner=16, layers=2, queries=5, levels=1, mask_width=4, classes=3)
    >>> maps, features = [jnp.zeros((2, 3, 3, 8))], jnp.zeros((2, 6, 6, 4))
    >>> found, _ = jax.eval_shape(MaskDecoder(config).init_with_output, jax.random.key(0), maps, features)
    >>> found.logits.shape, found.masks.shape, found.queries.shape
    ((3, 2, 5, 4), (3, 2, 5, 6, 6), (2, 5, 8))
    """

    config: MaskDecoderConfig

    def setup(self) -> None:
        c, normal = self.config, nn.initializers.normal(1.0)
        self.query = self.param("query", normal, (c.queries, c.width))
        self.place = self.param("place", normal, (c.queries, c.width))
        self.level = self.param("level", normal, (c.levels, c.width))
        self.blocks = [MaskDecoderLayer(c) for _ in range(c.layers)]
        self.say = MaskHeads(c.width, c.mask_width, c.classes)

    def __call__(self, maps: Sequence[Array], features: Array, prompts: Array | None = None) -> Segments:
        """Decode frames.

        Args:
          maps: of every level float[F, h_i, w_i, D], coarse to fine.
          features: float[F, h, w, M], of which masks are made.
          prompts: float[F, P, D], which join the queries from layer K // 2 on and have no predictions.
        """
        sizes = [(level.shape[1], level.shape[2]) for level in maps]
        memory = [rearrange(level, "f h w d -> f (h w) d") + self.level[i] for i, level in enumerate(maps)]
        places = [positions(*size, self.config.width) for size in sizes]
        x = jnp.broadcast_to(self.query, (len(features), *self.query.shape))
        given, said = x[:, :0], [self.say(x, features)]
        for k, block in enumerate(self.blocks):
            i = k % len(maps)
            given = prompts if prompts is not None and k == self.config.layers // 2 else given
            x, given = block(x, self.place, memory[i], places[i], shown(said[-1][1], *sizes[i]), given)
            said.append(self.say(x, features))
        logits, masks = (jnp.stack(part) for part in zip(*said, strict=True))
        return Segments(logits, masks, self.say.norm(x))


def positions(height: int, width: int, channels: int) -> Array:
    """Return the positions of the cells of a map without padding, float[height width, channels]; DETR's, not shifted.

    >>> positions(2, 3, 8).shape
    (6, 8)
    """
    return sine_position(jnp.ones((1, height, width), bool), channels, shift=0.0).reshape(height * width, channels)


def shown(masks: Array, height: int, width: int) -> Array:
    """Return the attention mask bool[F, Q, height width]: within a query's mask, or everywhere if that is empty.

    Args:
      masks: logits float[F, Q, h, w].
      height, width: of the attended map.

    >>> shown(jnp.array([[[[1.0, -1.0]], [[-1.0, -1.0]]]]), 1, 2).tolist()
    [[[True, False], [True, True]]]
    """
    small = plane.resize(jax.lax.stop_gradient(masks), height, width)
    inside = rearrange(jax.nn.sigmoid(small) >= 0.5, "f q h w -> f q (h w)")
    return inside | ~inside.any(axis=-1, keepdims=True)
