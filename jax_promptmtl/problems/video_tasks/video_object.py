"""Video object detection: a TransVOD, which learns in two stages, single frames and then several."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jax_promptmtl.core.errors import pick
from jax_promptmtl.models.video import convert_transvod, transvod
from jax_promptmtl.models.video.deformable_detr import DetectorConfig
from jax_promptmtl.models.video.form import InputForm
from jax_promptmtl.models.video.middle import Cut, VideoBackbone
from jax_promptmtl.models.video.resnet import ResNetConfig
from jax_promptmtl.models.video.transvod import TransVodConfig
from jax_promptmtl.problems.video_tasks.spec import Batch, Rules, VideoTaskSpec
from jax_promptmtl.tasks import video_object
from jax_promptmtl.tasks.task import VideoTask

Array = jax.Array
PyTree = Any
NAME = "video_object"
STAGES = ("single", "multi")


def sizes(model: Mapping[str, Any], classes: int, form: InputForm) -> TransVodConfig:
    """Construct a `TransVodConfig`, or that of its single-frame detector alone, from plain sizes."""
    several = pick(model["stage"], STAGES, "stage of TransVOD") == "multi"
    parts = ("stage", "resnet", "detector", "selected")
    rest = {key: value for key, value in model.items() if key not in parts}
    detector = DetectorConfig(ResNetConfig(**model["resnet"]), classes=classes, **model["detector"])
    return TransVodConfig(detector, tuple(model["selected"]) if several else (), **rest)


def example(sizes: TransVodConfig) -> tuple[Array, Array]:
    """Return one small video without padding."""
    return jnp.zeros((1, max(2, sizes.keys), 64, 64, 3)), jnp.ones((1, 64, 64), bool)


def handle(sizes: TransVodConfig, params: PyTree, form: InputForm, cut: Cut) -> VideoBackbone:
    """Return a detector for videos of the input form."""
    return transvod.handle(NAME, sizes, params, form.frames, form.size, cut)


def see(form: InputForm, batch: Batch) -> dict[str, Array]:
    """Return the video and the mask of real pixels."""
    return {"video": form.video(batch), "mask": form.shown(batch)}


def convert(path: str, sizes: TransVodConfig) -> PyTree:
    """Return the parameters of a published TransVOD or Deformable DETR."""
    return convert_transvod.load(path, sizes)[1]


def rule(task: VideoTask, rules: Rules) -> VideoTask:
    """Return the task of a training stage; with the temporal part only the detections of that part enter the loss."""
    if not rules.sizes.selected:
        return task

    def loss(outputs: Any, batch: Batch) -> Any:
        return video_object.loss(outputs._replace(logits=outputs.logits[:, -1:], boxes=outputs.boxes[:, -1:]), batch)

    return replace(task, loss=loss)


SPEC = VideoTaskSpec(
    VideoTask(NAME, ("box", "label", "valid"), video_object.loss, video_object.decode, video_object.measure, "ap50"),
    module=transvod.TransVod,
    sizes=sizes,
    example=example,
    handle=handle,
    see=see,
    width=lambda sizes: sizes.detector.width,
    convert=convert,
    later=("temporal",),
    unused=1,
    heads=("detector/(classify|place)_.*", "temporal/(classify|place)/.*"),
    frame_labels=("box", "valid"),
    rule=rule,
    key_frames=True,
)
