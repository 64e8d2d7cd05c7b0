"""Input forms: how a batch of videos is converted to the input of a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video.pixels import NORMALISED, PIXELS, uniform

Array = jax.Array
Batch = Mapping[str, Any]


@dataclass(frozen=True)
class Features:
    """Form of feature sequences that a model reads instead of frames.

    Attributes:
      steps: of a sequence, padding included; any number if 0.
      channels: of a feature.
      step: time from one feature to the next, in the unit of the labels.
      start: time of the first.
    """

    steps: int
    channels: int
    step: float = 1.0
    start: float = 0.0


@dataclass(frozen=True)
class InputForm:
    """Input form of a model.

    Attributes:
      frames: number of evenly spaced frames; all if 0.
      size: rows and columns of a frame, padding included.
      pixels: a key of `PIXELS`.
      boxes: whether its input includes labelled boxes; not for auxiliaries, which must not see labels.
      features: form of its features, where it reads features.
    """

    frames: int
    size: tuple[int, int]
    pixels: str = NORMALISED
    boxes: bool = True
    features: Features | None = None

    def video(self, batch: Batch) -> Array:
        """Return the frames of a batch in this form, float[B, L, H, W, 3], zero in the padding of frames.

        Frames of another size are centre-cropped to the form's aspect ratio and resized.
        """
        video = PIXELS[self.pixels](self.seen(batch, "frames"))
        video = jnp.where(batch["shown"][:, None, :, :, None], video, 0.0) if "shown" in batch else video
        return fit(video, self.size)

    def seen(self, batch: Batch, key: str) -> Array:
        """Return the rows of an array [B, L, ...] of a batch that the model sees; padding is none of them.

        >>> batch = {"frames": jnp.arange(8)[None], "present": jnp.arange(8)[None] < 4}
        >>> InputForm(2, (4, 4)).seen(batch, "frames").tolist(), InputForm(0, (4, 4)).seen(batch, "frames").shape
        ([[1, 3]], (1, 8))
        """
        given = batch[key]
        if "present" not in batch or self.frames in (0, given.shape[1]):
            found: Array = uniform(given, self.frames)
            return found
        count = jnp.maximum(batch["present"].sum(axis=1, keepdims=True), 1)
        places = ((jnp.arange(self.frames) + 0.5) * count / self.frames).astype(int)
        return jnp.take_along_axis(given, places.reshape(*places.shape, *[1] * (given.ndim - 2)), axis=1)

    def shown(self, batch: Batch) -> Array:
        """Return where frames in this form are no padding, bool[B, H, W]."""
        if "shown" not in batch:
            return jnp.ones((len(batch["frames"]), *self.size), bool)
        shown = batch["shown"][:, None, :, :, None].astype(jnp.float32)
        return fit(shown, self.size)[:, 0, :, :, 0] > 0.5

    def features_of(self) -> Features:
        """Return the form of features; raises an error for a model of frames."""
        if self.features is None:
            raise UserError("A model of features was given a video; give it features, or an extractor.")
        return self.features


def fit(video: Array, size: tuple[int, int]) -> Array:
    """Centre-crop a video [B, L, h, w, 3] to the aspect ratio of a size, and resize it.

    >>> fit(jnp.zeros((1, 2, 8, 16, 3)), (4, 4)).shape
    (1, 2, 4, 4, 3)
    """
    height, width = video.shape[2:4]
    if (height, width) == size:
        return video
    rows = min(height, round(width * size[0] / size[1]))
    columns = min(width, round(height * size[1] / size[0]))
    top, left = (height - rows) // 2, (width - columns) // 2
    part = video[:, :, top : top + rows, left : left + columns]
    result: Array = jax.image.resize(part, (*video.shape[:2], *size, video.shape[-1]), "linear")  # with antialiasing
    return result
