"""Normalisation and temporal subsampling of frames in 0..255."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_promptmtl.data.videos.augment import MEAN, STD

Array = jax.Array
NORMALISED, STANDARDISED, SHARES = "normalised", "standardised per clip", "shares"


def normalise(frames: Array) -> Array:
    """Normalise frames [..., 3] by ImageNet's mean and standard deviation per channel."""
    return (frames.astype(jnp.float32) / 255 - jnp.array(MEAN)) / jnp.array(STD)


def standardise(frames: Array) -> Array:
    """Subtract a video's mean colour and divide by its standard deviation over pixels and channels, [B, L, H, W, 3].

    >>> standardise(jnp.array([0, 2], jnp.uint8).reshape(1, 1, 1, 2, 1)).ravel().tolist()
    [-0.5, 0.5]
    """
    video = frames.astype(jnp.float32)
    video -= video.mean(axis=(1, 2, 3), keepdims=True)
    return video / (1 + video.std(axis=(1, 2, 3, 4), keepdims=True))  # the deviation of a single-colour video is 0


PIXELS: Mapping[str, Callable[[Array], Array]] = {
    NORMALISED: normalise,
    STANDARDISED: standardise,
    SHARES: lambda frames: frames.astype(jnp.float32) / 255,
}


def uniform(frames: Any, count: int) -> Any:
    """Return `count` evenly spaced frames, repeated if there are fewer.

    Args:
      frames: [B, L, ...].
      count: number of frames; 0 for all.

    >>> uniform(np.arange(8)[None], 4).tolist(), uniform(np.arange(2)[None], 4).tolist()
    ([[1, 3, 5, 7]], [[0, 0, 1, 1]])
    """
    if count in (0, frames.shape[1]):
        return frames
    places = ((np.arange(count) + 0.5) * frames.shape[1] / count).astype(int)
    return frames[:, places]
