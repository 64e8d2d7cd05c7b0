"""A grid of runs: one record per run, written in one move; a rerun does what is missing.

Several processes share a grid through claims. A run that fails leaves a record that says why, and the others go on.
"""

import pathlib
import shutil
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from jax_promptmtl.core import locks
from jax_promptmtl.core.errors import Preempted, UserError
from jax_promptmtl.core.memory import peak_memory, reset_peak
from jax_promptmtl.core.versions import versions
from jax_promptmtl.reporting import records
from jax_promptmtl.reporting.formatting import format_duration

POLL = 2.0  # seconds between looks at what other processes do
PACKAGE = pathlib.Path(__file__).parent.parent


@dataclass(frozen=True)
class Setting:
    """Where methods are compared.

    Attributes:
      axes: name -> value, as records have them: {"suite": "icons", "shots": 12}.
      words: of a line of progress: "on icons, 12-shot".
      stem: of files: "icons-12shot".
      methods: that are compared there, in order.
    """

    axes: Mapping[str, Any]
    words: str
    stem: str
    methods: Sequence[str]


@dataclass(frozen=True)
class Run:
    """One cell of a grid; its text names it in a line of progress.

    Attributes:
      method: a preset, or a row of the video job.
      setting: see there.
      seed: of all that the run draws at random.
      rate: learning rate, where the grid searches for one.
      config: of the run.
    """

    method: str
    setting: Setting
    seed: int
    rate: float | None
    config: Any

    def __str__(self) -> str:
        rate = f", rate {self.rate:g}" if self.rate is not None else ""
        return f"{self.method} {self.setting.words}, seed {self.seed}{rate}"

    @property
    def name(self) -> str:
        """Return what to call its files."""
        rate = f"-rate{self.rate:g}" if self.rate is not None else ""
        return f"{self.method}-{self.setting.stem}-seed{self.seed}{rate}"


class Study(Protocol):
    """What a benchmark of one kind of job says and does."""

    def settings(self) -> Iterable[Setting]:
        """Return where methods are compared, in order; refuses unknown names."""

    def configure(self, setting: Setting, method: str, seed: int, rate: float | None) -> Any:
        """Return the config of one run."""

    def identity(self, run: Run) -> Mapping[str, Any]:
        """Return JSON of all that the result of a run depends on."""

    def about(self, run: Run) -> dict[str, Any]:
        """Return what the record of a run says in any case."""

    def perform(self, run: Run, workdir: pathlib.Path) -> dict[str, Any]:
        """Return what the record says of a run that comes to its end; may raise.

        The wall time is that of this call, unless it says another.
        """

    def describe(self, runs: Sequence[Run]) -> Iterable[str]:
        """Return lines about what would be run."""


@dataclass(frozen=True)
class Grid:
    """The runs of a study, and the folder of their records.

    Attributes:
      folder: gets records/, claims/ and work/.
      runs: all of them, in order.
      study: how to do one.
      retry: do again what an earlier command recorded as failed.
      keep: keep the folders of finished runs.
      may_fail: a failure is a result, as in a search for learning rates.
      git: state of the repository.
      started: runs that failed before this time are retried.
      ids: text of a run -> its id.
    """

    folder: pathlib.Path
    runs: Sequence[Run]
    study: Study
    retry: bool = True
    keep: bool = False
    may_fail: bool = False
    git: dict[str, Any] | None = field(default_factory=lambda: records.git_state(PACKAGE))
    started: float = field(default_factory=time.time)
    ids: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an empty grid; name all runs, which finds mistakes before anything is done."""
        if not self.runs:
            raise UserError("The grid is empty; give at least one of everything that it is made of.")
        self.ids.update({str(run): records.identify(run.name, self.study.identity(run)) for run in self.runs})

    def id(self, run: Run) -> str:
        """Return the id of a run."""
        return self.ids[str(run)]

    def path(self, run: Run) -> pathlib.Path:
        """Return where the record of a run is."""
        return self.folder / "records" / f"{self.id(run)}.json"

    def record(self, run: Run) -> records.Record | None:
        """Return the record of a run, unless it is missing, or one of an earlier failure that is to be tried again."""
        path = self.path(run)
        record = records.read(path)
        if record is None and path.exists():
            print(f"{path} is no record of this version; its run is repeated.", file=sys.stderr)
        again = record and record["status"] == "failed" and self.retry and path.stat().st_mtime < self.started
        return None if again else record


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
            except locks.Busy as busy:
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

    def rest(self, runs: Sequence[Run]) -> str:
        """Return the time for the given runs as text; a method not yet seen takes as long as the average."""
        if not self.seconds or not runs:
            return "nothing left" if not runs else "time left unknown"
        means = {method: float(np.mean(values)) for method, values in self.seconds.items()}
        other = float(np.mean(list(means.values())))
        return f"about {format_duration(sum(means.get(run.method, other) for run in runs))} left"


def say(record: records.Record) -> str:
    """Return a record as part of a line."""
    if record["status"] == "failed":
        return f"failed: {record['error']}"
    return f"{records.score(record):.1f} % in {format_duration(record['wall_seconds'])}"


def attempt(grid: Grid, run: Run) -> tuple[records.Record, bool]:
    """Do a run, unless another process has done it meanwhile; returns its record, and whether it was done here.

    Raises:
      Busy: another process is doing it, or something that it needs.
    """
    with locks.hold(grid.folder / "claims" / f"{grid.id(run)}.claim"):
        record = grid.record(run)
        if record:
            return record, False
        workdir = grid.folder / "work" / grid.id(run)
        workdir.mkdir(parents=True, exist_ok=True)
        record = execute(grid, run, workdir)
        records.save(grid.path(run), record)
        if record["status"] == "failed" or not grid.keep:
            shutil.rmtree(workdir, ignore_errors=True)
        return record, True


def execute(grid: Grid, run: Run, workdir: pathlib.Path) -> records.Record:
    """Do a run; returns a record in any case, except when asked to stop."""
    resumed, start = any(workdir.rglob("checkpoints")), time.perf_counter()
    head = {"schema": records.SCHEMA, "id": grid.id(run), "versions": versions(), "git": grid.git} | grid.study.about(
        run
    )
    found: dict[str, Any]
    reset_peak()
    try:
        found = grid.study.perform(run, workdir) | {"status": "done", "error": None}
    except (locks.Busy, Preempted):
        raise
    except Exception as error:  # one method that fails must not end the whole grid
        if not isinstance(error, UserError):
            traceback.print_exc()
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        found = {"status": "failed", "error": " ".join(f"{kind}{error}".split())[:500]}
    cost = {"wall_seconds": time.perf_counter() - start, "peak_memory": peak_memory()}
    return head | {"written": records.now(), "resumed": resumed} | cost | found
