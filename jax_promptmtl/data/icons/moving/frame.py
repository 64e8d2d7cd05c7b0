"""What all frames have in common: their size, the brightness of their colours, and their bytes."""

import numpy as np

Array = np.ndarray
SIZE = 32  # pixels of a frame's side
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def luma(colour: Array) -> Array:
    """Return the brightness [...] of colours [..., 3]; a plain sum, for the bits of `@` depend on the batch.

    >>> round(float(luma(np.array([255.0, 255.0, 255.0]))))
    255
    """
    brightness: Array = (colour * LUMA).sum(-1)
    return brightness


def shade(colour: Array, level: Array) -> Array:
    """Give colours float32[..., 3] a luma [...] of 0 to 255, as much of their hue as then fits into 0 to 255.

    >>> shade(np.array([0.0, 0.0, 90.0]), np.array(200.0)).round().tolist()
    [193.0, 193.0, 255.0]
    """
    hue = colour - luma(colour)[..., None]
    room = np.where(hue > 0, 255 - level[..., None], level[..., None])
    fits = np.minimum((room / np.maximum(np.abs(hue), 1e-3)).min(-1, keepdims=True), 1)
    shaded: Array = (level[..., None] + fits * hue).astype(np.float32)
    return shaded


def finish(planes: Array) -> Array:
    """Round planes float32[B, 3, L, 32, 32] to frames uint8[B, L, 32, 32, 3]."""
    frames = np.empty((*planes.shape[:1], *planes.shape[2:], 3), np.uint8)
    for channel in range(3):
        frames[..., channel] = np.clip(planes[:, channel] + np.float32(0.5), 0, 255)
    return frames
