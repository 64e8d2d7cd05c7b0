"""The benchmark of tuning jobs: methods are compared on every suite with every number of shots.

Task groups are learned once per suite, shots and seed, for all methods that want them.
"""

import dataclasses
import json
import pathlib
import shutil
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jax_promptmtl.core import locks, tree
from jax_promptmtl.core.errors import pick
from jax_promptmtl.core.memory import reset_peak
from jax_promptmtl.data import predictions, suites
from jax_promptmtl.data.preprocess import Preprocess
from jax_promptmtl.experiments.grid import Run, Setting
from jax_promptmtl.experiments.image import results, tune
from jax_promptmtl.methods import grouping
from jax_promptmtl.methods.clustering import Groups
from jax_promptmtl.models.clip.load import load
from jax_promptmtl.reporting import records

FREE = ("title", "job", "stage", "parallel", "workers", "evaluation_batch_size", "memory", "suite")  # change no result
PATHS = ("backbone/path", "backbone/activation", "backbone/tokenizer")  # the sha256 of the weights stands for them
FREE_STEPS = ("log_every", "checkpoint_every")


class Images:
    """The study of tuning jobs; see `grid.Study`.

    Attributes:
      config: of the benchmark; `separate` names the methods that are trained once per task.
      folder: of the benchmark.
    """

    def __init__(self, config: Any, folder: pathlib.Path):
        self.config, self.folder = config, folder

    def settings(self) -> Iterator[Setting]:
        config = self.config
        for method in [*config.methods, *config.rates]:
            pick(method, config.presets, "method")
        for suite in config.suites:
            for shots in config.shots:
                axes = {"suite": suite, "shots": shots}
                yield Setting(axes, f"on {suite}, {shots}-shot", f"{suite}-{shots}shot", config.methods)

    def configure(self, setting: Setting, method: str, seed: int, rate: float | None) -> Any:
        part = self.config.presets[method].copy_and_resolve_references().unlock()
        part.seed = seed
        suite = self.config.suites[setting.axes["suite"]].to_dict()
        part.suite = ConfigDict(suite | {"shots": setting.axes["shots"], "seed": seed})
        part.backbone.path = self.config.backbone or part.backbone.path
        if rate is not None:
            part.train.optimizer.learning_rate = rate
        return part.lock()

    def identity(self, run: Run) -> dict[str, Any]:
        """Return its config, and what split and weights are, not where."""
        job = prepare(run.config, self.folder)
        config = {key: value for key, value in run.config.to_dict().items() if key not in FREE}
        leaves = {path: value for path, value in tree.flatten(config).items() if path not in PATHS}
        leaves = {path: value for path, value in leaves.items() if path.split("/")[-1] not in FREE_STEPS}
        about = {"split": job.suite.split_hash, "suite": job.suite.name, "suite name": run.setting.axes["suite"]}
        about |= {key: run.config.suite[key] for key in ("background", "exif") if key in run.config.suite}
        weights = {"backbone": job.backbone.sha256, "activation": job.backbone.config.activation}
        return leaves | about | weights | {"separate": self.separate(run)}

    def about(self, run: Run) -> dict[str, Any]:
        job = prepare(run.config, self.folder)
        cell = {"method": run.method, "title": run.config.title, **run.setting.axes, "seed": run.seed}
        backbone = {"name": job.backbone.name, "sha256": job.backbone.sha256}
        data = {"suite_name": job.suite.name, "split_hash": job.suite.split_hash, "backbone": backbone}
        return {"rate": run.rate, "config": run.config.to_dict()} | cell | data

    def perform(self, run: Run, workdir: pathlib.Path) -> dict[str, Any]:
        """Train and evaluate; returns what a record says of it. Groups are no run's own cost."""
        job = prepare(run.config, workdir)
        groups, learned = find_groups(self.folder, job)
        reset_peak()
        start = time.perf_counter()
        outcome = measure_separately(job) if self.separate(run) else tune.measure(job, groups)
        cost = {"wall_seconds": time.perf_counter() - start, "seconds": job.seconds}
        return describe_outcome(job, outcome) | {"groups": spell(job, groups), "grouping": learned} | cost

    def describe(self, runs: Sequence[Run]) -> Iterator[str]:
        """Yield the sizes of the methods."""
        seen = set()
        for run in runs:
            if run.method not in seen:
                seen.add(run.method)
                job = prepare(run.config, self.folder)
                count = tree.count(job.problem(run.config, tune.whole(job)).params)
                yield f"{run.method}: {count:,} trained parameters, with one group of all tasks"

    def separate(self, run: Run) -> bool:
        """Return whether every task is trained in a run of its own."""
        return run.method in self.config.separate


