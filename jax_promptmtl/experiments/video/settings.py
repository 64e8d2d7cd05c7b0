"""The loop's settings of a video job, out of its config."""

from collections.abc import Mapping
from typing import Any


def loop_settings(config: Any, videos: int, about: Mapping[str, Any], *, epochs: int | None = None) -> dict[str, Any]:
    """Return the settings of a training.

    Args:
      config: of the job.
      videos: that an epoch has.
      about: what a checkpoint says of the training beside them.
      epochs: those of the config when `None`.
    """
    steps = max(videos // config.train.batch_size, 1)
    run = {"seed": config.seed, "parallel": config.parallel, "evaluate_every": 0}
    whole = {"steps_per_epoch": steps, "steps": steps * (config.train.epochs if epochs is None else epochs)}
    return dict(config.train) | run | dict(about) | whole
