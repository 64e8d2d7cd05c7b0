"""Group the records of a benchmark into rows and columns of tables, with warnings on mismatches."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jax_promptmtl.reporting import records
from jax_promptmtl.reporting.paper import dlm_paper, mmap_paper, order_methods
from jax_promptmtl.reporting.records import Record
from jax_promptmtl.reporting.video_layout import VideoLayout, layout_of

Key = tuple[Any, ...]  # what the records of one cell, or of one table, have in common

STATIC = ", static prompts"  # suffix of a method's title for the scores of its mean prompts


class Column(NamedTuple):
    """The test examples behind a column of a table."""

    task: str
    part: str = "test"

    def __str__(self) -> str:
        """Return the header in tables.

        >>> str(Column("segmentation")), str(Column("segmentation", "shifted"))
        ('segmentation', 'segmentation shifted')
        """
        return self.task if self.part == "test" else f"{self.task} {self.part}"


AVERAGE = Column("average")


@dataclass(frozen=True)
class MethodRuns:
    """The runs of one method: a row of a table.

    Attributes:
      method: its name.
      title: in tables.
      runs: its records in the order of tasks, then of seeds; a record on images has all tasks.
      scores: {column: {seed: percent}}.
      prompts: "dynamic", or "static" where the scores are those of saved mean prompts.
    """

    method: str
    title: str
    runs: tuple[Record, ...]
    scores: Mapping[Column, Mapping[int, float]]
    prompts: str = "dynamic"

    @property
    def seeds(self) -> list[int]:
        """Return the seeds with a run."""
        return sorted({run["seed"] for run in self.runs})

    @property
    def trainable(self) -> int:
        """Return the number of trained parameters in the last run."""
        return int(self.runs[-1]["trainable"])

    @property
    def by_task(self) -> dict[str, tuple[Record, ...]]:
        """Return {task: records} of videos, in the order of the runs."""
        tasks = dict.fromkeys(run["task"] for run in self.runs)
        return {task: tuple(run for run in self.runs if run["task"] == task) for task in tasks}

    def values(self, column: Column) -> list[float]:
        """Return the scores of a column in percent by seed; [] if not measured."""
        return list(self.scores.get(column, {}).values())

    def mean(self, column: Column) -> float:
        """Return the mean of a column over seeds, NaN where it was not measured."""
        values = self.values(column)
        return float(np.mean(values)) if values else float("nan")

    def std(self, column: Column) -> float:
        """Return the standard deviation of a column over seeds with ddof = 1, NaN with fewer than two."""
        values = self.values(column)
        return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


@dataclass(frozen=True)
class ImageTable:
    """All methods on one suite with one number of shots."""

    suite: str
    suite_name: str
    shots: int
    tasks: tuple[str, ...]
    backbone: str
    rows: tuple[MethodRuns, ...]

    @property
    def title(self) -> str:
        """Return a heading."""
        return f"{self.suite}, {self.shots} shot{'s' * (self.shots != 1)} per class"

    @property
    def columns(self) -> list[Column]:
        """Return a column per task, then that of their average."""
        return [*map(Column, self.tasks), AVERAGE]

    def row(self, method: str) -> MethodRuns | None:
        """Return the row of a method, if it was run."""
        return next((row for row in self.rows if row.method == method), None)


@dataclass(frozen=True)
class VideoTable:
    """All methods on the primaries: a row for each, and one for its static prompts."""

    rows: tuple[MethodRuns, ...]
    layout: VideoLayout

    @property
    def tasks(self) -> list[Column]:
        """Return the test clips of every task that was run."""
        return [Column(task) for task in self.layout.tasks if any(task in row.by_task for row in self.rows)]

    @property
    def transfers(self) -> list[Column]:
        """Return the other data of these tasks that any row was measured on."""
        known = [Column(task, part) for task, _ in self.tasks for part in self.layout.transfer_parts]
        return [column for column in known if any(row.values(column) for row in self.rows)]

    def select(self, methods: Iterable[str]) -> list[MethodRuns]:
        """Return the rows of some methods, in their order."""
        return [row for method in methods for row in self.rows if row.method == method]

    def metric(self, task: str) -> str:
        """Return the key of a task's metric."""
        return str(next(row.by_task[task][-1]["metric"] for row in self.rows if task in row.by_task))

    def heading(self, column: Column) -> str:
        """Return a column's name with its metric."""
        return f"{column} ({self.layout.metric_titles[self.metric(column.task)]})"


def newest_runs(found: Iterable[Record], key: Callable[[Record], Key]) -> tuple[dict[Key, Record], list[str]]:
    """Return the newest finished record of every cell of a sweep, and a warning on each superseded one.

    Args:
      found: records; failed ones and those of learning-rate sweeps are ignored.
      key: of the cell of a record.
    """
    cells: dict[Key, Record] = {}
    remarks = []
    for record in sorted(found, key=lambda record: (record["written"], record["id"])):
        if record["status"] != "done" or record.get("rate") is not None:
            continue
        cell = key(record)
        if cell in cells:
            remarks.append(f"{record['id']} is used, and not {cells[cell]['id']}, an older run of another config.")
        cells[cell] = record
    return cells, remarks


