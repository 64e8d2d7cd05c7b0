"""Single-scale Deformable DETR: the single-frame detector inside TransVOD.

After fundamentalvision/Deformable-DETR `models/deformable_{detr,transformer}.py` with one feature level (DC5): ResNet,
an affine map with GroupNorm, a deformable encoder, and a decoder whose layers refine the boxes of the previous one.
Every layer has its own heads and so gives detections. There is no dropout.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.layers.deformable import (
    DeformableAttention,
    DeformableEncoder,
    Span,
    sine_position,
    valid_ratios,
)
from jax_promptmtl.models.layers.transformer import Attention, KeyValues, LayerNorm, Linear
from jax_promptmtl.models.video.resnet import ResNet, ResNetConfig

Array = jax.Array
Shape = tuple[int, int]
PRIOR = 0.01  # initial probability of a class


@dataclass(frozen=True)
class DetectorConfig:
    """Sizes of a Deformable DETR; the defaults are those of TransVOD with ResNet-50 for ImageNet VID.

    Attributes:
      resnet: of the ResNet.
      width: channels D.
      heads: attention heads.
      points: sampled points per head.
      encoders: layers of the encoder.
      decoders: layers of the decoder.
      inner: width inside the MLPs.
      queries: boxes per frame Q.
      classes: number of classes C; upstream has one more than ImageNet VID, which is unused.
      groups: of the GroupNorm.
      refine: whether each decoder layer samples around the boxes of the previous one; else all around one point.
    """

    resnet: ResNetConfig = field(default_factory=ResNetConfig)
    width: int = 256
    heads: int = 8
    points: int = 4
    encoders: int = 6
    decoders: int = 6
    inner: int = 1024
    queries: int = 300
    classes: int = 31
    groups: int = 32
    refine: bool = True

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % self.groups or self.width % 4 or self.decoders < 1:
            raise UserError(
                f"A detector of width {self.width} with {self.heads} heads, {self.groups} groups and {self.decoders} "
                "decoder layers cannot be built; give a width that 4, the heads and the groups divide, and a decoder."
            )


class Decoded(NamedTuple):
    """State of the decoder between two layers; N frames.

    Attributes:
      content: float[N, Q, D].
      reference: points float[N, Q, 2] or boxes float[N, Q, 4] around which the next layer samples.
      logits: of every layer so far, float[N, Q, C].
      boxes: of every layer so far, float[N, Q, 4], centre x, y, width, height in [0, 1] of the unpadded frame.
    """

    content: Array
    reference: Array
    logits: tuple[Array, ...] = ()
    boxes: tuple[Array, ...] = ()


def refined(change: Array, reference: Array) -> Array:
    """Return boxes float[..., 4] from offsets to the logits of points float[..., 2] or boxes float[..., 4].

    >>> refined(jnp.zeros(4), jnp.array([0.25, 0.625])).round(3).tolist()
    [0.25, 0.625, 0.5, 0.5]
    """
    known, clear = reference.shape[-1], 1e-5
    logit = jnp.log(jnp.maximum(reference, clear) / jnp.maximum(1 - reference, clear))
    return jax.nn.sigmoid(jnp.concatenate([change[..., :known] + logit, change[..., known:]], axis=-1))


def anchored(reference: Array, ratios: Array) -> Array:
    """Rescale references to float[N, Q, 1, 2 or 4] in [0, 1] of the padded map, from the unpadded frame."""
    return reference[:, :, None] * jnp.tile(ratios, reference.shape[-1] // 2)[:, None]


class BoxHead(nn.Module):
    """Three affine maps with ReLUs between them, to offsets of a box's logits.

    Attributes:
      side: initial logit of the sides.
    """

    side: float = 0.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        bias = np.array([0, 0, self.side, self.side], np.float32)
        for name in ("fc_0", "fc_1"):
            x = nn.relu(Linear(x.shape[-1], name=name)(x))
        return nn.Dense(4, kernel_init=nn.initializers.zeros, bias_init=lambda *_: jnp.asarray(bias), name="fc_2")(x)


def class_head(classes: int, name: str | None = None) -> nn.Dense:
    """Return the affine map to class logits, with a bias for a low initial probability."""
    return nn.Dense(classes, bias_init=nn.initializers.constant(-math.log((1 - PRIOR) / PRIOR)), name=name)


class DecoderBlock(nn.Module):
    """Self-attention of the queries, deformable attention to a map, MLP; post-norm. Prompts: self-attention only."""

    heads: int
    points: int
    inner: int
    stray: int = 1

    @nn.compact
    def __call__(
        self,
        x: Array,
        position: Array | float,
        reference: Array,
        cells: Array,
        shape: Shape,
        mask: Array,
        prompts: Array,
    ) -> tuple[Array, Array]:
        """Run the block.

        Args:
          x: float[N, Q, D].
          position: float[N, Q, D], added to queries and keys.
          reference: float[N, Q, 1, 2 or 4]; see `DeformableAttention`.
          cells: float[N, M, D] of the map.
          shape: of the map.
          mask: bool[N, M], false in its padding.
          prompts: float[N, P, D], which have no position.

        Returns:
          float[N, Q, D] and float[N, P, D].
        """
        count, width = x.shape[1:]
        tokens, query = (jnp.concatenate([y, prompts], axis=1) for y in (x, x + position))
        attn = Attention(width, self.heads, name="self_attn")
        tokens = LayerNorm(name="ln_1")(tokens + attn(query, KeyValues(attn.key(query), attn.value(tokens))))
        x, prompts = tokens[:, :count], tokens[:, count:]
        look = DeformableAttention(self.heads, 1, self.points, self.stray, name="cross_attn")
        x = LayerNorm(name="ln_2")(x + look(x + position, reference, cells, [shape], mask))
        hidden = nn.relu(Linear(self.inner, name="fc")(x))
        return LayerNorm(name="ln_3")(x + Linear(width, name="proj")(hidden)), prompts


class DeformableDetr(nn.Module):
    """Backbone, encoder and decoder: from frames to boxes."""

    config: DetectorConfig

    def setup(self) -> None:
        c = self.config
        self.resnet = ResNet(c.resnet)
        self.project, self.norm = Linear(c.width), nn.GroupNorm(c.groups, epsilon=1e-5, use_fast_variance=False)
        self.level = self.param("level", nn.initializers.normal(1.0), (1, c.width))
        self.encoder = DeformableEncoder(c.encoders, c.heads, 1, c.points, c.inner)
        self.query = self.param("query", nn.initializers.normal(1.0), (c.queries, 2 * c.width))
        self.start = Linear(2)
        self.decoder = [DecoderBlock(c.heads, c.points, c.inner) for _ in range(c.decoders)]
        self.classify = [class_head(c.classes) for _ in range(c.decoders)]
        self.place = [BoxHead(0.0 if i and c.refine else -2.0) for i in range(c.decoders)]

    def embed(self, frames: Array) -> Array:
        """Embed the input of the encoder, float[N, h w, D], of normalised frames float[N, H, W, 3]."""
        maps = self.norm(self.project(self.resnet(frames)))
        result: Array = maps.reshape(len(maps), -1, self.config.width)
        return result

    def encode(
        self,
        cells: Array,
        mask: Array,
        shape: Shape,
        prompts: Array | None = None,
        start: int = 0,
        stop: int | None = None,
        leave: int | None = None,
    ) -> Array:
        """Run layers of the encoder on float[N, h w, D] with a mask bool[N, h w]; see `DeformableEncoder`."""
        grid = mask.reshape(len(mask), *shape)
        position = sine_position(grid, self.config.width).reshape(cells.shape) + self.level[0]
        return self.encoder(cells, position, mask, [shape], prompts, Span(start, stop, leave))

    def begin(self, count: int) -> Decoded:
        """Return the initial state of the decoder for a number of frames."""
        place, content = jnp.split(jnp.broadcast_to(self.query, (count, *self.query.shape)), 2, axis=-1)
        return Decoded(content, jax.nn.sigmoid(self.start(place)))

    def decode(
        self,
        state: Decoded,
        cells: Array,
        mask: Array,
        shape: Shape,
        prompts: Array | None = None,
        start: int = 0,
        stop: int | None = None,
        leave: int | None = None,
    ) -> Decoded:
        """Run layers `start` to `stop` of the decoder.

        Args:
          state: before the first of them.
          cells: float[N, h w, D] of the encoder.
          mask: bool[N, h w].
          shape: of the map.
          prompts: float[N, P, D], which enter before the first of them.
          start: first layer.
          stop: layer to stop before; the depth when `None`.
          leave: layer before which the prompts leave; after the last one when `None`.
        """
        content, reference, logits, boxes = state
        prompts = content[:, :0] if prompts is None else prompts
        position, ratios = self.query[:, : self.config.width], valid_ratios(mask, [shape])
        for k in range(start, self.config.decoders if stop is None else stop):
            prompts = prompts[:, :0] if k == leave else prompts
            where = anchored(reference, ratios)
            content, prompts = self.decoder[k](content, position, where, cells, shape, mask, prompts)
            box = refined(self.place[k](content), reference)
            logits, boxes = (*logits, self.classify[k](content)), (*boxes, box)
            reference = jax.lax.stop_gradient(box) if self.config.refine else reference
        return Decoded(content, reference, logits, boxes)

    def __call__(self, frames: Array, mask: Array) -> Decoded:
        """Return detections of all layers in normalised frames float[N, H, W, 3]; mask is the map's, bool[N, h, w]."""
        count, height, width = mask.shape
        shown, shape = mask.reshape(count, -1), (height, width)
        cells = self.encode(self.embed(frames), shown, shape)
        return self.decode(self.begin(count), cells, shown, shape)
