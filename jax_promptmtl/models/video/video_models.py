"""The small models of the moving icons: how each is built, in which form it sees a clip, and where its weights are.

recognition and spatial_action are vision transformers on 16 frames; temporal_action and segmentation read features of
the trained recognition model, one per four frames. video_object is a TransVOD and video_instance a DVIS; they see 8
frames of a clip as primaries, 4 as auxiliaries. Every model takes clips of 16 or 64 frames of any task, so each can be
the auxiliary of each other.
"""

import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.core.files import ASSETS
from jax_promptmtl.core.hashes import weights_sha256
from jax_promptmtl.data.icons import moving_icons
from jax_promptmtl.data.video_batches import Clips
from jax_promptmtl.models.video import actionformer, asformer, dvis, featured, roi_head, transvod, videomae
from jax_promptmtl.models.video.deformable_detr import DetectorConfig
from jax_promptmtl.models.video.mask_decoder import MaskDecoderConfig
from jax_promptmtl.models.video.middle import VideoBackbone
from jax_promptmtl.models.video.pixel_decoder import PixelDecoderConfig
from jax_promptmtl.models.video.resnet import ResNetConfig
from jax_promptmtl.models.video.tracker import TrackerConfig
from jax_promptmtl.models.video.view import View

Array = jax.Array
PyTree = Any

VIT = videomae.VideoMaeConfig(frames=16, image_size=32, tubelet=4, patch=8, width=96, layers=6, heads=3, inner=384)
FRAMES = {"recognition": 16, "spatial_action": 16, "temporal_action": 64, "segmentation": 64}
FRAMES |= {"video_object": 16, "video_instance": 16}
EXTRACTOR = "recognition"  # whose trunk makes the features
ON_VIT = ("recognition", "spatial_action")
ON_FEATURES = ("temporal_action", "segmentation")
BY_FRAME = {"video_object": ("box", "valid"), "video_instance": ("mask",)}  # see a few frames; their labels of frames
SEEN = {"primary": 8, "auxiliary": 4}  # frames that they see of a clip
MODELS = (*ON_VIT, *ON_FEATURES, *BY_FRAME)
EMBEDDED = ASSETS / "video"


def sizes(task: str) -> Any:
    """Return the config of a task's model."""
    classes = len(moving_icons.classes(pick(task, FRAMES, "video model")))
    if task == "temporal_action":
        small: dict[str, Any] = {"heads": 4, "window": 9, "embeddings": 1, "stem": 2, "branch": 2, "reach": 4.0}
        return actionformer.ActionFormerConfig(inputs=VIT.width, width=64, classes=classes, **small)
    if task == "segmentation":
        return asformer.AsFormerConfig(inputs=VIT.width, width=64, layers=5, decoders=1, classes=classes)
    if task == "video_object":
        return small_transvod(classes)
    if task == "video_instance":
        return small_dvis(classes)
    return replace(VIT, classes=classes)


def small_transvod(classes: int) -> transvod.TransVodConfig:
    """Return the sizes of the TransVOD: maps of 8 x 8 cells; every frame that it sees is a key frame in turn."""
    resnet = ResNetConfig((1, 1, 1), 16, (2, 2, 2), dilated=(2,), stem=3, pool=False)
    small: dict[str, Any] = {"width": 64, "heads": 4, "encoders": 4, "decoders": 3, "inner": 128, "groups": 8}
    detector = DetectorConfig(resnet, **small, queries=10, classes=classes)
    return transvod.TransVodConfig(detector, selected=(5, 3), keys=0, temporal_points="fixed")


def small_dvis(classes: int) -> dvis.DvisConfig:
    """Return the sizes of the DVIS: masks of 16 x 16 cells, an encoder that sees 8 x 8, 4 x 4 and 2 x 2."""
    common: dict[str, Any] = {"width": 64, "heads": 4, "inner": 128, "mask_width": 64}
    return dvis.DvisConfig(
        "online",
        ResNetConfig((1, 1, 1, 1), 16, (2, 2, 2, 2), dilated=(), stem=3, pool=False),
        PixelDecoderConfig(**common, layers=4, groups=8),
        MaskDecoderConfig(**common, layers=3, queries=8, classes=classes),
        TrackerConfig(**common, layers=2, classes=classes, matching="fixed"),
    )


def width(task: str) -> int:
    """Return the width of a task's middle tokens.

    >>> width("segmentation")
    64
    """
    config = sizes(task)
    return config.detector.width if task == "video_object" else config.width


