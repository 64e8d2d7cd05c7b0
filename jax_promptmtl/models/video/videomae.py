"""VideoMAE's vision transformer for videos, of any size, split at any block.

After OpenGVLab/VideoMAEv2 `models/modeling_finetune.py`: tubelet tokens in the order time, row, column; no class token;
fixed positions; pre-norm blocks with epsilon 1e-6, exact GELU and no key bias (here zeros, and softmax cancels any);
mean over the tokens, `fc_norm`, head.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.layers.position import Grid, positions
from jax_promptmtl.models.layers.transformer import LayerNorm, LayerPrompts, Linear, Pass, Transformer
from jax_promptmtl.models.video.middle import IN_HALF, Cut, Middle, VideoBackbone, halves, until

Array = jax.Array
EPSILON = 1e-6


@dataclass(frozen=True)
class VideoMaeConfig:
    """Sizes of a VideoMAE: videos in frames and pixels, widths in channels; `inner` is the width inside an MLP.

    The defaults are ViT-B on 16 frames of 224 x 224 pixels. `frames` and `image_size` are those that the positions were
    trained with; another input resizes them. `remat` computes the inside of blocks twice, to save memory.
    """

    frames: int = 16
    image_size: int = 224
    tubelet: int = 2
    patch: int = 16
    channels: int = 3
    width: int = 768
    layers: int = 12
    heads: int = 12
    inner: int = 3072
    classes: int = 710
    remat: bool = False

    @property
    def grid(self) -> Grid:
        """Return the tokens in time, rows and columns of a video of the trained size."""
        side = self.image_size // self.patch
        return self.frames // self.tubelet, side, side

    def grid_of(self, shape: tuple[int, ...]) -> Grid:
        """Return the grid of a video of shape [..., L, H, W, C].

        Raises:
          UserError: a video that tubelets do not cut evenly, or of other channels.

        >>> VideoMaeConfig().grid_of((1, 16, 256, 320, 3))
        (8, 16, 20)
        """
        frames, height, width, channels = shape[-4:]
        cut = (self.tubelet, self.patch, self.patch)
        if frames < self.tubelet or any(n % k for n, k in zip((frames, height, width), cut, strict=True)):
            raise UserError(
                f"A clip of {frames} frames of {height} x {width} pixels does not divide into tubelets of "
                f"{self.tubelet} x {self.patch} x {self.patch}; sample a multiple of each."
            )
        if channels != self.channels:
            raise UserError(f"A clip has {channels} channels; this backbone takes {self.channels}.")
        return frames // self.tubelet, height // self.patch, width // self.patch


class TubeletEmbedding(nn.Module):
    """Map every tubelet to a token; the same as a 3-D convolution whose stride is its kernel size."""

    config: VideoMaeConfig

    @nn.compact
    def __call__(self, video: Array) -> Array:
        c = self.config
        shape = (c.tubelet, c.patch, c.patch, c.channels, c.width)
        init = nn.initializers.normal((c.tubelet * c.patch**2 * c.channels) ** -0.5)
        kernel = self.param("kernel", init, shape)
        order = "b (t u) (h p) (w q) c -> b (t h w) (u p q c)"
        tubelets = rearrange(video, order, u=c.tubelet, p=c.patch, q=c.patch)
        tokens = tubelets.astype(kernel.dtype) @ kernel.reshape(-1, c.width)
        return tokens + self.param("bias", nn.initializers.zeros, (c.width,))


class VideoMae(nn.Module):
    """The trunk: tokens in, tokens out, no head.

    >>> config = VideoMaeConfig(4, 8, patch=4, width=8, layers=2, heads=2, inner=16)
    >>> VideoMae(config).init_with_output(jax.random.key(0), jnp.zeros((3, 4, 8, 8, 3)))[0].shape
    (3, 8, 8)
    """

    config: VideoMaeConfig

    def setup(self) -> None:
        c = self.config
        self.patch = TubeletEmbedding(c)
        self.transformer = Transformer(c.layers, c.heads, "gelu", epsilon=EPSILON, inner=c.inner, remat=c.remat)

    def embed(self, video: Array) -> Array:
        """Return the tokens of videos with their positions: float[B, L, H, W, C] -> float[B, N, D]."""
        c = self.config
        grid = c.grid_of(video.shape)
        tokens = self.patch(video)
        return tokens + jnp.asarray(positions(c.grid, grid, c.width), tokens.dtype)

    def lower(self, video: Array, middle: int, keep: Array | None = None) -> Array:
        """Return the tokens before block `middle`: float[B, N, D]; 0 gives the embedding. See `drop_path`."""
        return self.transformer(self.embed(video), None, Pass(at=0, stop=middle, keep=keep))

    def upper(
        self, tokens: Array, prompts: LayerPrompts | None = None, *, middle: int, keep: Array | None = None
    ) -> Array:
        """Run the blocks from `middle` on; prompts are prepended before their block and removed at the end."""
        return self.transformer(tokens, prompts, Pass(at=0, start=middle, keep=keep))

    def __call__(self, video: Array, prompts: LayerPrompts | None = None) -> Array:
        """Return the last block's tokens float[B, N, D], from one pass through all blocks."""
        return self.transformer(self.embed(video), prompts, Pass(at=0))


