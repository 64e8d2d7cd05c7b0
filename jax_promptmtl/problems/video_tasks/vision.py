"""Shared by tasks with a VideoMAE: sizes and initial weights of fine-tuning."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video import convert_videomae, videomae
from jax_promptmtl.models.video.form import InputForm
from jax_promptmtl.models.video.middle import draw
from jax_promptmtl.models.video.videomae import VideoMaeConfig

Array = jax.Array
PyTree = Any
BLOCK = "trunk/transformer/blocks_{}"


def sizes(model: Mapping[str, Any], classes: int, form: InputForm) -> VideoMaeConfig:
    """Construct a `VideoMaeConfig` with positions for the training input form."""
    return VideoMaeConfig(frames=form.frames, image_size=form.size[0], classes=classes, **model)


def example(sizes: VideoMaeConfig) -> tuple[Array]:
    """Return one video."""
    return (jnp.zeros((1, sizes.frames, sizes.image_size, sizes.image_size, sizes.channels)),)


def adopt(sizes: VideoMaeConfig, seed: int, given: PyTree, name: str) -> PyTree:
    """Return the trunk and last norm of the weights with a new head; all random without weights."""
    drawn = draw(videomae.VideoClassifier(sizes), example(sizes), seed)
    if not given:
        return drawn
    if difference := tree.describe_difference(drawn["trunk"], given.get("trunk", {})):
        raise UserError(f"The weights {name!r} do not fit config.model: {difference[:300]}; set its sizes to theirs.")
    pool = drawn["pool"] | {"fc_norm": given["pool"]["fc_norm"]} if "pool" in given else drawn["pool"]
    return {"trunk": given["trunk"], "pool": pool}


def convert(path: str, sizes: VideoMaeConfig) -> PyTree:
    """Return the parameters of a published VideoMAE of these sizes."""
    found, given, _ = convert_videomae.load(path, heads=sizes.heads)
    same: dict[str, Any] = {key: getattr(sizes, key) for key in ("classes", "frames", "image_size", "remat")}
    if replace(found, **same) != sizes:
        raise UserError(f"The weights {path!r} have the sizes {found}; set config.model to them.")
    return given
