"""The small models for moving icons: sizes, input forms and weights.

recognition and spatial_action see 16 frames; temporal_action and segmentation read features of the trained recognition
model, one per four frames. video_object and video_instance see 8 frames of a video as primaries, 4 as auxiliaries.
Every model accepts videos of 16 or 64 frames of any task, so each can be an auxiliary of any other.
"""

import os
import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.core.files import ASSETS
from jax_promptmtl.data.icons import moving_icons
from jax_promptmtl.data.video_batches import Clips
from jax_promptmtl.models.video import featured
from jax_promptmtl.models.video.form import Features, InputForm
from jax_promptmtl.models.video.middle import Cut
from jax_promptmtl.models.video.model_file import SUFFIX, read_model
from jax_promptmtl.models.video.pixels import STANDARDISED, uniform
from jax_promptmtl.models.video.videomae import VideoMaeConfig
from jax_promptmtl.models.video.view import View
from jax_promptmtl.problems.video_tasks import SPECS
from jax_promptmtl.problems.video_tasks.spec import AS_PRIMARY, Extractor, Sight, Sizes, VideoTaskSpec

Array = jax.Array
PyTree = Any
VIT = {"tubelet": 4, "patch": 8, "width": 96, "layers": 6, "heads": 3, "inner": 384}
RESNET = {"width": 16, "stem": 3, "pool": False}
MASKS = {"width": 64, "heads": 4, "mask_width": 64}
SIZES: dict[str, dict[str, Any]] = {  # in the format of `config.model` in configs/video_full.py
    "recognition": VIT,
    "spatial_action": VIT,
    "temporal_action": {"width": 64, "heads": 4, "window": 9, "embeddings": 1, "stem": 2, "branch": 2, "reach": 4.0},
    "segmentation": {"width": 64, "layers": 5, "decoders": 1},
    "video_object": {  # maps of 8 x 8 cells; every frame is a key frame
        "stage": "multi",
        "resnet": RESNET | {"depths": (1, 1, 1), "strides": (2, 2, 2), "dilated": (2,)},
        "detector": {"width": 64, "heads": 4, "encoders": 4, "decoders": 3, "inner": 128, "groups": 8, "queries": 10},
        "selected": (5, 3),
        "keys": 0,
        "temporal_points": "fixed",
    },
    "video_instance": MASKS  # masks of 16 x 16 cells, an encoder that sees 8 x 8, 4 x 4 and 2 x 2
    | {
        "stage": "online",
        "resnet": RESNET | {"depths": (1, 1, 1, 1), "strides": (2, 2, 2, 2), "dilated": ()},
        "pixels": {"inner": 128, "layers": 4, "groups": 8},
        "decoder": {"inner": 128, "layers": 3, "queries": 8},
        "tracker": {"inner": 128, "layers": 2, "matching": "fixed"},
    },
}
SIDE, STRETCH = 32, 16  # side of a frame in pixels, frames per vision transformer input
SEEN = {"primary": 8, "auxiliary": 4}  # frames per video for models with per-frame labels
EMBEDDED = ASSETS / "video"


def frames_of(task: str) -> int:
    """Return the number of frames of a task's videos.

    >>> frames_of("segmentation")
    64
    """
    return moving_icons.DOMAINS[pick(task, SPECS, "video model"), "base"].frames


