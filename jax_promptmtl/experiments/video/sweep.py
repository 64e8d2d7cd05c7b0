"""The video benchmark: every row of the video job for every primary task and seed; one record per run.

    python -m jax_promptmtl.benchmark --config=configs/benchmark.py:video
    python -m jax_promptmtl.benchmark --config=configs/benchmark.py:video_rates --workdir=runs/video_rates

Clips are the same for all seeds: a seed draws the initial parameters and the order of the clips. What the frozen models
say of the clips is computed once per primary, and the model of hard sharing trained once per seed.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import pick
from jax_promptmtl.core.hashes import weights_sha256
from jax_promptmtl.data.icons import moving_icons
from jax_promptmtl.experiments.grid import Run, Setting
from jax_promptmtl.experiments.video import prompting
from jax_promptmtl.experiments.video.icon_footage import PARTS
from jax_promptmtl.experiments.video.job import Job, rate_of
from jax_promptmtl.experiments.video.rows import ROWS, legal, used
from jax_promptmtl.problems.video_tasks import SPECS, icons, next_task
from jax_promptmtl.reporting.records import Record
from jax_promptmtl.tasks.metrics import TITLES

FREE = ("job", "rows", "learning_rate", "models", "parallel", "evaluation_batch_size", "log_every", "checkpoint_every")
FREE_PARTS = ("cache/", "rates/")  # of the rates only its own matters to a row


class Videos:
    """The study of video jobs; see `grid.Study`. Clips and kept middle states of a primary serve all its runs.

    Attributes:
      config: of the benchmark.
      folder: of the benchmark.
    """

    def __init__(self, config: Any, folder: pathlib.Path):
        self.config, self.folder = config, folder
        self.opened = lru_cache(maxsize=1)(self.open)

    def settings(self) -> Iterator[Setting]:
        config = self.config
        for name in (*config.rows, *config.rates):
            pick(name, ROWS, "row")
        for task in config.tasks:
            possible = legal(pick(task, config.presets, "task"))
            rows = [name for name in config.rows if name in possible]
            yield Setting({"task": task}, f"for {task}", task, rows)

    def configure(self, setting: Setting, method: str, seed: int, rate: float | None) -> Any:
        part = self.preset(task_of(setting), seed)
        if rate is not None:
            part.rates[method] = rate
        return part.lock()

    def preset(self, task: str, seed: int) -> Any:
        """Return the config of a primary, unlocked."""
        part = self.config.presets[task].copy_and_resolve_references().unlock()
        part.seed, part.models = seed, self.config.models or part.models
        return part

    def open(self, task: str) -> Job:
        """Read the videos and the models of a primary."""
        return prompting.open_job(self.preset(task, 0).lock(), self.folder, self.folder / "shared")

    def identity(self, run: Run) -> dict[str, Any]:
        leaves = tree.flatten(run.config.to_dict())
        kept = {path: leaf for path, leaf in leaves.items() if path.split("/")[-1] not in FREE}
        kept = {path: leaf for path, leaf in kept.items() if not path.startswith(FREE_PARTS)}
        own = {"row": run.method, "learning_rate": rate_of(run.config, run.method)}
        return kept | own | {"clips": moving_icons.VERSION, "weights": hashes(run)}

    def about(self, run: Run) -> dict[str, Any]:
        title, task = ROWS[run.method][0], task_of(run.setting)
        cell = {"kind": "video", "task": task, "method": run.method, "title": title, "seed": run.seed}
        cell |= {"rate": run.rate, "config": run.config.to_dict(), "weights": hashes(run), "layout": layout()}
        return cell | {"mapped_prompts": run.method == "mvlpt" and other_width(task)}

    def perform(self, run: Run, workdir: pathlib.Path) -> Record:
        shared = self.opened(task_of(run.setting))
        return prompting.measure_row(dataclasses.replace(shared, config=run.config, workdir=workdir), run.method)

    def describe(self, runs: Sequence[Run]) -> tuple[str, ...]:
        return ()  # `--config=dlm --dry_run` says the sizes


def task_of(setting: Setting) -> str:
    """Return the primary task."""
    return str(setting.axes["task"])


def hashes(run: Run) -> dict[str, str]:
    """Return task -> sha256 of the frozen models that a run uses."""
    task = task_of(run.setting)
    names = icons.needed({task, *used(task, run.method, run.config.aux)})
    return {name: sha for name, sha in all_hashes(run.config.models).items() if name in names}


@lru_cache(maxsize=4)
def all_hashes(folder: str) -> dict[str, str]:
    """Return task -> sha256 of its frozen model."""
    weights = icons.load(folder, SPECS)
    return {task: weights_sha256(params) for task, params in weights.items()}


def layout() -> dict[str, Any]:
    """Return what the tables of a report need to know of all tasks; see `video_layout.VideoLayout`."""
    titles = {spec.task.metric: TITLES[spec.task.metric] for spec in SPECS.values()}
    return {"tasks": list(SPECS), "parts": list(PARTS), "metric_titles": titles}


def other_width(task: str) -> bool:
    """Return whether MVLPT's prompts of a task come from a model of another width."""
    return len({SPECS[name].width(icons.sizes(name)) for name in (task, next_task(task))}) > 1
