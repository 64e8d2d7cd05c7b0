"""ActionFormer-style temporal action detection: actions with start and end from a sequence of features.

After happyharrycn/actionformer_release `libs/modeling/{backbones,blocks,meta_archs}.py`: convolutions embed the
features, a stem of blocks keeps their rate, every later block halves it; the levels of this pyramid share two heads,
for classes and for the distances to start and end. Padding has no influence, not even on the last frame before
it, where upstream's pooling and heads read its zeros or biases; without padding both are equal.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.layers.temporal import TimeConv, max_pool
from jax_promptmtl.models.layers.transformer import LayerNorm, Linear
from jax_promptmtl.models.layers.window import attend_in_windows, attend_to_all, band, heads_from_batch, heads_to_batch
from jax_promptmtl.models.video.middle import IN_HALF, Cut, Middle, VideoBackbone, halves, read_features

Array = jax.Array
Levels = tuple[tuple[Array, Array], ...]  # of every level its float[B, N, D] and its bool[B, N]
PRIOR = 0.01  # initial probability of a class


@dataclass(frozen=True)
class ActionFormerConfig:
    """Sizes of an ActionFormer; the defaults are those of THUMOS14 on VideoMAE features.

    Attributes:
      inputs: channels of a feature.
      width: channels D.
      heads: attention heads.
      window: width of the attention window in steps, centred; odd.
      embeddings: convolutions before the first block.
      stem: blocks that keep the rate.
      branch: blocks that halve it; the pyramid has one level more.
      head_layers: convolutions in a head, the last of them its output.
      classes: kinds of action C.
      reach: largest distance to a boundary, in steps, for the first level; it doubles with every level.
      drop_path: share of residual branches dropped in training.
    """

    inputs: int = 768
    width: int = 512
    heads: int = 4
    window: int = 19
    embeddings: int = 2
    stem: int = 2
    branch: int = 5
    head_layers: int = 3
    classes: int = 20
    reach: float = 4.0
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        if self.window < 3 or self.window % 2 == 0 or self.width % self.heads or self.stem < 1:
            raise UserError(
                f"An ActionFormer with a window of {self.window}, {self.heads} heads of width {self.width} and "
                f"{self.stem} stem blocks cannot be built; give an odd window, heads that divide, and a stem."
            )

    @property
    def strides(self) -> tuple[int, ...]:
        """Return the rate of every block relative to the one before."""
        return (1,) * self.stem + (2,) * self.branch

    @property
    def layers(self) -> int:
        """Return the number of blocks."""
        return self.stem + self.branch


class Detections(NamedTuple):
    """Predictions at N points in time, levels concatenated.

    Attributes:
      logits: float[B, N, C].
      offsets: float[B, N, 2], distances to start and end, in strides of the point.
      mask: bool[B, N], false in padding.
      grid: float[N, 4], time, least and largest reach, and stride of every point; see `points`.
    """

    logits: Array
    offsets: Array
    mask: Array
    grid: Array


def points(length: int, config: ActionFormerConfig, step: float = 1.0, start: float = 0.0) -> np.ndarray:
    """Return time, least reach, largest reach and stride of every point of every level, float32[N, 4].

    Args:
      length: steps in the input.
      config: of the model.
      step: time between two steps, in the unit that segments have.
      start: time of the first step, such as half the window of its feature.

    >>> points(4, ActionFormerConfig(branch=1), step=2.0, start=1.0).tolist()[-2:]
    [[1.0, 8.0, 20000.0, 4.0], [5.0, 8.0, 20000.0, 4.0]]
    """
    rows = []
    for level in range(config.branch + 1):
        stride = 2**level
        low = config.reach * stride / 2 if level else 0.0
        high = config.reach * stride if level < config.branch else 1e4
        place = np.arange(-(-length // stride)) * stride
        limits = np.broadcast_to([low * step, high * step, stride * step], (len(place), 3))
        rows.append(np.concatenate([start + place[:, None] * step, limits], axis=1))
    return np.concatenate(rows).astype(np.float32)


class ConvAttention(nn.Module):
    """Attention within windows, of queries, keys and values that depthwise convolutions prepare, at a lower rate.

    Prompts have no place in time: in the convolutions only the centre tap acts on them, every window attends to them,
    and they attend to all steps and to one another.
    """

    config: ActionFormerConfig
    stride: int

    @nn.compact
    def __call__(self, x: Array, mask: Array, prompts: Array) -> tuple[Array, Array]:
        """Return float[B, L / stride, D] and float[B, P, D]."""
        c, prepared = self.config, {}
        for name in ("query", "key", "value"):
            conv = TimeConv(c.width, stride=self.stride, depthwise=True, use_bias=False, name=f"{name}_conv")
            norm, map_ = LayerNorm(name=f"{name}_norm"), Linear(c.width, name=name)
            prepared[name] = [heads_to_batch(map_(norm(y)), c.heads) for y in conv(x, mask, prompts)]
        (q, q_p), (k, k_p), (v, v_p) = prepared.values()
        valid = jnp.repeat(mask[:, :: self.stride], c.heads, axis=0)
        radius = c.window // 2
        seen = attend_in_windows(q, k, v, valid, band(radius, radius), (k_p, v_p))
        every = jnp.concatenate([valid, jnp.ones(q_p.shape[:2], bool)], axis=1)
        seen_p = attend_to_all(q_p, jnp.concatenate([k, k_p], 1), jnp.concatenate([v, v_p], 1), every)
        out = Linear(c.width, name="out")
        return out(heads_from_batch(seen, c.heads)), out(heads_from_batch(seen_p, c.heads))


class PyramidBlock(nn.Module):
    """Pre-norm attention and MLP with a learned factor per channel; the residual is pooled where the rate is halved."""

    config: ActionFormerConfig
    stride: int

    @nn.compact
    def __call__(self, x: Array, mask: Array, prompts: Array, deterministic: bool) -> tuple[Array, Array, Array]:
        """Return float[B, L / stride, D], zero at padding, its mask, and float[B, P, D]."""
        c = self.config
        drop = nn.Dropout(c.drop_path, broadcast_dims=(1, 2), deterministic=deterministic)
        small = nn.initializers.constant(1e-4)
        scales = [self.param(f"scale_{i}", small, (c.width,)) for i in (1, 2)]
        ln_1, ln_2 = LayerNorm(name="ln_1"), LayerNorm(name="ln_2")
        seen, seen_p = ConvAttention(c, self.stride, name="attn")(ln_1(x), mask, ln_1(prompts))
        x, mask = max_pool(x, mask, self.stride), mask[:, :: self.stride]
        x = jnp.where(mask[..., None], x + drop(scales[0] * seen), 0)
        prompts = prompts + drop(scales[0] * seen_p)
        fc, proj = Linear(4 * c.width, name="fc"), Linear(c.width, name="proj")
        y, y_p = (drop(scales[1] * proj(nn.gelu(fc(ln_2(z)), approximate=False))) for z in (x, prompts))
        return jnp.where(mask[..., None], x + y, 0), mask, prompts + y_p


class ConvHead(nn.Module):
    """Convolutions with LayerNorm and ReLU, and one to the outputs, shared by all levels."""

    width: int
    layers: int
    outputs: int
    bias: float = 0.0

    def setup(self) -> None:
        self.convs = [TimeConv(self.width, use_bias=False) for _ in range(self.layers - 1)]
        self.norms = [LayerNorm() for _ in range(self.layers - 1)]
        self.out = TimeConv(self.outputs, bias=self.bias)

    def __call__(self, x: Array, mask: Array) -> Array:
        """Return float[B, N, outputs] of one level."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nn.relu(norm(conv(x, mask, x[:, :0])[0]))
        return self.out(x, mask, x[:, :0])[0]


