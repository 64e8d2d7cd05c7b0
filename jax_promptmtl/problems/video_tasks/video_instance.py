"""Video instance segmentation: a DVIS, which learns in three stages, segmenter, tracker and refiner."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.problem import Problem
from jax_promptmtl.models.video import convert_dvis, dvis
from jax_promptmtl.models.video.dvis import DvisConfig
from jax_promptmtl.models.video.form import InputForm
from jax_promptmtl.models.video.mask_decoder import MaskDecoderConfig
from jax_promptmtl.models.video.middle import Cut, VideoBackbone
from jax_promptmtl.models.video.pixel_decoder import PixelDecoderConfig
from jax_promptmtl.models.video.resnet import ResNetConfig
from jax_promptmtl.models.video.tracker import TrackerConfig
from jax_promptmtl.problems import video_mtl
from jax_promptmtl.problems.video_tasks.spec import Batch, Rules, TrainingStage, VideoTaskSpec
from jax_promptmtl.tasks import instance
from jax_promptmtl.tasks.metrics import tracklet_ap
from jax_promptmtl.tasks.task import VideoTask

Array = jax.Array
PyTree = Any
NAME = "video_instance"


def sizes(model: Mapping[str, Any], classes: int, form: InputForm) -> DvisConfig:
    """Construct a `DvisConfig` from plain sizes."""
    common: dict[str, Any] = {key: model[key] for key in ("width", "heads", "mask_width")}
    return DvisConfig(
        model["stage"],
        ResNetConfig(**model["resnet"]),
        PixelDecoderConfig(**common, **model["pixels"]),
        MaskDecoderConfig(**common, classes=classes, **model["decoder"]),
        TrackerConfig(**common, classes=classes, **model["tracker"]),
    )


def example(sizes: DvisConfig) -> tuple[Array, Array]:
    """Return one small video without padding."""
    return jnp.zeros((1, 2, 64, 64, 3)), jnp.ones((1, 2), bool)


def handle(sizes: DvisConfig, params: PyTree, form: InputForm, cut: Cut) -> VideoBackbone:
    """Return a segmenter for videos of the input form.

    Raises:
      UserError: frames whose size the mask stride does not divide.
    """
    (height, width), stride = form.size, stride_of(sizes)
    if height % stride or width % stride:
        raise UserError(
            f"Frames of {height} x {width} pixels do not fit masks of every {stride} pixels; give a sampling.canvas, "
            "or a sampling.size, that this number divides."
        )
    return dvis.handle(NAME, sizes, params, form.size, cut)


def stride_of(sizes: DvisConfig) -> int:
    """Return the pixels per cell of a DVIS's masks.

    >>> stride_of(DvisConfig())
    4
    """
    return 64 // sizes.backbone.shapes_of(64, 64)[0][0]


def see(form: InputForm, batch: Batch) -> dict[str, Array]:
    """Return the video and its mask of real frames."""
    video = form.video(batch)
    present = form.seen(batch, "present") if "present" in batch else jnp.ones(video.shape[:2], bool)
    return {"video": video, "mask": present}


def inherit(drawn: PyTree, base: PyTree) -> PyTree:
    """Return random parameters with a detector's ResNet."""
    return {**drawn, "backbone": drawn["backbone"] | base["detector"]["resnet"]}


def convert(path: str, sizes: DvisConfig) -> PyTree:
    """Return the parameters of a published DVIS."""
    return convert_dvis.load(path)[1]


def rule(task: VideoTask, rules: Rules) -> VideoTask:
    """Return the task with the loss and decoding of a training stage.

    Where the batch sets `guided`, the matching of queries to instances is that of the stage below.
    """
    stage, stride = rules.sizes.stage, stride_of(rules.sizes)
    one = partial(instance.loss, stage=stage, points=rules.points)

    def loss(outputs: Any, batch: Batch) -> Any:
        if stage == "minvis":
            return one(outputs, batch)
        sides = (partial(one, guided=True), partial(one, guided=False))
        return jax.lax.cond(batch["guided"].all(), *sides, outputs, {key: batch[key] for key in task.labels})

    def decode(outputs: Any, batch: Batch) -> dict[str, Array]:
        found = instance.decode(outputs, batch, stride=stride, guided=stage == "offline")
        return found | {"mask": found["mask"] & batch["shown"][:, None, None]}

    return replace(task, loss=loss, decode=decode)


def evaluate(problem: Problem, params: PyTree, batches: Iterable[Batch], classes: int) -> dict[str, float]:
    """Compute YouTube-VIS's metrics in percent, holding the masks of one batch at a time."""
    predict, videos = jax.jit(partial(video_mtl.predict_step, problem)), []
    for batch in batches:
        found = instance.found_of(jax.device_get(predict(params, problem.frozen, batch)))
        for weight, true, mine in zip(batch["weight"], instance.truth_of(batch), found, strict=True):
            videos += [tracklet_ap.compare(true, mine, num_classes=classes)] if weight else []
    if not videos:
        raise UserError("There is no clip to evaluate; look at the test part of the data.")
    result = tracklet_ap.score(videos, num_classes=classes)
    return {"map" if name == "ap" else name: 100 * value for name, value in result.items()}


SPEC = VideoTaskSpec(
    VideoTask(
        NAME,
        ("mask", "label", "valid"),
        instance.joint_loss,
        partial(instance.decode, stride=2),  # of the moving icons' model; `rule` derives that of others
        instance.measure,
        "map",
    ),
    module=dvis.Dvis,
    sizes=sizes,
    example=example,
    handle=handle,
    see=see,
    convert=convert,
    later=("tracker", "refiner"),
    heads=("(decoder|tracker)/say/.*",),
    frame_labels=("mask",),
    base="video_object",
    inherit=inherit,
    stages=(  # as upstream does
        TrainingStage(
            "segmenter",
            ("(pixels|decoder)/.*", "backbone/block_[23]_.*"),
            "minvis",
            partial(instance.loss, stage="minvis"),
        ),
        TrainingStage(
            "tracker", ("tracker/.*",), "online", partial(instance.loss, stage="online"), epochs="tracker_epochs"
        ),
    ),
    rule=rule,
    evaluate=evaluate,
    guided=True,
)