def form_of(spec: VideoTaskSpec, frames: int, sight: Sight = AS_PRIMARY) -> InputForm:
    """Return the form in which a task's model sees videos of so many frames."""
    seen = frames if spec.extractor else STRETCH
    if spec.frame_labels:
        seen = sight.seen or SEEN["auxiliary" if sight.auxiliary else "primary"]
    step = VIT["tubelet"]
    features = Features(seen // step, VIT["width"], float(step), step / 2) if spec.extractor else None
    return InputForm(seen, (SIDE, SIDE), STANDARDISED, not sight.auxiliary, features)


def sizes(task: str, stage: str = "") -> Sizes:
    """Return the sizes of a task's model."""
    form = form_of(SPECS[pick(task, SPECS, "video model")], frames_of(task))
    plain = SIZES[task] | ({"stage": stage} if stage and "stage" in SIZES[task] else {})
    return SPECS[task].sizes(plain, len(moving_icons.classes(task)), form)


def initial(task: str, seed: int) -> PyTree:
    """Draw the parameters of a task's model."""
    return SPECS[task].draw(sizes(task), seed)


def trunk_sizes(spec: VideoTaskSpec) -> VideoMaeConfig:
    """Return the sizes of the transformer that computes a task's features."""
    found: VideoMaeConfig = sizes(spec.extractor)
    return found


def view(task: str, weights: Mapping[str, PyTree], frames: int, sight: Sight = AS_PRIMARY) -> View:
    """Return a task's model with the form in which it sees videos of so many frames.

    Args:
      task: whose model.
      weights: task -> parameters, with those of the extractor where the task needs features.
      frames: of the videos, 16 or 64.
      sight: how it reads them. Where features are `given`, they are those of `extract`.
    """
    spec = SPECS[task]
    extractor = None
    if spec.extractor:
        extractor = Extractor(trunk_sizes(spec), weights[spec.extractor]["trunk"], sight.given)
    form, cut = form_of(spec, frames, sight), Cut(sight.middle, sight.drop_after)
    return spec.view(sizes(task, sight.stage), weights[task], form, cut=cut, extractor=extractor)


def extract(task: str, trunk: PyTree, batch: Mapping[str, Any]) -> dict[str, Array]:
    """Return the features that a task's model reads of videos: `features` float[B, L / tubelet, D]."""
    form = replace(form_of(SPECS[task], batch["frames"].shape[1]), boxes=False)
    return {"features": featured.features(trunk_sizes(SPECS[task]), trunk, form.video(batch))}


def needed(tasks: Iterable[str]) -> set[str]:
    """Return the given tasks, plus the extractor's where some need its features.

    >>> sorted(needed(["segmentation"])), needed(["video_object"])
    (['recognition', 'segmentation'], {'video_object'})
    """
    return {name for task in tasks for name in (task, SPECS[task].extractor) if name}


def load(folder: str | os.PathLike[str], tasks: Iterable[str]) -> dict[str, PyTree]:
    """Load task -> parameters, with the extractor's where a task needs features.

    Args:
      folder: of the model files; those of the package when empty.
      tasks: whose models are wanted.

    Raises:
      UserError: a file that is missing, damaged, of other sizes, or trained on the features of another extractor.
    """
    path = pathlib.Path(folder) if folder else EMBEDDED
    models = {task: read_model(path / f"{task}{SUFFIX}", **wanted(task)) for task in sorted(needed(tasks))}
    for task in sorted(models):
        extractor = SPECS[task].extractor
        if extractor and models[task].card.get("features") != models[extractor].card["sha256"]:
            raise UserError(
                f"The model {str(path / task)!r} was trained on features of another {extractor} model than the one "
                "beside it; train it again with configs/video.py."
            )
    return {task: model.params for task, model in models.items()}


def wanted(task: str) -> dict[str, Any]:
    """Describe the model file expected of a task and how to create one."""
    command = f"python -m jax_promptmtl.main --config=configs/video.py:{task}"
    advice = f"make it with {command}, or give another config.models"
    return {"shapes": jax.eval_shape(lambda: initial(task, 0)), "advice": advice}


@dataclass(frozen=True)
class Drawn:
    """Moving icons rendered on demand, one or two milliseconds per video, instead of kept in memory.

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
        """Return the videos at the indices."""
        made = moving_icons.clips(self.task, indices, part=self.part, seed=self.seed)
        return label_seen(self.task, made, self.seen)


def videos(task: str, count: int, part: str, *, variant: str = "base", seed: int = 0) -> Clips:
    """Return moving icons of a task, in memory."""
    made = moving_icons.clips(task, range(count), part=part, variant=variant, seed=seed)
    return Clips(label_seen(task, made, SEEN["primary"]))


def label_seen(task: str, made: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Subsample per-frame labels to the frames that the task's model sees.

    >>> label_seen("video_object", {"valid": np.arange(4)[None], "label": np.arange(3)[None]}, 2)
    {'valid': array([[1, 3]]), 'label': array([[0, 1, 2]])}
    """
    return {key: uniform(leaf, count) if key in SPECS[task].frame_labels else leaf for key, leaf in made.items()}


def labels(source: Clips) -> Clips:
    """Return labels without frames, for models with cached middle states."""
    return Clips({key: value for key, value in source.arrays.items() if key != "frames"})
