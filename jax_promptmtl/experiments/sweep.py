"""The benchmark job: every method in every setting with every seed; one record per run.

`Study` says what differs between kinds of jobs: see `image.sweep` and `video.sweep`.
"""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.experiments import grid
from jax_promptmtl.experiments.grid import Grid, Run, Study
from jax_promptmtl.reporting.benchmark import console_tables

Open = Callable[[Any, pathlib.Path], Study]  # (config of a benchmark, its folder)


def run(study: Open, config: Any, workdir: pathlib.Path, *, dry_run: bool) -> None:
    """Do what is missing of a grid, in a folder that other processes may work in as well; print the table.

    Raises:
      UserError: runs failed; all others were done.
    """
    if config.compilation_cache and not dry_run:
        keep_compiled(workdir / "xla")
    made = make_grid(study, config, workdir)
    if dry_run:
        for line in describe(made):
            print(line)
        return
    grid.work(made)
    found = [record for record in map(made.record, made.runs) if record]
    print("\n" + console_tables(found))
    failed = [record for record in found if record["status"] == "failed"]
    if failed and not made.may_fail:
        first = failed[0]
        raise UserError(f"{len(failed)} of {len(found)} runs failed, first {first['id']}: {first['error']}")


def keep_compiled(folder: pathlib.Path) -> None:
    """Keep compiled programs in a folder, unless JAX was told another one."""
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def make_grid(study: Open, config: Any, folder: pathlib.Path) -> Grid:
    """Return the runs of a benchmark with what it takes to do one."""
    opened = study(config, folder)
    may_fail = bool(config.rates)
    return Grid(folder, plan(opened, config), opened, retry=config.retry, keep=config.keep, may_fail=may_fail)


def plan(study: Study, config: Any) -> list[Run]:
    """Return the cells of a grid; all methods of one setting and seed come together."""
    rates = config.rates.to_dict()
    return [
        Run(method, setting, seed, rate, study.configure(setting, method, seed, rate))
        for setting in study.settings()
        for seed in config.seeds
        for method in setting.methods
        for rate in rates.get(method, (None,))
    ]


def describe(made: Grid) -> Iterator[str]:
    """Yield lines about the runs, and how much is to do."""
    yield from made.study.describe(made.runs)
    done = sum(made.record(run) is not None for run in made.runs)
    yield f"{len(made.runs)} runs, {done} done, {len(made.runs) - done} to do"
