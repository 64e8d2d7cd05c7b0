"""Attention maps of the image tower: the last block's attention from the class token to the patches."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from PIL import Image

from jax_promptmtl.models.clip.model import CLIP, ClipConfig

Array = jax.Array
GLOW = np.array([1.0, 0.25, 0.0])  # the colour of high attention
SIDE = 128  # smallest height of a picture in pixels


@partial(jax.jit, static_argnames="config")
def attention(
    config: ClipConfig, weights: Any, prompts: Mapping[int, Array], image: Array, rows: Array | None = None
) -> Array:
    """Return the class token's attention to each patch, averaged over heads, float[B, h, w].

    Queries and keys are intercepted in the tower itself. A map sums to less than 1: the rest is attention to the
    class token and to prompts.

    Args:
      config: of the backbone.
      weights: of the backbone.
      prompts, image, rows: see `ImageTower`.
    """
    caught: dict[str, Any] = {
        "mutable": ["intermediates"],
        "capture_intermediates": lambda module, _: module.name in ("query", "key"),
    }
    run = partial(CLIP(config).apply, {"params": weights}, method="encode_image", **caught)
    _, seen = run(image, prompts, rows=rows)
    last = seen["intermediates"]["image"]["transformer"][f"blocks_{config.image_layers - 1}"]["attn"]
    (query,), (*extra, own) = last["query"]["__call__"], last["key"]["__call__"]
    each = [jnp.broadcast_to(key if rows is None else key[rows], (len(own), *key.shape[1:])) for key in extra]
    query, key = (
        rearrange(x, "b n (h c) -> b h n c", h=config.image_heads) for x in (query, jnp.concatenate([own, *each], 1))
    )
    share = jax.nn.softmax((query @ key.mT).astype(jnp.float32) * query.shape[-1] ** -0.5)[:, :, 0].mean(axis=1)
    side = config.image_size // config.patch_size
    return share[:, own.shape[1] - side**2 : own.shape[1]].reshape(-1, side, side)


def strip(image: np.ndarray, maps: Sequence[np.ndarray]) -> np.ndarray:
    """Return an image float[H, W, 3] in 0..1 side by side with its overlays by each of the maps float[h, w].

    >>> strip(np.zeros((64, 64, 3)), [np.ones((2, 2))]).shape
    (128, 256, 3)
    """
    factor = max(SIDE // len(image), 1)
    large = image.repeat(factor, axis=0).repeat(factor, axis=1)
    return np.concatenate([large, *(overlay(large, heat) for heat in maps)], axis=1)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return an image float[H, W, 3] in 0..1 in grey, with the attention map float[h, w] as a coloured glow.

    >>> overlay(np.full((4, 4, 3), 0.5), np.array([[0.0, 0.1]]))[0, [0, 3]].round(2).tolist()
    [[0.5, 0.5, 0.5], [0.85, 0.33, 0.15]]
    """
    grey = image.mean(axis=2, keepdims=True)
    size = (image.shape[1], image.shape[0])
    glow = Image.fromarray(np.asarray(heat / heat.max(), np.float32)).resize(size, Image.Resampling.BILINEAR)
    alpha = 0.7 * np.asarray(glow)[..., None]
    mixed: np.ndarray = np.clip((1 - alpha) * grey + alpha * GLOW, 0, 1)
    return mixed
