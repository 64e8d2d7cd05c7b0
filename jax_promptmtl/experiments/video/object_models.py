"""TransVOD and DVIS for the fine-tuning job: their sizes, the weights they start from, what they see and learn.

Both learn in stages, of which `model.stage` names one. The next stage starts from the weights of the one before.
"""

import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.core.problem import Problem
from jax_promptmtl.data.videos.augment import MEAN, STD
from jax_promptmtl.models.video import convert_dvis, convert_transvod, dvis, transvod
from jax_promptmtl.models.video.deformable_detr import DetectorConfig
from jax_promptmtl.models.video.mask_decoder import MaskDecoderConfig
from jax_promptmtl.models.video.pixel_decoder import PixelDecoderConfig
from jax_promptmtl.models.video.resnet import ResNetConfig
from jax_promptmtl.models.video.tracker import TrackerConfig
from jax_promptmtl.models.video.view import View
from jax_promptmtl.problems import video_mtl
from jax_promptmtl.tasks import instance, video_object
from jax_promptmtl.tasks.metrics import tracklet_ap
from jax_promptmtl.tasks.task import VideoTask

Array = jax.Array
PyTree = Any
Batch = Mapping[str, Any]

OBJECT_STAGES = ("single", "multi")
LATER = ("temporal", "tracker", "refiner")  # parts that a later stage adds
HEAD = "classify"  # in the path of what depends on the classes


def normalised(frames: Array) -> Array:
    """Return frames of 0 to 255, [..., 3], as models that began with ImageNet see them."""
    return (frames.astype(jnp.float32) / 255 - jnp.array(MEAN)) / jnp.array(STD)


def padded(batch: Batch) -> Array:
    """Return normalised frames float[B, L, H, W, 3], zero in the padding."""
    return jnp.where(batch["shown"][:, None, :, :, None], normalised(batch["frames"]), 0.0)


# --- TransVOD ---


def detector_sizes(classes: int, config: Any) -> transvod.TransVodConfig:
    """Return the sizes of a TransVOD, or of its detector of single frames."""
    model = config.model
    several = pick(model.stage, OBJECT_STAGES, "stage of TransVOD") == "multi"
    detector = DetectorConfig(ResNetConfig(**model.resnet), classes=classes, **model.detector)
    selected = tuple(model.selected) if several else ()
    return transvod.TransVodConfig(detector, selected, temporal_points=model.temporal_points)


def detector(classes: int, config: Any, batch: Batch) -> View:
    """Return a TransVOD that detects the first frame of a clip."""
    sizes = detector_sizes(classes, config)
    given = read(config.weights, lambda path: convert_transvod.load(path, sizes)[1])
    inputs = (jnp.zeros((1, 2, 64, 64, 3)), jnp.ones((1, 64, 64), bool))
    params = adopt(draw(transvod.TransVod(sizes), inputs, config.seed), given, config.weights, unused=1)
    frames, *size = batch["frames"].shape[1:4]
    model = transvod.handle("video_object", sizes, params, frames, (size[0], size[1]))
    return View(model, lambda batch: {"video": padded(batch), "mask": batch["shown"]})


def detection(task: VideoTask, config: Any) -> VideoTask:
    """Return the task of detection: with the temporal part, only its own detections are compared with the truth."""
    if config.model.stage == "single":
        return task

    def loss(outputs: Any, batch: Batch) -> Any:
        return video_object.loss(outputs._replace(logits=outputs.logits[:, -1:], boxes=outputs.boxes[:, -1:]), batch)

    return replace(task, loss=loss)


# --- DVIS ---


def segmenter_sizes(classes: int, config: Any) -> dvis.DvisConfig:
    """Return the sizes of a DVIS."""
    model = config.model
    common: dict[str, Any] = {key: model[key] for key in ("width", "heads", "mask_width")}
    return dvis.DvisConfig(
        model.stage,
        ResNetConfig(**model.resnet),
        PixelDecoderConfig(**common, **model.pixels),
        MaskDecoderConfig(**common, classes=classes, **model.decoder),
        TrackerConfig(**common, classes=classes, **model.tracker),
    )


def segmenter(classes: int, config: Any, batch: Batch) -> View:
    """Return a DVIS."""
    sizes = segmenter_sizes(classes, config)
    height, width = batch["frames"].shape[2:4]
    if height % stride_of(sizes) or width % stride_of(sizes):
        raise UserError(
            f"Frames of {height} x {width} pixels do not fit masks of every {stride_of(sizes)} pixels; give a "
            "sampling.canvas, or a sampling.size, that this number divides."
        )
    given = read(config.weights, lambda path: convert_dvis.load(path)[1])
    inputs = (jnp.zeros((1, 2, 64, 64, 3)), jnp.ones((1, 2), bool))
    params = adopt(draw(dvis.Dvis(sizes), inputs, config.seed), given, config.weights)
    model = dvis.handle("video_instance", sizes, params, (height, width))
    return View(model, lambda batch: {"video": padded(batch), "mask": batch["present"]})