class ActionFormer(nn.Module):
    """Embedding, blocks, pyramid and heads.

    >>> config = ActionFormerConfig(inputs=3, width=8, heads=2, window=3, branch=2, classes=5)
    >>> x, mask = jnp.zeros((2, 8, 3)), jnp.ones((2, 8), bool)
    >>> found, _ = ActionFormer(config).init_with_output(jax.random.key(0), x, mask)
    >>> found.logits.shape, found.offsets.shape, found.grid.shape
    ((2, 14, 5), (2, 14, 2), (14, 4))
    """

    config: ActionFormerConfig

    def setup(self) -> None:
        c = self.config
        self.embed = [TimeConv(c.width, use_bias=False) for _ in range(c.embeddings)]
        self.embed_norm = [LayerNorm() for _ in range(c.embeddings)]
        self.blocks = [PyramidBlock(c, stride) for stride in c.strides]
        self.level_norm = [LayerNorm() for _ in range(c.branch + 1)]
        self.classify = ConvHead(c.width, c.head_layers, c.classes, -math.log((1 - PRIOR) / PRIOR))
        self.regress = ConvHead(c.width, c.head_layers, 2)
        self.scale = self.param("scale", nn.initializers.ones, (c.branch + 1,))

    def begin(self, features: Array, mask: Array) -> Array:
        """Embed features as the input of the first block, float[B, L, D], zero at padding."""
        x = features
        for conv, norm in zip(self.embed, self.embed_norm, strict=True):
            x = nn.relu(norm(conv(x, mask, x[:, :0])[0]))
        return jnp.where(mask[..., None], x, 0)

    def run(
        self,
        x: Array,
        mask: Array,
        prompts: Array,
        levels: Levels,
        start: int,
        stop: int,
        deterministic: bool,
        leave: int | None = None,
    ) -> Levels:
        """Run blocks `start` to `stop`.

        Args:
          x: float[B, N, D] at the rate of block `start`.
          mask: bool[B, N].
          prompts: float[B, P, D].
          levels: computed so far.
          start: first block.
          stop: block to stop before.
          deterministic: disable drop path.
          leave: block before which prompts leave.

        Returns:
          All levels so far; the last is the current state, even inside the stem.
        """
        for k in range(start, stop):
            prompts = prompts[:, :0] if k == leave else prompts
            x, mask, prompts = self.blocks[k](x, mask, prompts, deterministic)
            if k + 1 >= self.config.stem or k + 1 == stop:
                levels = (*levels, (x, mask))
        return levels or ((x, mask),)

    def lower(self, features: Array, mask: Array, middle: int, deterministic: bool = True) -> Levels:
        """Return the levels before block `middle`, the last of which is the middle state."""
        x = self.begin(features, mask)
        return self.run(x, mask, x[:, :0], (), 0, middle, deterministic)

    def upper(
        self,
        levels: Levels,
        prompts: Array | None = None,
        *,
        middle: int,
        leave: int | None = None,
        step: float = 1.0,
        start: float = 0.0,
        deterministic: bool = True,
    ) -> Detections:
        """Run the rest with prompts, which leave before the heads.

        Args:
          levels: of `lower`.
          prompts: float[B, P, D] or float[1, P, D].
          middle: block before which prompts enter.
          leave: block before which they leave; after the last one when `None`.
          step: see `points`.
          start: see `points`.
          deterministic: drop nothing.
        """
        x, mask = levels[-1]
        done = levels if middle >= self.config.stem else ()
        given = x[:, :0] if prompts is None else jnp.broadcast_to(prompts, (len(x), *prompts.shape[1:]))
        levels = self.run(x, mask, given, done, middle, self.config.layers, deterministic, leave)
        return self.detect(levels, jnp.asarray(points(levels[0][0].shape[1], self.config, step, start)))

    def detect(self, levels: Levels, grid: Array) -> Detections:
        """Run both heads on every level."""
        normal = [(norm(x), mask) for norm, (x, mask) in zip(self.level_norm, levels, strict=True)]
        logits = [self.classify(x, mask) for x, mask in normal]
        offsets = [nn.relu(self.scale[i] * self.regress(x, mask)) for i, (x, mask) in enumerate(normal)]
        parts = (logits, offsets, [mask for _, mask in normal])
        all_logits, all_offsets, valid = (jnp.concatenate(part, axis=1) for part in parts)
        return Detections(all_logits, all_offsets, valid, grid)

    def __call__(self, features: Array, mask: Array, deterministic: bool = True) -> Detections:
        """Detect in features float[B, L, inputs] with a mask bool[B, L]; times are in steps."""
        x = self.begin(features, mask)
        levels = self.run(x, mask, x[:, :0], (), 0, self.config.layers, deterministic)
        return self.detect(levels, jnp.asarray(points(features.shape[1], self.config)))


