"""Spatial action detection: a VideoMAE with AVA's head on given boxes."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jax_promptmtl.core import tree
from jax_promptmtl.models.video import roi_head
from jax_promptmtl.models.video.form import InputForm
from jax_promptmtl.models.video.middle import Cut, VideoBackbone
from jax_promptmtl.models.video.videomae import VideoMaeConfig
from jax_promptmtl.problems.video_tasks import vision
from jax_promptmtl.problems.video_tasks.spec import Batch, Rules, VideoTaskSpec
from jax_promptmtl.tasks import spatial
from jax_promptmtl.tasks.task import VideoTask

Array = jax.Array
PyTree = Any
NAME = "spatial_action"
ABSENT = -4.6  # initial logit of the head's bias: most boxes lack most actions


def example(sizes: VideoMaeConfig) -> tuple[Array, ...]:
    """Return one video with a box."""
    return *vision.example(sizes), jnp.zeros((1, 1, 4))


def handle(sizes: VideoMaeConfig, params: PyTree, form: InputForm, cut: Cut) -> VideoBackbone:
    """Return a detector."""
    return roi_head.handle(NAME, sizes, params, cut)


def see(form: InputForm, batch: Batch) -> dict[str, Array]:
    """Return the video, the boxes and, in training, the branch factors of drop path."""
    video = form.video(batch)
    boxes = batch["box"] if form.boxes else jnp.zeros((len(video), 0, 4))
    return {"video": video, "boxes": boxes} | {key: batch[key] for key in ("keep",) if key in batch}


def adopt(sizes: VideoMaeConfig, seed: int, given: PyTree, name: str) -> PyTree:
    """Return a detector's weights for these classes; else its trunk and last norm with a head near zero."""
    if "roi" in given:
        drawn = SPEC.draw(sizes, seed)
        if not tree.describe_difference(drawn, given):
            return given
        given = {"trunk": given["trunk"], "pool": {"fc_norm": given["roi"]["norm"]}}
    params = vision.adopt(sizes, seed, given, name)
    head = {"kernel": params["pool"]["head"]["kernel"] * 0.1, "bias": jnp.full(sizes.classes, ABSENT)}
    return roi_head.from_classifier(params, head)


def inherit(drawn: PyTree, base: PyTree) -> PyTree:
    """Return a classifier's trunk with a new head."""
    return roi_head.from_classifier(base, drawn["roi"]["head"])


def rule(task: VideoTask, rules: Rules) -> VideoTask:
    """Return the task with the scored classes and the loss of AVA's recipe."""
    return replace(task, loss=spatial.mean_loss, measure=partial(spatial.measure, scored=rules.scored))


SPEC = VideoTaskSpec(
    VideoTask(NAME, ("box", "label", "valid"), spatial.loss, spatial.decode, spatial.measure, "map"),
    module=roi_head.RoiDetector,
    sizes=vision.sizes,
    example=example,
    handle=handle,
    see=see,
    adopt=adopt,
    convert=vision.convert,
    heads=("roi/head/.*",),
    own="roi",
    block=vision.BLOCK,
    base="recognition",
    inherit=inherit,
    rule=rule,
    weigh=spatial.weigh_by_boxes,
    drop_path=True,
)
