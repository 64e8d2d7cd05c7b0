"""The video benchmark: every row of the video job for every primary task and seed; one record per run.

    python -m jax_promptmtl.benchmark --config=configs/benchmark.py:video
    python -m jax_promptmtl.benchmark --config=configs/benchmark.py:video_rates --workdir=runs/video_rates

Clips are the same for all seeds: a seed draws the initial parameters and the order of the clips. What the frozen models
say of the clips is computed once per primary, and the model of hard sharing trained once per seed.
"""

import dataclasses
import pathlib
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import pick
from jax_promptmtl.core.hashes import weights_sha256
from jax_promptmtl.data.icons import moving_icons
from jax_promptmtl.experiments import grid
from jax_promptmtl.experiments.grid import Grid
from jax_promptmtl.experiments.video import prompting
from jax_promptmtl.experiments.video.footage import PARTS
from jax_promptmtl.experiments.video.job import Job, open_job, rate_of
from jax_promptmtl.experiments.video.rows import ROWS, legal, used
from jax_promptmtl.problems.video_tasks import SPECS, icons, next_task
from jax_promptmtl.reporting import records
from jax_promptmtl.reporting.benchmark import console_tables
from jax_promptmtl.reporting.records import Record
from jax_promptmtl.tasks.metrics import TITLES

FREE = ("job", "rows", "learning_rate", "models", "parallel", "evaluation_batch_size", "log_every", "checkpoint_every")
FREE_PARTS = ("cache/", "rates/")  # of the rates only its own matters to a row


@dataclass(frozen=True)
class Run:
    """One cell of the grid.

    Attributes:
      task: of the primary.
      method: name of the row.
      seed: of initial parameters and order.
      rate: learning rate, where the grid searches for one.
      config: of the video job.
    """

    task: str
    method: str
    seed: int
    rate: float | None
    config: Any

    def __str__(self) -> str:
        """Return what to call the run in a line of progress."""
        rate = f", rate {self.rate:g}" if self.rate is not None else ""
        return f"{self.method} for {self.task}, seed {self.seed}{rate}"

    @property
    def name(self) -> str:
        """Return what to call its files."""
        rate = f"-rate{self.rate:g}" if self.rate is not None else ""
        return f"{self.method}-{self.task}-seed{self.seed}{rate}"


def plan(config: Any) -> list[Run]:
    """Return the cells of a grid, primary by primary."""
    rates = config.rates.to_dict()
    for name in (*config.rows, *rates):
        pick(name, ROWS, "row")
    return [
        Run(task, name, seed, rate, configure(config, task, seed, name, rate))
        for task in config.tasks
        for seed in config.seeds
        for name in config.rows
        if name in legal(pick(task, config.presets, "task"))
        for rate in rates.get(name, (None,))
    ]


def configure(config: Any, task: str, seed: int, row: str = "", rate: float | None = None) -> Any:
    """Return the config of one cell."""
    part = config.presets[task].copy_and_resolve_references().unlock()
    part.seed, part.models = seed, config.models or part.models
    if rate is not None:
        part.rates[row] = rate
    return part.lock()


def run(config: Any, workdir: pathlib.Path, *, dry_run: bool) -> None:
    """Do what is missing of a grid, in a folder that other processes may work in as well; print the table.

    Raises:
      UserError: runs failed; all others were done.
    """
    if config.compilation_cache and not dry_run:
        grid.keep_compiled(workdir / "xla")
    made = make_grid(config, workdir)
    if dry_run:
        print(grid.count(made))
        return
    grid.run(made, console_tables)


def make_grid(config: Any, folder: pathlib.Path) -> Grid:
    """Return the runs of a benchmark with what it takes to do one."""
    opened = lru_cache(maxsize=1)(lambda task: open_job(configure(config, task, 0), folder, folder / "shared"))
    return Grid(
        folder,
        plan(config),
        identity=identity,
        about=about,
        perform=partial(perform, opened),
        score=records.score,
        retry=config.retry,
        keep=config.keep,
        may_fail=bool(config.rates),
    )


def identity(run: Run) -> dict[str, Any]:
    """Return all that the result of a run depends on."""
    leaves = tree.flatten(run.config.to_dict())
    kept = {path: leaf for path, leaf in leaves.items() if path.split("/")[-1] not in FREE}
    kept = {path: leaf for path, leaf in kept.items() if not path.startswith(FREE_PARTS)}
    own = {"row": run.method, "learning_rate": rate_of(run.config, run.method)}
    return kept | own | {"clips": moving_icons.VERSION, "weights": hashes(run)}


def hashes(run: Run) -> dict[str, str]:
    """Return task -> sha256 of the frozen models that a run uses."""
    names = icons.needed({run.task, *used(run.task, run.method, run.config.aux)})
    return {task: sha for task, sha in all_hashes(run.config.models).items() if task in names}


@lru_cache(maxsize=4)
def all_hashes(folder: str) -> dict[str, str]:
    """Return task -> sha256 of its frozen model."""
    weights = icons.load(folder, SPECS)
    return {task: weights_sha256(params) for task, params in weights.items()}


def about(run: Run) -> dict[str, Any]:
    """Return what a record says of what was run."""
    cell = {"kind": "video", "task": run.task, "method": run.method, "title": ROWS[run.method][0], "seed": run.seed}
    cell |= {"rate": run.rate, "config": run.config.to_dict(), "weights": hashes(run), "layout": layout()}
    return cell | {"mapped_prompts": run.method == "mvlpt" and other_width(run.task)}


def layout() -> dict[str, Any]:
    """Return what the tables of a report need to know of all tasks; see `video_layout.VideoLayout`."""
    titles = {spec.task.metric: TITLES[spec.task.metric] for spec in SPECS.values()}
    return {"tasks": list(SPECS), "parts": list(PARTS), "metric_titles": titles}


def other_width(task: str) -> bool:
    """Return whether MVLPT's prompts of a task come from a model of another width."""
    return len({SPECS[name].width(icons.sizes(name)) for name in (task, next_task(task))}) > 1


def perform(opened: Any, run: Run, workdir: pathlib.Path) -> Record:
    """Train and measure; returns what a record says of it."""
    shared: Job = opened(run.task)
    return prompting.measure_row(dataclasses.replace(shared, config=run.config, workdir=workdir), run.method)
