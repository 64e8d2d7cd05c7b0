"""Load a predictor for whatever a run was trained on, images or videos."""

import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.files import read_json
from jax_promptmtl.inference import VIDEO_JOBS, image_predictor
from jax_promptmtl.inference.image_predictor import Predictor

if TYPE_CHECKING:  # imported on use, so that images do not wait for the video models
    from jax_promptmtl.inference.video_predictor import VideoPredictor


PROMPTS = ".safetensors"  # the ending of saved prompts


def load(
    place: str | os.PathLike[str], *, classes: Sequence[str] | None = None, backbone: str | None = None
) -> "Predictor | VideoPredictor":
    """Load a predictor for images or videos.

    Args:
      place: a work directory; a folder that `jax_promptmtl.export` wrote; or, in the work directory of a video job, the
        prompts that it saved, prompts_<row>.safetensors, to be used without the auxiliaries.
      classes: new class names, for zero-shot use of the learned prompts; the trained ones if None. Images only.
      backbone: path of the backbone's weights, if they have moved since training. Images only.

    Raises:
      UserError: no checkpoint there, or one that does not classify.
    """
    home = pathlib.Path(place).expanduser()
    saved, home = (home, home.parent) if home.suffix == PROMPTS else (None, home)
    config = home / image_predictor.CONFIG
    job = str(read_json(config).get("job")) if config.is_file() else ""
    if job not in VIDEO_JOBS:
        return image_predictor.load(place, classes=classes, backbone=backbone)
    if classes or backbone:
        raise UserError(f"{str(place)!r} holds a model of clips, whose classes and weights are fixed; leave those out.")
    from jax_promptmtl.inference import video_predictor

    return video_predictor.load_static(saved) if saved else video_predictor.JOBS[job](home)
