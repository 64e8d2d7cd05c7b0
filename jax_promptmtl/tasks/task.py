"""The interface of a video task: loss, decoding and metrics as pure functions of outputs and a batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

Array = jax.Array
Batch = Mapping[str, Array]
Sums = dict[str, Array]
Host = dict[str, np.ndarray]


@dataclass(frozen=True)
class VideoTask:
    """A video task. Loss and decoding of an example are independent of the rest of its batch.

    Attributes:
      name: such as "recognition".
      labels: keys of the label arrays in a batch.
      loss: (outputs, batch) -> (float[B], sums), where sums may hold float[B] `correct`.
      decode: (outputs, batch) -> dict of arrays [B, ...], the predictions.
      measure: (predictions, labels) of all examples in numpy -> {metric: float}, in percent where it is a rate.
      metric: the key of `measure` that tables show; larger is better.
    """

    name: str
    labels: tuple[str, ...]
    loss: Callable[[Any, Batch], tuple[Array, Sums]]
    decode: Callable[[Any, Batch], dict[str, Array]]
    measure: Callable[[Host, Host], dict[str, float]]
    metric: str
