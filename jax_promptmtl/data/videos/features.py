"""Files of features, `.npy`, one row per step of time."""

import pathlib

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.videos.index import Example, VideoSet

Array = np.ndarray
LENGTHS = 0.1  # share by which features and labels of a video may differ in length; upstreams cut to the shorter
STEPS = 16  # or so many steps
BLOCK = 1 << 12  # steps that are looked at at a time


def open_features(path: pathlib.Path, channels: int, channels_first: bool = False) -> Array:
    """Return the features of a file as [T, channels], not read before they are used.

    Args:
      path: the file.
      channels: how many it must have.
      channels_first: whether the file is [channels, T].

    Raises:
      UserError: missing, no `.npy` file of numbers, of another shape, or without a step.
    """
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or "no .npy file of numbers"
        raise UserError(f"Cannot read the features {str(path)!r} ({reason}); get the file again.") from None
    wanted = f"[{channels}, T]" if channels_first else f"[T, {channels}]"
    shape = stored.shape
    if stored.ndim != 2 or shape[0 if channels_first else 1] != channels or not stored.size:
        raise UserError(
            f"Features {str(path)!r} have the shape {list(shape)}; {wanted} is wanted: get them again, transpose them, "
            "or set data.channels."
        )
    return stored.T if channels_first else stored


def features_of(data: VideoSet, example: Example) -> Array:
    """Return the features of an example, [T, channels]; where every frame has a label, cut to the shorter of both.

    Raises:
      UserError: see `open_features`; or the lengths are too far apart to belong together.
    """
    features = open_features(data.path(example.video), data.channels, data.channels_first)
    if data.task != "segmentation":
        return features
    steps, labels = len(features), len(example.labels["label"])
    if abs(steps - labels) > max(STEPS, LENGTHS * labels):
        raise UserError(
            f"Video {example.name!r} has {steps:,} features, but labels for {labels:,} frames; they must belong "
            "together: get both again."
        )
    return features[: min(steps, labels)]


def require_finite(features: Array, name: str) -> Array:
    """Return features whose numbers are all finite; they are read block by block.

    >>> require_finite(np.ones((2, 1)), "clip").shape
    (2, 1)
    """
    for start in range(0, len(features), BLOCK):
        wrong = ~np.isfinite(features[start : start + BLOCK]).all(axis=1)
        if wrong.any():
            raise UserError(
                f"Features of {name!r} hold numbers that are not finite, first in step {start + wrong.argmax()}; "
                "extract them again."
            )
    return features