class MeanHead(nn.Module):
    """Mean over the tokens, LayerNorm, affine map to logits."""

    classes: int

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        pooled = LayerNorm(EPSILON, name="fc_norm")(tokens.mean(axis=1))
        return Linear(self.classes, name="head")(pooled)


class VideoClassifier(nn.Module):
    """The trunk and the head of recognition: videos to logits float[B, C].

    >>> config = VideoMaeConfig(4, 8, patch=4, width=8, layers=2, heads=2, inner=16, classes=5)
    >>> VideoClassifier(config).init_with_output(jax.random.key(0), jnp.zeros((3, 4, 8, 8, 3)))[0].shape
    (3, 5)
    """

    config: VideoMaeConfig

    def setup(self) -> None:
        self.trunk = VideoMae(self.config)
        self.pool = MeanHead(self.config.classes)

    def lower(self, video: Array, middle: int, keep: Array | None = None) -> Array:
        """Return the middle tokens; see `VideoMae.lower`."""
        return self.trunk.lower(video, middle, keep)

    def upper(
        self, tokens: Array, prompts: LayerPrompts | None = None, *, middle: int, keep: Array | None = None
    ) -> Array:
        """Return logits float[B, C] from the middle tokens; prompts take no part in the mean."""
        return self.pool(self.trunk.upper(tokens, prompts, middle=middle, keep=keep))

    def __call__(self, video: Array, prompts: LayerPrompts | None = None) -> Array:
        """Return logits float[B, C] of normalised videos float[B, L, H, W, C]."""
        return self.pool(self.trunk(video, prompts))


def handle(name: str, config: VideoMaeConfig, params: Mapping[str, Any], cut: Cut = IN_HALF) -> VideoBackbone:
    """Return a classifier in two halves; see `halves`.

    The inputs of `lower` are normalised videos float[B, L, H, W, C]; the outputs of `upper` are logits float[B, C].
    """
    model = VideoClassifier(config)
    lower, upper = partial(lower_half, model), partial(upper_half, model)
    return halves(name, config.width, config.layers, params, lower, upper, cut)


def drop_path(rate: float, layers: int, clips: int, rng: Array) -> Array:
    """Draw the residual branches to drop in training (stochastic depth, Huang et al. 2016).

    Args:
      rate: probability in the last block; it rises linearly from 0 in the first.
      layers: K.
      clips: B.
      rng: of this step.

    Returns:
      float[B, K, 2], 0 where a branch is dropped, else the factor that preserves its mean.

    >>> drop_path(0.0, 3, 2, jax.random.key(0)).min().item()
    1.0
    """
    stay = 1 - jnp.linspace(0, rate, layers)[:, None]
    return jax.random.bernoulli(rng, stay, (clips, layers, 2)) / stay


def lower_half(
    model: VideoClassifier, middle: int, params: Mapping[str, Any], video: Array, keep: Array | None = None
) -> Middle:
    """Return the middle state of videos float[B, L, H, W, C], no token of which is padding; it carries `keep`."""
    tokens: Any = model.apply({"params": params}, video, middle, keep, method="lower")
    return Middle(tokens, jnp.ones(tokens.shape[:2], bool), () if keep is None else {"keep": keep})


def upper_half(
    model: VideoClassifier, middle: int, leave: int, params: Mapping[str, Any], state: Middle, prompts: Array | None
) -> Array:
    """Return logits float[B, C] of a middle state and prompts float[B or 1, P, D]."""
    given = until(prompts, middle, leave, model.config.layers)
    keep = state.carry["keep"] if state.carry else None
    logits: Any = model.apply({"params": params}, state.tokens, given, middle=middle, keep=keep, method="upper")
    result: Array = logits
    return result
