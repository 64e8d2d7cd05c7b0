"""What a video job costs, before anything is trained: parameters and shares, memory, arithmetic, a cache's size."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jax_promptmtl.core import tree
from jax_promptmtl.core.problem import Problem
from jax_promptmtl.data.middle_cache import human
from jax_promptmtl.engine import loop
from jax_promptmtl.experiments.video.job import Job, Row, cache_bytes, job_stream, row_problem, row_settings
from jax_promptmtl.experiments.video.rows import ROWS

TRAINED_BEFORE = ("hps", "mvlpt")  # rows whose sizes need a training before
SHARE = """Shares are of all models that a row uses, once each, as the paper counts them."""


def describe(job: Job) -> Iterator[str]:
    """Yield lines: the frozen models, the rows, and what their states take."""
    for model in (job.footage.primary, *job.footage.aux):
        yield f"{model}: {job.footage.loaded((model,)):,} frozen parameters, {arithmetic(job, model)}"
    for name in job.config.rows:
        if name not in TRAINED_BEFORE:
            yield row_line(job, name)
    yield SHARE
    if "data" in job.config:  # of moving icons a dry run draws one video only
        yield cache_line(job)


def row_line(job: Job, name: str) -> str:
    """Return what a row trains, its share, and the memory of a step."""
    row = ROWS[name][1](job)
    problem, used = row_problem(job, row), job.footage.loaded((job.footage.primary, *row.aux))
    trained = tree.count(problem.params)
    line = f"{ROWS[name][0]}: {trained:,} trainable parameters, {100 * trained / used:.3g} % of all models"
    return f"{line}, {human(step_memory(job, row, problem, name))} for a step" if trained else line


def arithmetic(job: Job, model: str) -> str:
    """Return the multiply-adds of a model's lower half for one video."""
    view = job.view(model)
    batch = {key: np.asarray(leaf) for key, leaf in job.footage.videos("train").take(np.array([0])).items()}
    lower = jax.jit(lambda weights, batch: view.backbone.lower(weights, view.adapt(batch)))
    cost: Any = lower.lower(view.backbone.params, batch).cost_analysis()
    return f"{cost['flops'] / 2e9:,.3g} GMAC in the lower half for one video"


def cache_line(job: Job) -> str:
    """Return the size of a cache of all models' middle states, and what is done instead where there is none."""
    kept = f"kept in {job.place}" if job.place else "not kept: lower halves run in every step"
    return f"middle states of all videos: {human(cache_bytes(job))}, {kept}"


def step_memory(job: Job, row: Row, problem: Problem, name: str) -> int:
    """Return the bytes that a training step of a row needs on one device."""
    sources = row.sources["train"]
    settings = row_settings(job, name, len(sources[0]))
    return loop.memory(problem, next(job_stream(job, sources, 0)), settings)
