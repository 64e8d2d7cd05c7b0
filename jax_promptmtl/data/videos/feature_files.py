"""The features of a part's videos as batches of arrays of one length, whole or in windows."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.data.videos.features import features_of, require_finite
from jax_promptmtl.data.videos.index import Example, VideoSet
from jax_promptmtl.data.videos.left_out import LeftOut
from jax_promptmtl.data.videos.slots import most_objects, pad

Array = np.ndarray
Batch = dict[str, Array]
THREADS = 8


class FeatureFiles:
    """The features of a part's videos, padded to one length; see `clip_batches.ClipSource`.

    Segmentation gets `label` int32[B, T], -1 in padding, and `full`, the labels of all frames, of which `label` has
    every `every`-th; detection gets `segment` in seconds, `label` and `valid`.

    Args:
      data: a set of feature files.
      part: "train" or "test".
      every: use every so many features, 2 for 50Salads as ASFormer.
      multiple: of which the length is one.
      window: for detection: cut longer training videos into windows of so many features, half overlapping; 0 for whole
        videos. A window keeps the actions of which it shows half; one without any is left out.
      step: seconds from one feature to the next, which windows need.
      left_out: takes the videos whose features cannot be used; None refuses them. All are read once, before training.
    """

    def __init__(
        self,
        data: VideoSet,
        part: str,
        *,
        every: int = 1,
        multiple: int = 128,
        window: int = 0,
        step: float = 0.0,
        left_out: LeftOut | None = None,
    ):
        self.data, self.every, self.step = data, every, step
        examples, counts = sound(data, data.parts[pick(part, data.parts, "part")], left_out)
        self.cuts: list[tuple[Example, int, int]] = []  # a video, its first feature and how many of them
        for example, count in zip(examples, counts, strict=True):
            if part == "train" and 0 < window < count:
                ends = ((first, min(window, count - first)) for first in range(0, count - window // 2, window // 2))
                self.cuts += [(example, *cut) for cut in ends if self.seen(example, *cut).any()]
            else:
                self.cuts.append((example, 0, count))
        self.length = -(-max(count for *_, count in self.cuts) // (every * multiple)) * multiple
        self.slots = most_objects(data)

    def __len__(self) -> int:
        return len(self.cuts)

    def take(self, indices: Array) -> Batch:
        """Return features float32[B, T, C], `mask` bool[B, T], and labels."""
        rows = [self.read(*self.cuts[int(index)]) for index in indices]
        return {key: np.stack([row[key] for row in rows]) for key in rows[0]}

    def seen(self, example: Example, first: int, count: int) -> Array:
        """Return of which actions a window shows half, bool[S]."""
        start, end = example.labels["segment"].T
        shown = np.minimum(end, (first + count) * self.step) - np.maximum(start, first * self.step)
        return shown >= (end - start) / 2

    def read(self, example: Example, first: int, count: int) -> Batch:
        """Return one video, or a window of it."""
        features = features_of(self.data, example)[first : first + count][:: self.every]
        features = np.asarray(features, np.float32)
        row = {"features": pad(features, self.length), "mask": np.arange(self.length) < len(features)}
        label = example.labels["label"]
        if self.data.task == "segmentation":
            full = np.full(self.length * self.every, -1, np.int32)
            full[:count] = label[:count]
            return row | {"label": full[:: self.every], "full": full}
        segment = example.labels["segment"]
        if (first, count) != (0, len(features_of(self.data, example))):
            kept = self.seen(example, first, count)
            segment, label = (segment[kept] - first * self.step).clip(0, count * self.step), label[kept]
        real = np.arange(self.slots) < len(label)
        return row | {"segment": pad(segment, self.slots), "label": pad(label, self.slots), "valid": real}


def sound(data: VideoSet, examples: Sequence[Example], left_out: LeftOut | None) -> tuple[list[Example], list[int]]:
    """Read all features once; return the examples whose can be used, and the lengths of those.

    Raises:
      UserError: one cannot, and nothing takes what is left out; or none can.
    """
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        lengths = list(pool.map(lambda example: length_of(data, example, left_out), examples))
    kept = [(example, length) for example, length in zip(examples, lengths, strict=True) if length]
    if not kept:
        raise UserError(f"None of the {len(examples):,} feature files of {data.name!r} can be used; get them again.")
    return [example for example, _ in kept], [length for _, length in kept]


def length_of(data: VideoSet, example: Example, left_out: LeftOut | None) -> int:
    """Return how many features an example has, all finite; 0 if it is left out."""
    try:
        return len(require_finite(features_of(data, example), example.name))
    except UserError as error:
        if left_out is None:
            raise
        left_out.add(example.name, str(error))
        return 0
