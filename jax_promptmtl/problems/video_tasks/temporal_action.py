"""Temporal action detection: an ActionFormer on features."""

from collections.abc import Mapping
from typing import Any

from jax_promptmtl.models.video import actionformer, convert_actionformer
from jax_promptmtl.models.video.actionformer import ActionFormerConfig
from jax_promptmtl.models.video.form import InputForm
from jax_promptmtl.models.video.middle import Cut, VideoBackbone
from jax_promptmtl.problems.video_tasks.spec import TrainingStage, VideoTaskSpec, feature_example, features_with_mask
from jax_promptmtl.tasks import temporal
from jax_promptmtl.tasks.task import VideoTask

PyTree = Any
NAME = "temporal_action"


def sizes(model: Mapping[str, Any], classes: int, form: InputForm) -> ActionFormerConfig:
    """Construct an `ActionFormerConfig` from plain sizes."""
    return ActionFormerConfig(inputs=form.features_of().channels, classes=classes, **model)


def handle(sizes: ActionFormerConfig, params: PyTree, form: InputForm, cut: Cut) -> VideoBackbone:
    """Return a detector whose times are in the unit of the labels."""
    given = form.features_of()
    times = {"step": given.step, "start": given.start}
    return actionformer.handle(NAME, sizes, params, given.steps, cut, **times)


def convert(path: str, sizes: ActionFormerConfig) -> PyTree:
    """Return the parameters of a published ActionFormer."""
    return convert_actionformer.load(path, sizes.heads, sizes.window, sizes.reach)[1]


SPEC = VideoTaskSpec(
    VideoTask(NAME, ("segment", "label", "valid"), temporal.loss, temporal.decode, temporal.measure, "map"),
    module=actionformer.ActionFormer,
    sizes=sizes,
    example=feature_example,
    handle=handle,
    see=features_with_mask,
    convert=convert,
    heads=("model/(classify|regress)/.*",),
    own="model",
    extractor="recognition",
    timed=True,
    base="recognition",
    stages=(TrainingStage(NAME, ("model/.*",)),),
)
