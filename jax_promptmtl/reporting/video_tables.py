"""What the records of the video benchmark say, as tables: the paper's two, controls, differences, sizes and costs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jax_promptmtl.experiments.video.footage import PARTS
from jax_promptmtl.experiments.video.rows import MAPPED, ROWS
from jax_promptmtl.problems.video_tasks import SPECS
from jax_promptmtl.reporting import typeset
from jax_promptmtl.reporting.records import Record
from jax_promptmtl.reporting.tables import NOTHING, plus_minus, ranks, size, sweep_sheet
from jax_promptmtl.reporting.typeset import Cell, Sheet

METRICS = {"top1": "top-1", "map": "mAP", "f1@50": "F1@50", "ap50": "AP50"}
PAPER = {"full_ft": "100 %", "vpt": "0.21 %", "hps": "33.3 %", "mvlpt": "0.21 %", "dlm": "10.8 %"}  # table 1
BASELINES = ("frozen", "full_ft", "vpt", "hps", "mvlpt")
CONTROLS = ("mid_prompt", "self_aux", "other_clip", "own_data", "adapter")
OWN = "dlm"
KINDS = {"dynamic": "", "static": ", static prompts"}


class Column(NamedTuple):
    """Test clips that a table has a column of."""

    task: str
    part: str = "test"

    def __str__(self) -> str:
        """Return what a table calls them.

        >>> str(Column("segmentation")), str(Column("segmentation", "shifted"))
        ('segmentation', 'segmentation shifted')
        """
        return self.task if self.part == "test" else f"{self.task} {self.part}"


@dataclass(frozen=True)
class Row:
    """One way to change the primaries, with one kind of prompts: its records by task, in order of the seeds."""

    method: str
    kind: str
    runs: dict[str, tuple[Record, ...]]

    @property
    def title(self) -> str:
        """Return what a table calls it."""
        return ROWS[self.method][0] + KINDS[self.kind] if self.method in ROWS else self.method

    def values(self, column: Column) -> dict[int, float]:
        """Return seed -> percent, of the seeds that were run; {} where the task has no such part."""
        runs = self.runs.get(column.task, ())
        found = {run["seed"]: run["scores"].get(self.kind, {}).get(column.part) for run in runs}
        metrics = {seed: score for seed, score in found.items() if score}
        return {seed: score[run_metric(runs)] for seed, score in metrics.items()}


def run_metric(runs: Sequence[Record]) -> str:
    """Return the metric of a task's records."""
    return runs[-1]["metric"]


def collect(found: Iterable[Record]) -> tuple[list[Row], list[str]]:
    """Return the rows, and sentences about what does not fit together."""
    cells: dict[tuple[str, str, int], Record] = {}
    remarks = []
    for record in sorted(found, key=lambda record: (record["written"], record["id"])):
        if record["status"] == "done" and record.get("rate") is None:
            key = record["method"], record["task"], record["seed"]
            if key in cells:
                remarks.append(f"{record['id']} is used, and not {cells[key]['id']}, which is older.")
            cells[key] = record
    seeds = sorted({seed for _, _, seed in cells})
    rows = []
    for method in ordered({method for method, _, _ in cells}):
        runs = {
            task: tuple(cells[method, task, seed] for seed in seeds if (method, task, seed) in cells) for task in SPECS
        }
        runs = {task: some for task, some in runs.items() if some}
        lacking = [f"{task} seed {seed}" for task in runs for seed in seeds if (method, task, seed) not in cells]
        remarks += [f"{method} lacks {', '.join(lacking)}."] if lacking else []
        kinds = KINDS if method in MAPPED else ("dynamic",)
        rows += [Row(method, kind, runs) for kind in kinds]
    weights = {pair for record in cells.values() for pair in record.get("weights", {}).items()}
    if len(weights) > len({task for task, _ in weights}):
        remarks.append("The runs used different frozen models; the tables mix them.")
    return rows, remarks


def ordered(methods: Iterable[str]) -> list[str]:
    """Return methods in the order of the tables."""
    order = [*BASELINES, OWN, "single_layer", *CONTROLS]
    return sorted(methods, key=lambda method: (order.index(method) if method in order else len(order), method))


def tasks_of(rows: Sequence[Row]) -> list[Column]:
    """Return the tasks that any row has: the columns of table 1."""
    return [Column(task) for task in SPECS if any(task in row.runs for row in rows)]


def transfers_of(rows: Sequence[Row]) -> list[Column]:
    """Return the other data of these tasks that any row was measured on: the columns of table 2."""
    known = [Column(task, part) for task, _ in tasks_of(rows) for part in PARTS if part not in ("train", "test")]
    return [column for column in known if any(row.values(column) for row in rows)]


def spell(values: Iterable[float]) -> str:
    """Return mean ± std of some seeds, ddof 1.

    >>> spell([1.0, 3.0]), spell([1.0]), spell([2.0, 2.0])
    ('2.0 ± 1.4', '1.0', '2.0')
    """
    some = list(values)
    if not some:
        return NOTHING
    return plus_minus(float(np.mean(some)), float(np.std(some, ddof=1)) if len(set(some)) > 1 else None)


def score_sheet(rows: Sequence[Row], columns: Sequence[Column], *, shares: bool = False) -> Sheet:
    """Return the metric of each column for every row, mean ± std over seeds; with `shares`, the trained share.

    Args:
      rows: lines of the table.
      columns: of the table.
      shares: add the trained share of the primary, of all models used, and the paper's.
    """
    best = {column: ranks([mean(row.values(column)) for row in rows]) for column in columns}
    lines = []
    for number, row in enumerate(rows):
        line = [Cell(row.title), *share_cells(row)] if shares else [Cell(row.title)]
        lines.append([*line, *(Cell(spell(row.values(column).values()), best[column][number]) for column in columns)])
    names = [f"{column} ({METRICS[metric_of(rows, column.task)]})" for column in columns]
    return Sheet(("method", *(("trained / all models", "paper") if shares else ()), *names), lines)