def stride_of(sizes: dvis.DvisConfig) -> int:
    """Return the pixels per cell of a DVIS's masks.

    >>> stride_of(dvis.DvisConfig())
    4
    """
    return 64 // sizes.backbone.shapes_of(64, 64)[0][0]


def instances(task: VideoTask, config: Any) -> VideoTask:
    """Return the task of instances, as a stage of DVIS learns and answers it.

    Where the batch says `guided`, the part below chooses who answers for what.
    """
    stage = config.model.stage
    one = partial(instance.loss, stage=stage, points=config.points)
    stride = stride_of(segmenter_sizes(1, config))

    def loss(outputs: Any, batch: Batch) -> Any:
        if stage == "minvis":
            return one(outputs, batch)
        sides = (partial(one, guided=True), partial(one, guided=False))
        return jax.lax.cond(batch["guided"].all(), *sides, outputs, {key: batch[key] for key in task.labels})

    def decode(outputs: Any, batch: Batch) -> dict[str, Array]:
        found = instance.decode(outputs, batch, stride=stride, guided=stage == "offline")
        return found | {"mask": found["mask"] & batch["shown"][:, None, None]}

    return replace(task, loss=loss, decode=decode)


def guide(batches: Iterable[Batch], start_step: int, until: float) -> Iterable[Batch]:
    """Say in every batch whether its step is one of the first `until` ones, as `guided` bool[B]."""
    for step, batch in enumerate(batches, start_step):
        yield {**batch, "guided": np.full(len(batch["weight"]), step < until)}


def measure(problem: Problem, params: PyTree, batches: Iterable[Batch], classes: int) -> dict[str, float]:
    """Return YouTube-VIS's measures of all videos in percent; the masks of one batch are in memory at a time."""
    predict, videos = jax.jit(partial(video_mtl.predict_step, problem)), []
    for batch in batches:
        found = instance.found_of(jax.device_get(predict(params, problem.frozen, batch)))
        for weight, true, mine in zip(batch["weight"], instance.truth_of(batch), found, strict=True):
            videos += [tracklet_ap.compare(true, mine, num_classes=classes)] if weight else []
    if not videos:
        raise UserError("There is no clip to evaluate; look at the test part of the data.")
    result = tracklet_ap.score(videos, num_classes=classes)
    return {"map" if name == "ap" else name: 100 * value for name, value in result.items()}


# --- weights to start from ---


def draw(model: nn.Module, inputs: tuple, seed: int) -> PyTree:
    """Draw the parameters of a model."""
    return initialiser(model)(jax.random.key(seed), *inputs)["params"]


@cache
def initialiser(model: nn.Module) -> Any:
    """Return the compiled function that draws a model's parameters: training and tests draw the same ones."""
    return jax.jit(model.init)


def read(weights: str, convert: Any) -> PyTree:
    """Return what a file has: that of an earlier stage, which has a card beside it, or a published one; {} without one.

    Args:
      weights: of the file, or "".
      convert: reads a published one.
    """
    path = pathlib.Path(weights)
    if not weights or path.suffix != ".safetensors" or not path.with_suffix(".json").exists():
        return convert(weights) if weights else {}
    try:
        return tree.unflatten(load_file(path))
    except (OSError, SafetensorError) as error:
        raise UserError(f"Cannot read the weights {weights!r} ({error}); train them again.") from error


def adopt(drawn: PyTree, given: PyTree, name: str, *, unused: int = 0) -> PyTree:
    """Return drawn parameters with those that weights have in their place.

    Parts of another stage stay drawn, or are left out; heads for other classes stay drawn.

    Args:
      drawn, given: trees of parameters; given may be {}.
      name: of the weights, for the message.
      unused: first classes of a head that may be there and are left out: upstream's detector counts from 1.
    """
    if not given:
        return drawn
    wanted = tree.flatten(drawn)
    there = {path: leaf for path, leaf in tree.flatten(given).items() if belongs(path, drawn)}
    there = {path: fit(path, leaf, wanted, unused) for path, leaf in there.items()}
    missing = {path: leaf for path, leaf in wanted.items() if path.startswith(LATER) and path not in there}
    found = tree.unflatten(there | missing)
    if difference := tree.describe_difference(drawn, found):
        raise UserError(f"The weights {name!r} do not fit config.model: {difference[:300]}; set its sizes to theirs.")
    return found


def belongs(path: str, drawn: PyTree) -> bool:
    """Return whether a weight is of a part that the stage has, or of none that a stage adds."""
    part = path.split("/")[0]
    return part in drawn or part not in LATER


def fit(path: str, leaf: Any, wanted: Mapping[str, Any], unused: int) -> Any:
    """Return a weight; if it is of a head for other classes, what fits this one."""
    if path not in wanted or f"/{HEAD}" not in path or np.shape(leaf) == np.shape(wanted[path]):
        return leaf
    rest = leaf[..., unused:]
    return rest if np.shape(rest) == np.shape(wanted[path]) else wanted[path]