def handle(
    name: str,
    config: ActionFormerConfig,
    params: Mapping[str, Any],
    length: int,
    cut: Cut = IN_HALF,
    step: float = 1.0,
    start: float = 0.0,
) -> VideoBackbone:
    """Return a detector split within stem and branch; see `halves`.

    The inputs of `lower` are {features: float[B, L, inputs], mask: bool[B, L]}; `upper` gives `Detections`.

    Args:
      name, config, params, cut: see `halves`.
      length: steps L of every input, padding included; any number if 0.
      step: time between two steps, in the unit of the segments; see `points`.
      start: time of the first step.
    """
    model, times = ActionFormer(config), {"step": step, "start": start}
    lower, upper = partial(lower_half, model, length), partial(upper_half, model, times)
    return halves(name, config.width, config.layers, params, lower, upper, cut)


def lower_half(
    model: ActionFormer, length: int, middle: int, params: Mapping[str, Any], inputs: Mapping[str, Array]
) -> Middle:
    """Return the middle state of features and their mask; `carry` holds the finished levels."""
    features, mask = read_features(inputs, model.config.inputs, length or None)
    levels: Any = model.apply({"params": params}, features, mask, middle, method="lower")
    *done, (tokens, valid) = levels
    carry = {f"level_{i}": {"tokens": x, "mask": m} for i, (x, m) in enumerate(done)}
    return Middle(tokens, valid, carry)


def upper_half(
    model: ActionFormer,
    times: Mapping[str, Any],
    middle: int,
    leave: int,
    params: Mapping[str, Any],
    state: Middle,
    prompts: Array | None,
) -> Detections:
    """Return `Detections` of a middle state and prompts float[B or 1, P, D]."""
    carried = [state.carry[f"level_{i}"] for i in range(max(0, middle - model.config.stem))]
    levels = (*((level["tokens"], level["mask"]) for level in carried), (state.tokens, state.mask))
    options = {"middle": middle, "leave": leave, **times}
    found: Any = model.apply({"params": params}, levels, prompts, **options, method="upper")
    result: Detections = found
    return result
