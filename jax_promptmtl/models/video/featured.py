"""Models of feature sequences on top of a frozen video transformer, so that they accept videos like other backbones.

A video is cut into segments of the transformer's training length; the last tokens, averaged over space, are the
features, one per tubelet. Such a model only accepts features of the extractor that it was trained on.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video.middle import Middle, VideoBackbone
from jax_promptmtl.models.video.videomae import VideoMae, VideoMaeConfig

Array = jax.Array
PyTree = Any


def features(config: VideoMaeConfig, trunk: PyTree, video: Array) -> Array:
    """Compute a feature per tubelet of normalised videos.

    Args:
      config: of the transformer.
      trunk: its parameters.
      video: float[B, L, H, W, C], L a multiple of the transformer's frames.

    Returns:
      float[B, L / tubelet, D].

    Raises:
      UserError: a video of another length.
    """
    if video.shape[1] % config.frames:
        raise UserError(f"A clip of {video.shape[1]} frames is not a multiple of {config.frames}; give such a clip.")
    stretches = rearrange(video, "b (s l) h w c -> (b s) l h w c", l=config.frames)
    tokens: Any = VideoMae(config).apply({"params": trunk}, stretches)
    moments = rearrange(tokens, "n (t p) d -> n t p d", t=config.frames // config.tubelet).mean(axis=2)
    result: Array = rearrange(moments, "(b s) t d -> b (s t) d", b=len(video))
    return result


def on_features(
    backbone: VideoBackbone, config: VideoMaeConfig, trunk: PyTree, repeat: int = 1, *, given: bool = False
) -> VideoBackbone:
    """Turn a backbone of features into one of videos, with parameters {trunk, model}.

    The inputs of `lower` are normalised videos float[B, L, H, W, C], or the features themselves where they are `given`.

    Args:
      backbone: whose inputs are {features, mask}.
      config, trunk: of the transformer.
      repeat: repetitions of every output along time, the last axis but one, for labels per frame instead of tubelet.
      given: whether inputs are precomputed features, for training.
    """
    return replace(
        backbone,
        params={"trunk": trunk, "model": backbone.params},
        lower=partial(lower_half, backbone, None if given else config),
        upper=partial(upper_half, backbone, repeat),
    )


def lower_half(
    backbone: VideoBackbone, config: VideoMaeConfig | None, params: Mapping[str, Any], inputs: Array
) -> Middle:
    """Return the middle state of videos, or of features where there is no config."""
    seen = inputs if config is None else features(config, params["trunk"], inputs)
    return backbone.lower(params["model"], {"features": seen, "mask": jnp.ones(seen.shape[:2], bool)})


def upper_half(
    backbone: VideoBackbone, repeat: int, params: Mapping[str, Any], state: Middle, prompts: Array | None
) -> Any:
    """Return the outputs, float[..., L, C] where they are repeated."""
    outputs = backbone.upper(params["model"], state, prompts)
    return outputs if repeat == 1 else jnp.repeat(outputs, repeat, axis=-2)
