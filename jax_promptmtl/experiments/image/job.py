"""What the stages of a tuning job share: its data and backbone, and what its method is worth."""

import contextlib
import pathlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jax_promptmtl.core.outline import outline
from jax_promptmtl.core.problem import Problem
from jax_promptmtl.data import sampler
from jax_promptmtl.data.preprocess import Preprocess
from jax_promptmtl.data.source import Suite
from jax_promptmtl.engine import parallel, processes, step
from jax_promptmtl.engine.preemption import heed, heeding
from jax_promptmtl.methods.clustering import Groups
from jax_promptmtl.models.clip.model import Backbone
from jax_promptmtl.problems import clip_mtl, image_features, templates


@dataclass(frozen=True)
class Job:
    """What all stages share."""

    config: Any
    workdir: pathlib.Path
    suite: Suite
    backbone: Backbone
    preprocess: Preprocess
    seconds: dict[str, float] = field(default_factory=dict)
    quiet: bool = False  # says nothing
    encoded: dict[str, Suite] = field(default_factory=dict)  # split: the suite with features in place of its images
    __repr__ = outline

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the task names."""
        return tuple(task.name for task in self.suite.tasks)

    def say(self, line: str) -> None:
        """Print a line unless the job is quiet."""
        if not self.quiet:
            print(line, flush=True)

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Announce a stage and keep its wall time."""
        heed()
        self.say(f"{stage} ...")
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start

    def problem(self, part: Mapping[str, Any], groups: Groups, *, task_gradients: bool = False) -> Problem:
        """Build the problem of a config section with `method`, `sharing` and `tune`; see `clip_mtl.Options`."""
        options = {key: part[key] for key in ("method", "sharing", "tune")}
        about = {"template": templates.resolve(self.config.template), "seed": self.config.seed, "groups": groups}
        savings = {"dtype": self.config.backbone.dtype, "task_gradients": task_gradients, **self.config.memory}
        savings["mesh"] = parallel.divisible(self.config.parallel)
        return clip_mtl.build(self.suite, self.backbone, clip_mtl.Options(**options, **about, **savings))

    def inputs(self, problem: Problem, split: str) -> Suite:
        """Return the suite, with features in place of a split's images where a problem is content with those."""
        if not problem.takes_features or (split == "train" and self.preprocess.random):
            return self.suite
        if split not in self.encoded:
            how = image_features.Encoding(
                self.config.evaluation_batch_size, self.config.workers, self.config.backbone.dtype, self.config.parallel
            )
            self.encoded[split] = image_features.encode_suite(self.suite, self.backbone, self.preprocess, split, how)
        return self.encoded[split]

    def evaluate(self, problem: Problem, params: Any) -> dict[str, np.ndarray]:
        """Predict every test image once; see `step.evaluate`."""
        options = {"batch_size": self.config.evaluation_batch_size, "workers": self.config.workers, **processes.part()}
        batches = sampler.evaluation_batches(self.inputs(problem, "test"), self.preprocess, **options)
        return step.evaluate(problem, params, problem.frozen, heeding(batches), mode=self.config.parallel)


@dataclass(frozen=True)
class Outcome:
    """What a method is worth on a suite of T tasks.

    Attributes:
      counts: `correct` int[T], `count` int[T], `prediction` and `label` int[all test images], task after task.
      trainable: number of trained parameters.
      total: number of all parameters.
      steps: optimiser steps; 0 where nothing is trained.
      images_per_second: of training, without compilation; 0 where it was not measured.
      problem, params: what was trained and how it ended, where it is one problem.
    """

    counts: dict[str, np.ndarray]
    trainable: int
    total: int
    steps: int = 0
    images_per_second: float = 0.0
    problem: Problem | None = None
    params: Any = None
    __repr__ = outline