# --- images ---


def collect_images(found: Iterable[Record]) -> tuple[list[ImageTable], list[str]]:
    """Group image records into tables; returns them and warnings on mismatches."""
    cells, remarks = newest_runs(found, lambda record: (*_image_table_of(record), record["method"], record["seed"]))
    groups: dict[Key, list[Record]] = {}
    for cell, record in sorted(cells.items()):
        groups.setdefault(cell[:-2], []).append(record)
    tables = [_image_table(key, group) for key, group in groups.items()]
    for title in sorted({table.title for table in tables if sum(table.title == other.title for other in tables) > 1}):
        remarks.append(f"{title}: there are runs of several backbones or task lists, each in a table of its own.")
    for table in tables:
        remarks += _incomparable(table)
    return tables, remarks


def _image_table_of(record: Record) -> Key:
    """Return what the records of one table have in common."""
    backbone = record["backbone"]
    cell = record["suite"], record["suite_name"], record["shots"], tuple(record["tasks"])
    return *cell, backbone["name"], backbone["sha256"]


def _image_table(key: Key, found: Sequence[Record]) -> ImageTable:
    suite, suite_name, shots, tasks, backbone, _ = key
    rows = []
    for method in order_methods({record["method"] for record in found}, mmap_paper()):
        runs = tuple(record for record in found if record["method"] == method)
        values = {run["seed"]: records.accuracy(run) for run in runs}
        scores = {Column(task): {seed: row[t] for seed, row in values.items()} for t, task in enumerate(tasks)}
        scores[AVERAGE] = {seed: float(np.mean(row)) for seed, row in values.items()}
        rows.append(MethodRuns(method, runs[-1]["title"], runs, scores))
    return ImageTable(suite, suite_name, shots, tasks, backbone, tuple(rows))


def _incomparable(table: ImageTable) -> list[str]:
    """Return warnings on why rows of a table are not comparable."""
    remarks = []
    seeds = sorted({seed for row in table.rows for seed in row.seeds})
    for row in table.rows:
        missing = [str(seed) for seed in seeds if seed not in row.seeds]
        if missing:
            remarks.append(f"{table.title}: {row.method} lacks seed {', '.join(missing)}.")
    for seed in seeds:
        runs = [run for row in table.rows for run in row.runs if run["seed"] == seed]
        if len({run["split_hash"] for run in runs}) > 1:
            remarks.append(f"{table.title}: the runs of seed {seed} were made on different splits.")
    return remarks


# --- videos ---


def collect_videos(found: Iterable[Record]) -> tuple[VideoTable, list[str]]:
    """Group video records into one table; returns it and warnings on mismatches."""
    cells, remarks = newest_runs(found, lambda record: (record["method"], record["task"], record["seed"]))
    layout = layout_of(cells.values())
    seeds = sorted({seed for _, _, seed in cells})
    rows: list[MethodRuns] = []
    for method in order_methods({method for method, _, _ in cells}, dlm_paper()):
        grid = [(method, task, seed) for task in layout.tasks for seed in seeds]
        runs = tuple(cells[cell] for cell in grid if cell in cells)
        tasks = {run["task"] for run in runs}
        missing = [(task, seed) for _, task, seed in grid if task in tasks and (method, task, seed) not in cells]
        lacking = [f"{task} seed {seed}" for task, seed in missing]
        remarks += [f"{method} lacks {', '.join(lacking)}."] if lacking else []
        rows += _video_rows(method, runs)
    weights = {pair for record in cells.values() for pair in record.get("weights", {}).items()}
    if len(weights) > len({task for task, _ in weights}):
        remarks.append("The runs used different frozen models; the tables mix them.")
    return VideoTable(tuple(rows), layout), remarks


def _video_rows(method: str, runs: tuple[Record, ...]) -> list[MethodRuns]:
    """Return the line of a method, and that of its static prompts where those were measured."""
    metrics = {run["task"]: run["metric"] for run in runs}
    rows = []
    for prompts, suffix in (("dynamic", ""), ("static", STATIC)):
        scores: dict[Column, dict[int, float]] = {}
        for run in runs:
            for part, measured in run["scores"].get(prompts, {}).items():
                if measured:
                    percent = measured[metrics[run["task"]]]
                    scores.setdefault(Column(run["task"], part), {})[run["seed"]] = percent
        if scores or prompts == "dynamic":
            rows.append(MethodRuns(method, runs[-1]["title"] + suffix, runs, scores, prompts))
    return rows