def mean(values: dict[int, float]) -> float:
    """Return the mean, rounded as it is printed; NaN of nothing."""
    return round(float(np.mean(list(values.values()))), 1) if values else float("nan")


def metric_of(rows: Sequence[Row], task: str) -> str:
    """Return the metric of a task."""
    return next(run_metric(row.runs[task]) for row in rows if task in row.runs)


def share_cells(row: Row) -> list[Cell]:
    """Return the trained share of all models used, over the primaries, and the paper's."""
    last = [runs[-1] for runs in row.runs.values()]
    shares = sorted({f"{100 * run['trainable'] / run['loaded']:.3g}" for run in last}, key=float)
    text = shares[0] if len(shares) == 1 else f"{shares[0]} to {shares[-1]}"
    return [Cell(f"{text} %"), Cell(PAPER.get(row.method, "") if row.kind == "dynamic" else "")]


def size_sheet(rows: Sequence[Row]) -> Sheet:
    """Return per primary what is trained, its share of the primary and of all models used, and what it costs."""
    lines = [
        [Cell(row.title), Cell(task), *map(Cell, size_cells(runs))]
        for row in rows
        if row.kind == "dynamic"
        for task, runs in row.runs.items()
    ]
    header = (
        "trained",
        "all models used",
        "of the primary",
        "of all models",
        "prompts / tokens",
        "step [ms]",
        "run [s]",
    )
    return Sheet(("method", "primary", *header), lines, words=2)


def size_cells(runs: Sequence[Record]) -> list[str]:
    """Return sizes of the last run, and means over those that were not broken off and resumed."""
    last, timed = runs[-1], [run for run in runs if not run.get("resumed")]
    shares = [f"{100 * last['trainable'] / last[whole]:.2f} %" for whole in ("primary", "loaded")]
    means = [(1, "prompt_rms", "{:.2f}"), (1000, "step_seconds", "{:.0f}"), (1, "wall_seconds", "{:.0f}")]
    costs = []
    for factor, key, form in means:
        values = [factor * run[key] for run in timed if run.get(key)]
        costs.append(form.format(np.mean(values)) if values else NOTHING)
    return [size(last["trainable"]), size(last["loaded"]), *shares, *costs]


def difference(one: Row, two: Row, column: Column) -> list[float]:
    """Return the difference of two rows in points, seed by seed, of the seeds that both have."""
    first, second = one.values(column), two.values(column)
    return [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]


def difference_sheet(own: Row, others: Sequence[Row], columns: Sequence[Column]) -> Sheet:
    """Return by how many points a row is above others: the mean, and every seed in brackets."""
    lines = []
    for other in others:
        found = [difference(own, other, column) for column in columns]
        texts = [
            f"{np.mean(some):+.1f} ({', '.join(f'{value:+.1f}' for value in some)})" if some else NOTHING
            for some in found
        ]
        lines.append([Cell(f"{own.title} − {other.title}"), *map(Cell, texts)])  # noqa: RUF001
    return Sheet(("points", *map(str, columns)), lines)


def verdict(values: Sequence[float]) -> str:
    """Return what the seeds say together.

    >>> verdict([1.0, 0.2]), verdict([-1.0, 0.2]), verdict([])
    ('above', 'undecided', '')
    """
    if not values:
        return ""
    return "above" if min(values) > 0 else "below" if max(values) < 0 else "undecided"


def findings(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """Say of the mapper, with each kind of prompts, in which columns every seed is above or below each other row."""
    lines = []
    others = [row for row in rows if row.kind == "dynamic" and row.method != OWN]
    for own in (row for row in rows if row.method == OWN):
        for other in others:
            said: dict[str, list[str]] = {}
            for column in columns:
                said.setdefault(verdict(difference(own, other, column)), []).append(str(column))
            texts = [f"{word} on {', '.join(said[word])}" for word in ("above", "below", "undecided") if word in said]
            if texts:
                lines.append(f"{own.title} against {other.title}: {'; '.join(texts)}.")
    return lines


def choose(rows: Sequence[Row], methods: Iterable[str]) -> list[Row]:
    """Return the rows of some methods, in their order."""
    return [row for method in methods for row in rows if row.method == method]


def sweep_sheets(found: Iterable[Record]) -> dict[str, Sheet]:
    """Return the searches for learning rates, {task: percent of every rate}."""
    cells: dict[str, dict[str, dict[float, list]]] = {}
    for record in found:
        if record.get("rate") is not None:
            done = record["status"] == "done"
            value = record["scores"]["dynamic"]["test"][record["metric"]] if done else float("nan")
            row = cells.setdefault(record["task"], {}).setdefault(record["method"], {})
            row.setdefault(record["rate"], []).append(value)
    return {task: sweep_sheet(rows) for task, rows in cells.items()}


def console(found: Sequence[Record]) -> str:
    """Return the scores of all rows, and of all learning rates, for a terminal."""
    rows, remarks = collect(found)
    parts = [typeset.console(score_sheet(rows, tasks_of(rows), shares=True))] if rows else []
    parts += [f"{task}, learning rates\n{typeset.console(sheet)}" for task, sheet in sweep_sheets(found).items()]
    return "\n\n".join([*parts, *remarks]) or "There is no finished run yet."
