"""Time in files of features: one clock for videos of several frame rates, and features that do not fit their video."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from jax_promptmtl.core.errors import UserError, some
from jax_promptmtl.data.videos.features import open_features
from jax_promptmtl.data.videos.index import Example, VideoSet

SLACK = (2.0, 0.05)  # seconds, or share of the duration, by which features may be shorter or longer than their video


def on_one_clock(data: VideoSet, rate: float) -> VideoSet:
    """Return a set whose segments are in seconds of a clock that runs `rate` frames per second in all videos.

    Features are counted in frames: at 25 frames per second the one after 750 frames is that of second 30, and on a
    clock of 30 frames per second that of second 25. Overlaps of segments, so all measures, are the same on each clock.
    """

    def turned(example: Example) -> Example:
        if not example.rate or example.rate == rate or "segment" not in example.labels:
            return example
        segment = (example.labels["segment"] * (example.rate / rate)).astype(np.float32)
        return replace(example, labels={**example.labels, "segment": segment})

    return replace(data, parts={part: tuple(map(turned, examples)) for part, examples in data.parts.items()})


def misfits(data: VideoSet, feature: Mapping[str, float]) -> list[str]:
    """Return in words which features are shorter or longer than their video; files that cannot be read are passed over.

    Args:
      data: a set of feature files; segments are in the videos' own seconds.
      feature: `rate` in frames per second where the annotations tell none, `stride` and `window` in frames.
    """
    if not data.channels:
        return []
    apart: dict[str, int] = {}
    other: dict[str, str] = {}
    unseen: dict[str, int] = {}
    for example in {example.video: example for part in data.parts.values() for example in part}.values():
        try:
            steps = len(open_features(data.path(example.video), data.channels, data.channels_first))
        except UserError:
            continue
        if data.task == "segmentation":
            apart |= {example.name: gap} if (gap := abs(steps - len(example.labels["label"]))) else {}
            continue
        covered = ((steps - 1) * feature["stride"] + feature["window"]) / (example.rate or feature["rate"])
        if example.duration and abs(covered - example.duration) > max(SLACK[0], SLACK[1] * example.duration):
            other[f"{example.name} ({covered:.1f} of {example.duration:.1f} s)"] = example.name
        if late := int((example.labels["segment"][:, 0] >= covered).sum()):
            unseen[example.name] = late
    lines: list[tuple[Iterable[str], str]] = [
        (apart, f"more or fewer features than labels, by {max(apart.values(), default=0)} at most: cut to the shorter"),
        (other, "features for another time than they last"),
        (unseen, f"actions that no feature shows ({sum(unseen.values()):,})"),
    ]
    return [f"{len(list(names)):,} videos have {what}: {some(names)}" for names, what in lines if names]
