"""The benchmark job: every method on every suite, number of shots and seed; one record per run.

    python -m jax_promptmtl.benchmark --config=configs/benchmark.py

A run is done when its record is on disk, written in one move. A rerun does what is missing. Several processes share a
grid through claims. Task groups are learned once per suite, shots and seed, for all methods that want them.
"""

import dataclasses
import functools
import json
import pathlib
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jax_promptmtl import claim, grouping, records, tables, tree, tune
from jax_promptmtl.backbones.load import load
from jax_promptmtl.data import predictions, suites
from jax_promptmtl.data.images import Preprocess
from jax_promptmtl.engine.preemption import Preempted
from jax_promptmtl.engine.report import duration, versions
from jax_promptmtl.errors import UserError, pick
from jax_promptmtl.memory import peak_memory, reset_peak
from jax_promptmtl.partition import Groups

POLL = 2.0  # seconds between looks at what other processes do
FREE = ("title", "job", "stage", "parallel", "workers", "evaluation_batch_size", "memory", "suite")  # change no result
PATHS = ("backbone/path", "backbone/activation", "backbone/tokenizer")  # the sha256 of the weights stands for them
FREE_STEPS = ("log_every", "checkpoint_every")
PACKAGE = pathlib.Path(__file__).parent


@dataclass(frozen=True)
class Run:
    """One cell of the grid.

    Attributes:
      method: name of its preset.
      suite: name of the suite in the grid.
      shots: training images per class and task.
      seed: of shots, initial parameters and data order.
      rate: learning rate, where the grid searches for one.
      config: resolved config of the tuning job.
      separate: whether every task is trained in a run of its own.
    """

    method: str
    suite: str
    shots: int
    seed: int
    rate: float | None
    config: Any
    separate: bool

    def __str__(self) -> str:
        """Return what to call the run in a line of progress."""
        rate = f", rate {self.rate:g}" if self.rate is not None else ""
        return f"{self.method} on {self.suite}, {self.shots}-shot, seed {self.seed}{rate}"

    @property
    def name(self) -> str:
        """Return what to call its files."""
        rate = f"-rate{self.rate:g}" if self.rate is not None else ""
        return f"{self.method}-{self.suite}-{self.shots}shot-seed{self.seed}{rate}"


def plan(config: Any) -> list[Run]:
    """Return the cells of a grid; all methods of one suite, shots and seed come together."""
    runs, rates = [], config.rates.to_dict()
    for method in [*config.methods, *rates]:
        pick(method, config.presets, "method")
    for suite in config.suites:
        for shots in config.shots:
            for seed in config.seeds:
                for method in config.methods:
                    for rate in rates.get(method, (None,)):
                        cell = configure(config, method, suite, shots, seed, rate)
                        separate = method in config.separate
                        runs.append(Run(method, suite, shots, seed, rate, cell, separate))
    if not runs:
        raise UserError("The grid is empty; give at least one method, suite, number of shots and seed.")
    return runs


def configure(config: Any, method: str, suite: str, shots: int, seed: int, rate: float | None) -> Any:
    """Return the config of one cell."""
    part = config.presets[method].copy_and_resolve_references().unlock()
    part.seed = seed
    part.suite = ConfigDict(config.suites[suite].to_dict() | {"shots": shots, "seed": seed})
    part.backbone.path = config.backbone or part.backbone.path
    if rate is not None:
        part.train.optimizer.learning_rate = rate
    return part.lock()


@functools.lru_cache(maxsize=16)
def load_suite(options: str) -> Any:
    """Build a suite from the JSON of its options, once per process."""
    return suites.build(json.loads(options))


load_backbone = functools.lru_cache(maxsize=2)(load)


def prepare(config: Any, workdir: pathlib.Path) -> tune.Job:
    """Return the tuning job of a config, with what other runs have loaded already."""
    suite = load_suite(json.dumps(config.suite.to_dict(), sort_keys=True))
    backbone = load_backbone(config.backbone.path, config.backbone.activation, config.backbone.tokenizer)
    preprocess = Preprocess(**backbone.preprocess, **config.augment)
    return tune.Job(config, workdir, suite, backbone, preprocess, quiet=True)


def identity(run: Run, job: tune.Job) -> dict[str, Any]:
    """Return all that the result of a run depends on: its config, and what split and weights are, not where."""
    config = {key: value for key, value in run.config.to_dict().items() if key not in FREE}
    leaves = {path: value for path, value in tree.flatten(config).items() if path not in PATHS}
    leaves = {path: value for path, value in leaves.items() if path.split("/")[-1] not in FREE_STEPS}
    about = {"split": job.suite.split_hash, "suite": job.suite.name, "suite name": run.suite}
    weights = {"backbone": job.backbone.sha256, "activation": job.backbone.config.activation}
    return leaves | about | weights | {"separate": run.separate}


