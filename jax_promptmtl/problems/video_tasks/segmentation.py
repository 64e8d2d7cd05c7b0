"""Action segmentation: an ASFormer on features."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from jax_promptmtl.models.video import asformer, convert_asformer
from jax_promptmtl.models.video.asformer import AsFormerConfig
from jax_promptmtl.models.video.form import InputForm
from jax_promptmtl.models.video.middle import Cut, VideoBackbone
from jax_promptmtl.problems.video_tasks.spec import (
    Rules,
    TrainingStage,
    VideoTaskSpec,
    feature_example,
    features_with_mask,
)
from jax_promptmtl.tasks import segmentation
from jax_promptmtl.tasks.task import VideoTask

PyTree = Any
NAME = "segmentation"


def sizes(model: Mapping[str, Any], classes: int, form: InputForm) -> AsFormerConfig:
    """Construct an `AsFormerConfig` from plain sizes."""
    return AsFormerConfig(inputs=form.features_of().channels, classes=classes, **model)


def handle(sizes: AsFormerConfig, params: PyTree, form: InputForm, cut: Cut) -> VideoBackbone:
    """Return an ASFormer, which labels every step of a feature sequence."""
    return asformer.handle(NAME, sizes, params, cut)


def convert(path: str, sizes: AsFormerConfig) -> PyTree:
    """Return the parameters of a published ASFormer."""
    return convert_asformer.load(path, sizes.window_mask)[1]


def rule(task: VideoTask, rules: Rules) -> VideoTask:
    """Return the task measured on all labelled frames, with the data set's background classes."""
    measure = partial(measure_frames, every=rules.every, background=rules.background)
    return replace(task, labels=("label", "full"), measure=measure)


def measure_frames(
    predictions: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], *, every: int, background: tuple[int, ...]
) -> dict[str, float]:
    """Measure segmentation over all frames, each prediction repeated `every` times.

    >>> found, true = {"label": np.array([[1, 2]])}, {"full": np.array([[1, 1, 2, -1]])}
    >>> measure_frames(found, true, every=2, background=())["accuracy"]
    100.0
    """
    spread = {"label": np.repeat(predictions["label"], every, axis=1)}
    return segmentation.measure(spread, {"label": labels["full"]}, background)


SPEC = VideoTaskSpec(
    VideoTask(NAME, ("label",), segmentation.loss, segmentation.decode, segmentation.measure, "f1@50"),
    module=asformer.AsFormer,
    sizes=sizes,
    example=feature_example,
    handle=handle,
    see=features_with_mask,
    convert=convert,
    head="head",
    heads=("model/(encoder|decoders_.*)/head/.*",),
    extractor="recognition",
    every_frame=True,
    base="recognition",
    stages=(TrainingStage(NAME, ("model/.*",)),),
    rule=rule,
)
