"""Action recognition: a VideoMAE with a head on the mean of its tokens."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax

from jax_promptmtl.models.video import videomae
from jax_promptmtl.models.video.form import InputForm
from jax_promptmtl.models.video.middle import Cut, VideoBackbone
from jax_promptmtl.models.video.videomae import VideoMaeConfig
from jax_promptmtl.problems.video_tasks import vision
from jax_promptmtl.problems.video_tasks.spec import Batch, Rules, VideoTaskSpec
from jax_promptmtl.tasks import recognition
from jax_promptmtl.tasks.task import VideoTask

Array = jax.Array
PyTree = Any
NAME = "recognition"


def handle(sizes: VideoMaeConfig, params: PyTree, form: InputForm, cut: Cut) -> VideoBackbone:
    """Return a classifier with the inputs video and, in training, the branch factors of `videomae.drop_path`."""
    model = videomae.handle(NAME, sizes, params, cut)
    return replace(model, lower=lambda params, inputs: model.lower(params, *inputs))


def see(form: InputForm, batch: Batch) -> tuple[Array, Array | None]:
    """Return the video and, in training, the branch factors of drop path."""
    return form.video(batch), batch.get("keep")


def rule(task: VideoTask, rules: Rules) -> VideoTask:
    """Return the task with scores averaged over test views, and with soft labels where enabled."""
    soft: dict[str, Any] = {"loss": recognition.soft_loss} if rules.soft else {}
    return replace(task, measure=partial(recognition.measure_views, views=rules.views), **soft)


SPEC = VideoTaskSpec(
    VideoTask(NAME, ("label",), recognition.loss, recognition.decode, recognition.measure, "top1"),
    module=videomae.VideoClassifier,
    sizes=vision.sizes,
    example=vision.example,
    handle=handle,
    see=see,
    adopt=vision.adopt,
    convert=vision.convert,
    heads=("pool/head/.*",),
    own="pool",
    block=vision.BLOCK,
    rule=rule,
    classifies=True,
    soft_labels=True,
    drop_path=True,
)