@dataclass
class Grid:
    """The runs of a benchmark and the folder of their records."""

    config: Any
    folder: pathlib.Path
    runs: list[Run]
    git: dict[str, Any] | None
    started: float

    def job(self, run: Run) -> tune.Job:
        """Return the tuning job of a run."""
        return prepare(run.config, self.folder / "work" / self.id(run))

    @functools.cached_property
    def _ids(self) -> dict[int, str]:
        jobs = ((run, prepare(run.config, self.folder)) for run in self.runs)
        return {id(run): records.identify(run.name, identity(run, job)) for run, job in jobs}

    def id(self, run: Run) -> str:
        """Return the id of a run."""
        return self._ids[id(run)]

    def path(self, run: Run) -> pathlib.Path:
        """Return where the record of a run is."""
        return self.folder / "records" / f"{self.id(run)}.json"

    def record(self, run: Run) -> records.Record | None:
        """Return the record of a run, unless it is missing, or one of an earlier failure that is to be tried again."""
        path = self.path(run)
        record = records.read(path)
        if record is None and path.exists():
            print(f"{path} is no record of this version; its run is repeated.", file=sys.stderr)
        again = record and record["status"] == "failed" and self.config.retry and path.stat().st_mtime < self.started
        return None if again else record


def run(config: Any, workdir: pathlib.Path, *, dry_run: bool) -> None:
    """Do what is missing of a grid, in a folder that other processes may work in as well; print the table.

    Raises:
      UserError: runs failed; all others were done.
    """
    chosen = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if config.compilation_cache and chosen is None and not dry_run:
        jax.config.update("jax_compilation_cache_dir", str(workdir.absolute() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    grid = Grid(config, workdir, plan(config), records.git_state(PACKAGE), time.time())
    if dry_run:
        describe(grid)
        return
    work(grid)
    found = [record for record in map(grid.record, grid.runs) if record]
    print("\n" + tables.console(found))
    failed = [record for record in found if record["status"] == "failed"]
    if failed and not config.rates:
        first = failed[0]
        raise UserError(f"{len(failed)} of {len(found)} runs failed, first {first['id']}: {first['error']}")


def describe(grid: Grid) -> None:
    """Print the methods with their sizes, and how much is to do."""
    seen = set()
    for run in grid.runs:
        if run.method not in seen:
            seen.add(run.method)
            job = grid.job(run)
            problem = job.problem(run.config, tune.whole(job))
            print(f"{run.method}: {tree.count(problem.params):,} trained parameters, with one group of all tasks")
    done = sum(grid.record(run) is not None for run in grid.runs)
    print(f"{len(grid.runs)} runs, {done} done, {len(grid.runs) - done} to do")


def work(grid: Grid) -> None:
    """Do the missing runs, one by one; those that other processes are doing are waited for at the end."""
    todo = [run for run in grid.runs if grid.record(run) is None]
    total, clock = len(grid.runs), Clock()
    print(f"{total} runs, {total - len(todo)} done already, in {grid.folder}", flush=True)
    told: set[str] = set()
    while todo:
        later = []
        for number, run in enumerate(todo):
            start = time.perf_counter()
            try:
                record, mine = attempt(grid, run)
            except claim.Busy as busy:
                later.append(run)
                if str(busy) not in told:
                    told.add(str(busy))
                    print(f"{run} waits for {busy}; delete that file if it is gone.", file=sys.stderr, flush=True)
                continue
            rest = todo[number + 1 :] + later
            clock.add(run, time.perf_counter() - start if mine else 0)
            who = "" if mine else "by another process, "
            print(f"[{total - len(rest)}/{total}] {run}: {who}{say(record)}; {clock.rest(rest)}", flush=True)
        if len(later) == len(todo):
            time.sleep(POLL)
        todo = later


class Clock:
    """How long the remaining runs take, from those that were done."""

    def __init__(self) -> None:
        """Start without any knowledge."""
        self.seconds: dict[str, list[float]] = {}

    def add(self, run: Run, seconds: float) -> None:
        """Take note of a run that this process did; 0 seconds are those of another process."""
        if seconds:
            self.seconds.setdefault(run.method, []).append(seconds)

    def rest(self, runs: list[Run]) -> str:
        """Return the time for the given runs as text; a method not yet seen takes as long as the average."""
        if not self.seconds or not runs:
            return "nothing left" if not runs else "time left unknown"
        means = {method: float(np.mean(values)) for method, values in self.seconds.items()}
        other = float(np.mean(list(means.values())))
        return f"about {duration(sum(means.get(run.method, other) for run in runs))} left"


def say(record: records.Record) -> str:
    """Return a record as part of a line."""
    if record["status"] == "failed":
        return f"failed: {record['error']}"
    return f"{np.mean(records.accuracy(record)):.1f} % in {duration(record['wall_seconds'])}"


def attempt(grid: Grid, run: Run) -> tuple[records.Record, bool]:
    """Do a run, unless another process has done it meanwhile; returns its record, and whether it was done here.

    Raises:
      Busy: another process is doing it, or the groups that it needs.
    """
    with claim.hold(grid.folder / "claims" / f"{grid.id(run)}.claim"):
        record = grid.record(run)
        if record:
            return record, False
        job = grid.job(run)
        job.workdir.mkdir(parents=True, exist_ok=True)
        record = execute(grid, run, job)
        records.save(grid.path(run), record)
        if record["status"] == "failed" or not grid.config.keep:
            shutil.rmtree(job.workdir, ignore_errors=True)
        return record, True


def execute(grid: Grid, run: Run, job: tune.Job) -> records.Record:
    """Train and evaluate; returns a record in any case, except when asked to stop."""
    resumed, start = any(job.workdir.rglob("checkpoints")), time.perf_counter()
    found: dict[str, Any]
    try:
        groups, learned = find_groups(grid, job)
        reset_peak()
        start = time.perf_counter()  # groups are no run's own cost
        outcome = measure_separately(job) if run.separate else tune.measure(job, groups)
        found = describe_outcome(job, outcome) | {"groups": spell(job, groups), "grouping": learned, "error": None}
    except (claim.Busy, Preempted):
        raise
    except Exception as error:  # one method that fails must not end the whole grid
        if not isinstance(error, UserError):
            traceback.print_exc()
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        found = {"error": " ".join(f"{kind}{error}".split())[:500]}
    cost = {"wall_seconds": time.perf_counter() - start, "seconds": job.seconds, "peak_memory": peak_memory()}
    return head(grid, run, job) | found | cost | {"status": "failed" if found["error"] else "done", "resumed": resumed}


def head(grid: Grid, run: Run, job: tune.Job) -> dict[str, Any]:
    """Return what a record says of what was run."""
    cell = {"method": run.method, "title": run.config.title, "suite": run.suite, "shots": run.shots, "seed": run.seed}
    backbone = {"name": job.backbone.name, "sha256": job.backbone.sha256}
    about = {"versions": versions(), "git": grid.git, "written": records.now(), "config": run.config.to_dict()}
    data = {"suite_name": job.suite.name, "split_hash": job.suite.split_hash, "backbone": backbone}
    return {"schema": records.SCHEMA, "id": grid.id(run), "rate": run.rate} | cell | data | about


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
        **tune.answers(job.suite, outcome.counts),
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


def find_groups(grid: Grid, job: tune.Job) -> tuple[Groups, dict[str, Any] | None]:
    """Return the groups of a run, and what grouping.json says where they are the learned ones."""
    source = job.config.grouping.source
    if source not in ("learn", "random") or len(job.tasks) == 1:
        return tune.find_groups(job)
    path = learn_groups(grid, job)
    groups = tune.drawn_groups(job.config, grouping.load_groups(path, job.tasks))
    return groups, json.loads(path.read_text()) if source == "learn" else None


def learn_groups(grid: Grid, job: tune.Job) -> pathlib.Path:
    """Learn the groups of a suite, shots and seed unless that was done before; returns the path of grouping.json."""
    options = {key: value for key, value in job.config.grouping.to_dict().items() if key not in ("source", "groups")}
    about = {key: job.config[key] for key in ("template", "seed")} | {"augment": job.config.augment.to_dict()}
    about |= {"dtype": job.config.backbone.dtype, "activation": job.backbone.config.activation}
    content = [options, about, job.suite.split_hash, job.backbone.sha256]
    name = records.identify(f"groups-seed{job.config.seed}", content)
    path = grid.folder / "groupings" / f"{name}.json"
    if path.exists():
        return path
    with claim.hold(grid.folder / "claims" / f"{name}.claim"):
        if not path.exists():
            start = time.perf_counter()
            part = dataclasses.replace(job, workdir=grid.folder / "work" / name, seconds={})
            _, _, learned = tune.learn_groups(part)
            records.save(path, learned | {"seconds": time.perf_counter() - start})
            shutil.rmtree(part.workdir, ignore_errors=True)
    return path


def spell(job: tune.Job, groups: Groups) -> list[list[str]]:
    """Return groups by the names of their tasks."""
    return [[job.tasks[task] for task in group] for group in groups]


if __name__ == "__main__":
    from jax_promptmtl import main

    sys.exit(main.main(verb="benchmark", doc=__doc__))
