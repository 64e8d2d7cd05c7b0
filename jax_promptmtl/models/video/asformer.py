"""ASFormer for action segmentation: a label for every frame of a feature sequence, in padded batches.

After ChinaYi/ASFormer `model.py`: an encoder and three decoders of ten modules each; module i convolves with dilation
2 ** i and attends within windows of 2 ** i frames; every stage gives logits, and the last stage's count. Differences:
padded batches (upstream takes one video at a time), and prompts.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jax_promptmtl.core.errors import pick
from jax_promptmtl.models.layers.temporal import TimeConv, instance_norm
from jax_promptmtl.models.layers.transformer import Linear
from jax_promptmtl.models.layers.window import attend_in_windows, attend_to_all
from jax_promptmtl.models.video.middle import IN_HALF, Cut, Middle, VideoBackbone, halves, read_features

Array = jax.Array
WINDOW_MASKS = ("released", "fixed")
INSERTIONS = ("global", "prepend_time")
SOFT = 1e-6  # upstream hides keys by adding log(mask + 1e-6) to the logits


@dataclass(frozen=True)
class AsFormerConfig:
    """Sizes and choices of an ASFormer; the defaults are those of 50salads.

    Attributes:
      inputs: channels of a frame's feature, 2048 for I3D.
      width: channels D of the model.
      layers: modules per stage; the widest window has 2 ** (layers - 1) frames.
      decoders: stages after the encoder.
      classes: labels C.
      window_mask: released is what upstream's checkpoints were trained with, where every frame of a block sees the same
        2 bl - 1 frames; fixed is the sliding band that its paper describes (ChinaYi/ASFormer issue 2).
      channel_dropout: rate of dropped input channels in training.
      dropout: dropout rate at the end of every module in training.
    """

    inputs: int = 2048
    width: int = 64
    layers: int = 10
    decoders: int = 3
    classes: int = 19
    window_mask: str = "released"
    channel_dropout: float = 0.3
    dropout: float = 0.5

    def __post_init__(self) -> None:
        pick(self.window_mask, WINDOW_MASKS, "window_mask")


def window_pattern(size: int, kind: str) -> Array:
    """Return bool[size, size + 2 (size // 2)], the columns of its window that each query of a block sees.

    >>> window_pattern(2, "released").astype(int).tolist(), window_pattern(2, "fixed").astype(int).tolist()
    ([[1, 1, 1, 0], [1, 1, 1, 0]], [[1, 1, 0, 0], [0, 1, 1, 0]])
    """
    column = jnp.arange(size + 2 * (size // 2))[None]
    row = jnp.arange(size)[:, None]
    if kind == "released":
        return jnp.broadcast_to(column < 2 * size - 1, (size, column.shape[1]))
    return (row <= column) & (column < row + size)


class AttentionModule(nn.Module):
    """Dilated convolution, attention within windows, residual.

    Prompts have no position in time: in the convolution only the centre tap acts on them; they are normalised by the
    statistics of frames and prompts together; every window attends to them; they attend to all frames and to one
    another.
    """

    config: AsFormerConfig
    size: int
    alpha: float

    @nn.compact
    def __call__(
        self, x: Array, memory: Array | None, mask: Array, prompts: Array, deterministic: bool
    ) -> tuple[Array, Array]:
        """Run the module.

        Args:
          x: float[B, L, D].
          memory: float[B, L, D], the source of a decoder's values; the encoder passes its own input.
          mask: bool[B, L].
          prompts: float[B, P, D].
          deterministic: drop nothing.

        Returns:
          float[B, L, D], zero at padding, and float[B, P, D].
        """
        c, inner = self.config, self.config.width // 2
        u, up = jax.tree.map(nn.relu, TimeConv(c.width, self.size, name="conv")(x, mask, prompts))
        normal, normal_p = instance_norm(u, mask, up)
        query, key, value, out = (
            Linear(width, name=name)
            for name, width in (("query", inner), ("key", inner), ("value", inner), ("out", c.width))
        )
        k, k_p = key(normal), key(normal_p)
        v, v_p = value(normal if memory is None else memory), value(normal_p)
        pattern = window_pattern(self.size, c.window_mask)
        seen = attend_in_windows(query(normal), k, v, mask, pattern, (k_p, v_p), SOFT)
        every, shown = jnp.concatenate([k, k_p], 1), jnp.concatenate([v, v_p], 1)
        valid = jnp.concatenate([mask, jnp.ones(prompts.shape[:2], bool)], axis=1)
        seen_p = attend_to_all(query(normal_p), every, shown, valid)
        mix, drop = Linear(c.width, name="mix"), nn.Dropout(c.dropout, deterministic=deterministic)
        y, y_p = (drop(mix(self.alpha * out(nn.relu(a)) + b)) for a, b in ((seen, u), (seen_p, up)))
        return jnp.where(mask[..., None], x + y, 0), prompts + y_p


class Stage(nn.Module):
    """The encoder or a decoder: an affine map, the modules, and an affine map to logits."""

    config: AsFormerConfig
    alpha: float = 1.0

    def setup(self) -> None:
        c = self.config
        self.embed, self.head = Linear(c.width), Linear(c.classes)
        self.blocks = [AttentionModule(c, 2**i, self.alpha) for i in range(c.layers)]

    def begin(self, x: Array, mask: Array) -> Array:
        """Embed the input of the first module, float[B, L, D], zero at padding."""
        return jnp.where(mask[..., None], self.embed(x), 0)

    def run(
        self, x: Array, memory: Array | None, mask: Array, prompts: Array, start: int, stop: int, deterministic: bool
    ) -> tuple[Array, Array]:
        """Run modules `start` to `stop`; see `AttentionModule`."""
        for block in self.blocks[start:stop]:
            x, prompts = block(x, memory, mask, prompts, deterministic)
        return x, prompts

    def finish(self, x: Array, mask: Array) -> Array:
        """Return logits float[B, L, C], zero at padding."""
        return jnp.where(mask[..., None], self.head(x), 0)


class AsFormer(nn.Module):
    """The encoder and its decoders.

    >>> config = AsFormerConfig(inputs=3, width=4, layers=2, decoders=2, classes=5)
    >>> x, mask = jnp.zeros((2, 7, 3)), jnp.ones((2, 7), bool)
    >>> AsFormer(config).init_with_output(jax.random.key(0), x, mask)[0].shape
    (3, 2, 7, 5)
    """

    config: AsFormerConfig

    def setup(self) -> None:
        c = self.config
        self.encoder = Stage(c)
        self.decoders = [Stage(c, math.exp(-3 * s)) for s in range(c.decoders)]
        self.drop_channels = nn.Dropout(c.channel_dropout, broadcast_dims=(1,))

    def lower(self, features: Array, mask: Array, middle: int, deterministic: bool = True) -> Array:
        """Return the encoder's state before module `middle`, float[B, L, D], of features float[B, L, inputs]."""
        x = self.encoder.begin(self.drop_channels(features, deterministic=deterministic), mask)
        return self.encoder.run(x, None, mask, nothing(x), 0, middle, deterministic)[0]

    def upper(
        self,
        tokens: Array,
        mask: Array,
        prompts: Array | None = None,
        *,
        middle: int,
        leave: int | None = None,
        insertion: str = "global",
        deterministic: bool = True,
    ) -> Array:
        """Run the rest of the encoder with prompts, then the decoders without them.

        Args:
          tokens: float[B, L, D], of `lower`.
          mask: bool[B, L].
          prompts: float[B, P, D] or float[1, P, D].
          middle: module before which prompts enter.
          leave: module before which they leave; after the last one when `None`.
          insertion: global, as in `AttentionModule`; or prepend_time, as the first steps of the sequence, which shifts
            every window.
          deterministic: drop nothing.

        Returns:
          Logits float[S, B, L, C] of the encoder and every decoder, zero at padding.
        """
        length, layers, x = tokens.shape[1], self.config.layers, tokens
        leave = layers if leave is None else leave
        given = nothing(x) if prompts is None else jnp.broadcast_to(prompts, (len(x), *prompts.shape[1:]))
        if insertion == "prepend_time":
            longer = jnp.concatenate([given, x], axis=1)
            valid = jnp.concatenate([jnp.ones(given.shape[:2], bool), mask], axis=1)
            x = self.encoder.run(longer, None, valid, nothing(x), middle, leave, deterministic)[0][:, -length:]
        else:
            x, _ = self.encoder.run(x, None, mask, given, middle, leave, deterministic)
        x, _ = self.encoder.run(x, None, mask, nothing(x), leave, layers, deterministic)
        return self.decode(x, mask, deterministic)

    def decode(self, memory: Array, mask: Array, deterministic: bool) -> Array:
        """Return the logits of all stages float[S, B, L, C] from the encoder's last state."""
        logits = [self.encoder.finish(memory, mask)]
        for decoder in self.decoders:
            x = decoder.begin(jax.nn.softmax(logits[-1], axis=-1), mask)
            stop = self.config.layers
            memory, _ = decoder.run(x, memory, mask, nothing(x), 0, stop, deterministic)
            logits.append(decoder.finish(memory, mask))
        return jnp.stack(logits)

    def __call__(self, features: Array, mask: Array, deterministic: bool = True) -> Array:
        """Return logits float[S, B, L, C] of features float[B, L, inputs]; the last stage's are the prediction."""
        x = self.encoder.begin(self.drop_channels(features, deterministic=deterministic), mask)
        x, _ = self.encoder.run(x, None, mask, nothing(x), 0, self.config.layers, deterministic)
        return self.decode(x, mask, deterministic)


def nothing(x: Array) -> Array:
    """Return zero prompts, float[B, 0, D]."""
    return x[:, :0]


def handle(
    name: str,
    config: AsFormerConfig,
    params: Mapping[str, Any],
    cut: Cut = IN_HALF,
    insertion: str = "global",
) -> VideoBackbone:
    """Return an ASFormer split within its encoder; see `halves`.

    The inputs of `lower` are {features: float[B, L, inputs], mask: bool[B, L]}; `upper` gives float[S, B, L, C].
    """
    model = AsFormer(config)
    lower, upper = partial(lower_half, model), partial(upper_half, model, pick(insertion, INSERTIONS, "insertion"))
    return halves(name, config.width, config.layers, params, lower, upper, cut)


def lower_half(model: AsFormer, middle: int, params: Mapping[str, Any], inputs: Mapping[str, Array]) -> Middle:
    """Return the middle state of features and their mask."""
    features, mask = read_features(inputs, model.config.inputs)
    tokens: Any = model.apply({"params": params}, features, mask, middle, method="lower")
    return Middle(tokens, mask)


def upper_half(
    model: AsFormer,
    insertion: str,
    middle: int,
    leave: int,
    params: Mapping[str, Any],
    state: Middle,
    prompts: Array | None,
) -> Array:
    """Return logits float[S, B, L, C] of a middle state and prompts float[B or 1, P, D]."""
    options: dict[str, Any] = {"middle": middle, "leave": leave, "insertion": insertion}
    logits: Any = model.apply({"params": params}, state.tokens, state.mask, prompts, **options, method="upper")
    result: Array = logits
    return result