@lru_cache(maxsize=16)
def load_suite(options: str) -> Any:
    """Build a suite from the JSON of its options, once per process."""
    return suites.build(json.loads(options))


load_backbone = lru_cache(maxsize=2)(load)


def prepare(config: Any, workdir: pathlib.Path) -> tune.Job:
    """Return the tuning job of a config, with what other runs have loaded already."""
    suite = load_suite(json.dumps(config.suite.to_dict(), sort_keys=True))
    backbone = load_backbone(config.backbone.path, config.backbone.activation, config.backbone.tokenizer)
    backbone = tune.reads(backbone, suite)
    preprocess = Preprocess(**backbone.preprocess, **config.augment)
    return tune.Job(config, workdir, suite, backbone, preprocess, quiet=True)


def describe_outcome(job: tune.Job, outcome: tune.Outcome) -> dict[str, Any]:
    """Return what a record says of what came out."""
    hits = outcome.counts["prediction"] == outcome.counts["label"]
    drawing = predictions.drawings(job.suite)
    per_drawing = records.per_drawing(predictions.cut(job.suite, hits), predictions.cut(job.suite, drawing))
    speed = outcome.images_per_second
    return {
        "tasks": list(job.tasks),
        "count": outcome.counts["count"].tolist(),
        "correct": outcome.counts["correct"].tolist(),
        "accuracy_per_drawing": per_drawing,
        **results.answers(job.suite, outcome.counts),
        "trainable": outcome.trainable,
        "total": outcome.total,
        "steps": outcome.steps,
        "images_per_second": speed or None,
        "step_seconds": job.config.train.batch_size / speed if speed else None,
    }


def measure_separately(job: tune.Job) -> tune.Outcome:
    """Train and evaluate every task by itself; returns all as one outcome, parameters and times added up."""
    parts = list(split_job(job))
    outcomes = [tune.measure(part, tune.whole(part)) for part in parts]
    counts = {key: np.concatenate([outcome.counts[key] for outcome in outcomes]) for key in outcomes[0].counts}
    for part in parts:
        for stage, seconds in part.seconds.items():
            job.seconds[stage] = job.seconds.get(stage, 0) + seconds
    speeds = [outcome.images_per_second for outcome in outcomes]
    speed = len(speeds) / sum(1 / speed for speed in speeds) if all(speeds) else 0.0
    sizes = sum(outcome.trainable for outcome in outcomes), sum(outcome.total for outcome in outcomes)
    return tune.Outcome(counts, *sizes, sum(outcome.steps for outcome in outcomes), speed)


def split_job(job: tune.Job) -> Iterator[tune.Job]:
    """Cut a job into one per task, in folders of their own."""
    for number, task in enumerate(job.suite.tasks):
        suite = dataclasses.replace(job.suite, tasks=(task,))
        yield dataclasses.replace(job, suite=suite, workdir=job.workdir / f"task{number}", seconds={})


def find_groups(folder: pathlib.Path, job: tune.Job) -> tuple[Groups, dict[str, Any] | None]:
    """Return the groups of a run, and what grouping.json says where they are the learned ones."""
    source = job.config.grouping.source
    if source not in ("learn", "random") or len(job.tasks) == 1:
        return tune.find_groups(job)
    path = learn_groups(folder, job)
    groups = tune.drawn_groups(job.config, grouping.load_groups(path, job.tasks))
    return groups, json.loads(path.read_text()) if source == "learn" else None


def learn_groups(folder: pathlib.Path, job: tune.Job) -> pathlib.Path:
    """Learn the groups of a suite, shots and seed unless that was done before; returns the path of grouping.json."""
    options = {key: value for key, value in job.config.grouping.to_dict().items() if key not in ("source", "groups")}
    about = {key: job.config[key] for key in ("template", "seed")} | {"augment": job.config.augment.to_dict()}
    about |= {"dtype": job.config.backbone.dtype, "activation": job.backbone.config.activation}
    content = [options, about, job.suite.split_hash, job.backbone.sha256]
    name = records.identify(f"groups-seed{job.config.seed}", content)
    path = folder / "groupings" / f"{name}.json"
    if path.exists():
        return path
    with locks.hold(folder / "claims" / f"{name}.claim"):
        if not path.exists():
            start = time.perf_counter()
            part = dataclasses.replace(job, workdir=folder / "work" / name, seconds={})
            _, _, learned = tune.learn_groups(part)
            records.save(path, learned | {"seconds": time.perf_counter() - start})
            shutil.rmtree(part.workdir, ignore_errors=True)
    return path


def spell(job: tune.Job, groups: Groups) -> list[list[str]]:
    """Return groups by the names of their tasks."""
    return [[job.tasks[task] for task in group] for group in groups]