def build(
    task: str,
    weights: Mapping[str, PyTree],
    frames: int,
    middle: int | None = None,
    *,
    given: bool = False,
    drop_after: int = 0,
    seen: int = SEEN["primary"],
    stage: str = "online",
) -> VideoBackbone:
    """Return a task's model for clips of so many frames.

    Args:
      task: a key of `FRAMES`.
      weights: task -> parameters, with those of the extractor where the task needs features.
      frames: of the clips, 16 or 64.
      middle: layers in the lower half; half of them when `None`.
      given: take features instead of clips, for the training of a model on them.
      drop_after: layers that see prompts; all above the middle if 0.
      seen: frames that a model of `BY_FRAME` sees of a clip.
      stage: of the DVIS; minvis leaves its tracker out.
    """
    config, params = sizes(task), weights[task]
    some: dict[str, Any] = {"middle": middle, "drop_after": drop_after}
    if task == "recognition":
        return videomae.handle(task, config, params, **some)
    if task == "spatial_action":
        return roi_head.handle(task, config, params, **some)
    if task == "video_object":
        return transvod.handle(task, config, params, seen, (VIT.image_size, VIT.image_size), **some)
    if task == "video_instance":
        return dvis.handle(task, replace(config, stage=stage), params, (VIT.image_size, VIT.image_size), **some)
    trunk = weights[EXTRACTOR]["trunk"]
    if task == "segmentation":
        model = asformer.handle(task, config, params, **some)
        return featured.on_features(model, VIT, trunk, repeat=VIT.tubelet, given=given)
    step = float(VIT.tubelet)
    model = actionformer.handle(task, config, params, frames // VIT.tubelet, step=step, start=step / 2, **some)
    return featured.on_features(model, VIT, trunk, given=given)


def initial(task: str, seed: int) -> PyTree:
    """Draw the parameters of a task's model."""
    config, key = sizes(task), jax.random.key(seed)
    clip, boxes = jnp.zeros((1, VIT.frames, VIT.image_size, VIT.image_size, 3)), jnp.zeros((1, 1, 4))
    steps, mask = jnp.zeros((1, 32, VIT.width)), jnp.ones((1, 32), bool)
    models: Mapping[str, tuple[Any, tuple]] = {
        "recognition": (videomae.VideoClassifier, (clip,)),
        "spatial_action": (roi_head.RoiDetector, (clip, boxes)),
        "temporal_action": (actionformer.ActionFormer, (steps, mask)),
        "segmentation": (asformer.AsFormer, (steps, mask)),
        "video_object": (transvod.TransVod, (clip, jnp.ones((1, VIT.image_size, VIT.image_size), bool))),
        "video_instance": (dvis.Dvis, (clip, mask[:, : VIT.frames])),
    }
    constructor, inputs = models[task]
    return jax.jit(constructor(config).init)(key, *inputs)["params"]


def view(
    task: str,
    weights: Mapping[str, PyTree],
    frames: int,
    *,
    auxiliary: bool = False,
    middle: int | None = None,
    given: bool = False,
    drop_after: int = 0,
    seen: int = 0,
    stage: str = "online",
) -> View:
    """Return a task's model with the form in which it sees clips of so many frames; see `build`.

    An auxiliary sees no boxes, which are labels. Where features are `given`, they are what `extract` returns.
    """
    if task in BY_FRAME:
        seen = seen or SEEN["auxiliary" if auxiliary else "primary"]
    else:
        seen = frames if task in ON_FEATURES else VIT.frames
    backbone = build(task, weights, frames, middle, given=given, drop_after=drop_after, seen=seen, stage=stage)
    spec = {"frames": seen, "pixels": "standardised per clip", "boxes": not auxiliary}
    see = adapter(task, seen, boxes=not auxiliary)
    return View(backbone, (lambda batch: batch["features"]) if given else see, spec)


def layer_above(backbone: VideoBackbone) -> str | None:
    """Return the path of the layer above the middle of a transformer, `None` for a model of another kind."""
    return f"trunk/transformer/blocks_{backbone.middle}" if backbone.name in ON_VIT else None


def extract(trunk: PyTree, batch: Mapping[str, Any]) -> dict[str, Array]:
    """Return the features of clips, which the models on features read: `features` float[B, L / tubelet, D]."""
    return {"features": featured.features(VIT, trunk, adapter(EXTRACTOR, None, boxes=False)(batch))}


def adapter(task: str, seen: int | None, *, boxes: bool) -> Callable[[Mapping[str, Array]], Any]:
    """Return the function from a batch to the inputs of a task's model, with so many frames; all when `None`."""

    def adapt(batch: Mapping[str, Array]) -> Any:
        frames = batch["frames"] if seen is None else uniform(batch["frames"], seen)
        video = standardise(frames)
        if task == "video_object":
            return {"video": video, "mask": jnp.ones((len(video), *video.shape[2:4]), bool)}
        if task == "video_instance":
            return {"video": video, "mask": jnp.ones(video.shape[:2], bool)}
        if task != "spatial_action":
            return video
        return {"video": video, "boxes": batch["box"] if boxes else jnp.zeros((len(video), 0, 4))}

    return adapt


@dataclass(frozen=True)
class Drawn:
    """Moving icons of a task that take no memory: every clip is drawn when it is asked for, in a millisecond or two.

    >>> Drawn("recognition", 1000, "tune").take(np.array([0, 999]))["label"].shape
    (2,)
    """

    task: str
    count: int
    part: str
    seed: int = 0
    seen: int = SEEN["primary"]

    def __len__(self) -> int:
        return self.count

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return the clips at the indices."""
        made = moving_icons.clips(self.task, indices, part=self.part, seed=self.seed)
        return label_seen(self.task, made, self.seen)


def standardise(frames: Array) -> Array:
    """Take the mean colour from a clip [B, L, H, W, 3] of bytes, and divide by its spread over pixels and colours.

    >>> standardise(jnp.array([0, 2], jnp.uint8).reshape(1, 1, 1, 2, 1)).ravel().tolist()
    [-0.5, 0.5]
    """
    video = frames.astype(jnp.float32)
    video -= video.mean(axis=(1, 2, 3), keepdims=True)
    return video / (1 + video.std(axis=(1, 2, 3, 4), keepdims=True))  # a clip of one colour has no spread


def clips(task: str, count: int, part: str, *, variant: str = "base", seed: int = 0) -> Clips:
    """Return moving icons of a task, in memory."""
    made = moving_icons.clips(task, range(count), part=part, variant=variant, seed=seed)
    return Clips(label_seen(task, made, SEEN["primary"]))


def label_seen(task: str, made: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Return clips whose labels of frames are those of the frames that the task's model sees.

    >>> label_seen("video_object", {"valid": np.arange(4)[None], "label": np.arange(3)[None]}, 2)
    {'valid': array([[1, 3]]), 'label': array([[0, 1, 2]])}
    """
    return {key: uniform(leaf, count) if key in BY_FRAME.get(task, ()) else leaf for key, leaf in made.items()}


def labels(source: Clips) -> Clips:
    """Return clips without their frames, where models bring what they saw of them."""
    return Clips({key: value for key, value in source.arrays.items() if key != "frames"})


def uniform(frames: Any, count: int) -> Any:
    """Return so many frames at even distances, repeated where a clip has fewer.

    Args:
      frames: [B, L, ...].
      count: frames wanted.

    >>> uniform(np.arange(8)[None], 4).tolist(), uniform(np.arange(2)[None], 4).tolist()
    ([[1, 3, 5, 7]], [[0, 0, 1, 1]])
    """
    places = ((np.arange(count) + 0.5) * frames.shape[1] / count).astype(int)
    return frames[:, places]


def save(folder: str | pathlib.Path, task: str, params: PyTree, card: Mapping[str, Any]) -> None:
    """Write `<task>.safetensors` and a card beside it."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    leaves = {path: np.ascontiguousarray(leaf, np.float32) for path, leaf in tree.flatten(params).items()}
    save_file(leaves, folder / f"{task}.safetensors")
    content = {"task": task, "sha256": weights_sha256(tree.unflatten(leaves)), "parameters": tree.count(params)}
    (folder / f"{task}.json").write_text(json.dumps(content | dict(card), indent=2) + "\n")


def needed(tasks: Iterable[str]) -> set[str]:
    """Return tasks whose models are wanted, with the extractor's where some need its features.

    >>> sorted(needed(["segmentation"])), needed(["video_object"])
    (['recognition', 'segmentation'], {'video_object'})
    """
    return {*tasks, *([EXTRACTOR] if set(tasks) & set(ON_FEATURES) else [])}


def load(folder: str | pathlib.Path, tasks: tuple[str, ...]) -> dict[str, PyTree]:
    """Return task -> parameters, with the extractor's where a task needs features.

    Args:
      folder: of `save`; the embedded models when empty.
      tasks: whose models are wanted.

    Raises:
      UserError: a file that is missing, damaged, of other sizes, or trained on the features of another extractor.
    """
    path = pathlib.Path(folder) if folder else EMBEDDED
    weights = {task: read(path, task) for task in sorted(needed(tasks))}
    for task in sorted(set(tasks) & set(ON_FEATURES)):
        trained_on = json.loads((path / f"{task}.json").read_text()).get("features")
        if trained_on != weights_sha256(weights[EXTRACTOR]):
            raise UserError(
                f"The model {str(path / task)!r} was trained on features of another {EXTRACTOR} model than the one "
                "beside it; train it again with configs/video.py."
            )
    return weights


def read(folder: pathlib.Path, task: str) -> PyTree:
    """Return the parameters of one file."""
    file = folder / f"{task}.safetensors"
    try:
        params = tree.unflatten(load_file(file))
        sha = json.loads(file.with_suffix(".json").read_text())["sha256"]
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(
            f"Cannot read the model {str(file)!r} ({type(error).__name__}); make it with "
            f"python -m jax_promptmtl.main --config=configs/video.py:{task}, or give another config.models."
        ) from error
    difference = tree.describe_difference(jax.eval_shape(lambda: initial(task, 0)), params)
    if difference or weights_sha256(params) != sha:
        raise UserError(f"The model {str(file)!r} is not what its card says: {difference or 'other bytes'}.")
    return params
