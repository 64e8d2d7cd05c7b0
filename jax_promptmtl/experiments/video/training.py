"""What the trainings of the video jobs share: the loop's settings and the batches, out of a config."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jax_promptmtl.data.video_batches import Batch, ClipSource, training_batches


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


def stream(sources: Sequence[ClipSource], config: Any, start_step: int, *, views: int = 1) -> Iterator[Batch]:
    """Return the training batches of a job from a step on; the sources have so many views of every video."""
    size, seed = config.train.batch_size, config.seed
    return training_batches(sources, batch_size=size, seed=seed, start_step=start_step, views=views)
