"""What the trainings of the video jobs share: sources, rules, the loop's settings and the batches, out of a config."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jax_promptmtl.data.video_batches import Batch, ClipSource, training_batches
from jax_promptmtl.data.videos import feature_time
from jax_promptmtl.data.videos.index import VideoSet
from jax_promptmtl.data.videos.key_frames import by_frame
from jax_promptmtl.data.videos.left_out import LeftOut
from jax_promptmtl.data.videos.sampling import Sampling, Sources, sources
from jax_promptmtl.problems.video_tasks.spec import Rules, Sizes, VideoTaskSpec
from jax_promptmtl.tasks.mixing import Mixing


def in_form(spec: VideoTaskSpec, data: VideoSet, config: Any) -> VideoSet:
    """Return a data set with the times and the examples that its task, `spec`, is trained on."""
    data = feature_time.on_one_clock(data, config.feature.rate) if spec.timed else data
    return by_frame(data) if spec.key_frames else data


def sources_of(data: VideoSet, config: Any, left_out: LeftOut | None = None) -> Sources:
    """Return the sources of a data set's parts; without `left_out` a file that cannot be read ends the run."""
    seconds = config.feature.stride / config.feature.rate
    options = {"every": config.every, "multiple": config.multiple, "window": config.feature.most, "step": seconds}
    common = {"views": config.views, "seed": config.seed, "left_out": left_out}
    return sources(data, Sampling(**config.sampling), **common, **options)


def rules_of(data: VideoSet, config: Any, sizes: Sizes) -> Rules:
    """Return what the recipe and the rules of a data set's own evaluation decide about its task."""
    return Rules(
        scored=data.scored,
        background=data.background,
        views=config.sampling.clips * config.sampling.crops,
        soft="mixing" in config and mixing_of(config).on,
        every=config.every,
        points=config.points,
        sizes=sizes,
    )


def mixing_of(config: Any) -> Mixing:
    """Return how labels become soft."""
    return Mixing(**config.mixing)


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


def by_rules(spec: VideoTaskSpec, batches: Iterable[Batch], start_step: int, until: float) -> Iterator[Batch]:
    """Yield training batches with what the loss of a task's `rule` reads beside the labels.

    Args:
      spec: of the task.
      batches: from a step on.
      start_step: that step.
      until: step from which a model that a frozen part below guides at first goes on alone: `guided` bool[B].
    """
    for step, batch in enumerate(batches, start_step):
        guided = {"guided": np.full(len(batch["weight"]), step < until)} if spec.guided else {}
        yield {**(spec.weigh(batch) if spec.weigh else batch), **guided}
