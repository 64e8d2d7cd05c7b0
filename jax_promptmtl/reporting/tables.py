"""What the records of a benchmark say, as tables: accuracies, costs, ablations, differences, learning rates."""

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jax_promptmtl.core.files import ASSETS
from jax_promptmtl.reporting import records, typeset
from jax_promptmtl.reporting.records import Record
from jax_promptmtl.reporting.typeset import Cell, Sheet
from jax_promptmtl.tasks.metrics import paired

PAPER = ASSETS / "paper_mmap.json"
NOTHING = "–"  # noqa: RUF001


@functools.cache
def read_paper() -> dict[str, Any]:
    """Return the paper's tables, and which of our presets are its rows."""
    return json.loads(PAPER.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Row:
    """The runs of one method, S seeds in order."""

    method: str
    runs: tuple[Record, ...]

    @property
    def title(self) -> str:
        """Return what a table calls the method."""
        return self.runs[-1]["title"]

    @property
    def seeds(self) -> list[int]:
        """Return the seeds."""
        return [run["seed"] for run in self.runs]

    @property
    def accuracy(self) -> np.ndarray:
        """Return float[S, T + 1]: accuracy in percent per task, then their plain average."""
        values = np.array([records.accuracy(run) for run in self.runs])
        return np.concatenate([values, values.mean(axis=1, keepdims=True)], axis=1)

    @property
    def mean(self) -> np.ndarray:
        """Return float[T + 1], the mean over seeds."""
        return self.accuracy.mean(axis=0)

    @property
    def std(self) -> np.ndarray:
        """Return float[T + 1], the standard deviation over seeds with ddof = 1; NaN for a single seed."""
        return self.accuracy.std(axis=0, ddof=1) if len(self.runs) > 1 else np.full(self.accuracy.shape[1], np.nan)


@dataclass(frozen=True)
class Table:
    """All methods on one suite with one number of shots."""

    suite: str
    suite_name: str
    shots: int
    tasks: tuple[str, ...]
    backbone: str
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        """Return a heading."""
        return f"{self.suite}, {self.shots} shot{'s' * (self.shots != 1)} per class"

    def row(self, method: str) -> Row | None:
        """Return the row of a method, if it was run."""
        return next((row for row in self.rows if row.method == method), None)


def collect(found: Iterable[Record]) -> tuple[list[Table], list[str]]:
    """Group the records that are done into tables; returns them and sentences about what does not fit together."""
    tables: dict[tuple, dict[tuple, Record]] = {}
    remarks = []
    for record in sorted(found, key=lambda record: (record["written"], record["id"])):
        if record["status"] != "done" or record.get("rate") is not None:
            continue
        key = record["suite"], record["suite_name"], record["shots"], tuple(record["tasks"]), record["backbone"]["name"]
        cells = tables.setdefault((*key, record["backbone"]["sha256"]), {})
        cell = record["method"], record["seed"]
        if cell in cells:
            remarks.append(
                f"{record['method']} on {record['suite']}, {record['shots']} shots, seed {record['seed']} was run with "
                f"two configs; {record['id']} is used, the newest, and {cells[cell]['id']} is not."
            )
        cells[cell] = record
    made = [_table(key, cells) for key, cells in sorted(tables.items(), key=lambda item: item[0])]
    for title in sorted({table.title for table in made if sum(table.title == other.title for other in made) > 1}):
        remarks.append(f"{title}: there are runs of several backbones or task lists, each in a table of its own.")
    for table in made:
        remarks += _complain(table)
    return made, remarks


def _table(key: tuple, cells: dict[tuple, Record]) -> Table:
    order = {method: number for number, method in enumerate(read_paper()["order"])}
    methods = sorted({method for method, _ in cells}, key=lambda method: (order.get(method, len(order)), method))
    rows = [Row(method, tuple(cells[cell] for cell in sorted(cells) if cell[0] == method)) for method in methods]
    suite, suite_name, shots, tasks, backbone, _ = key
    return Table(suite, suite_name, shots, tasks, backbone, tuple(rows))


def _complain(table: Table) -> list[str]:
    """Return what makes the rows of a table incomparable."""
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


def plus_minus(mean: float, std: float | None, digits: int = 1) -> str:
    """Return a mean and its standard deviation, which may be missing.

    >>> plus_minus(52.84, 0.36), plus_minus(52.84, float("nan"))
    ('52.8 ± 0.4', '52.8')
    """
    return f"{mean:.{digits}f}" + ("" if std is None or np.isnan(std) else f" ± {std:.{digits}f}")


def size(number: float) -> str:
    """Return a number of parameters as text.

    >>> size(0), size(6264), size(149620737)
    ('0', '6,264', '149.62 M')
    """
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number:,.0f}"


def ranks(values: Sequence[float]) -> list[int]:
    """Return 1 for the largest values, 2 for the next ones, 0 for the others and for NaN.

    >>> ranks([3.0, 5.0, 5.0, 4.0])
    [0, 1, 1, 2]
    """
    best = sorted({value for value in values if not np.isnan(value)}, reverse=True)
    return [best.index(value) + 1 if value in best[:2] else 0 for value in values]


def paper_cells(table: Table, method: str) -> dict[str, tuple[float, float | None]]:
    """Return {task or "average": [mean, std]} of the paper for a row; {} where the suite is none of the paper's."""
    found = read_paper()["tables"].get(table.suite_name, {})
    split = found.get("splits", {}).get(str(table.shots))
    cells = found["accuracy"][split].get(method, {}) if split else {}
    return {
        ours: tuple(cells[theirs])
        for ours, theirs in (found.get("tasks", {}) | {"average": "Average"}).items()
        if cells
    }


def accuracy_sheet(table: Table) -> Sheet:
    """Return accuracy in percent, mean ± std over seeds; the paper's in brackets where it has the same row."""
    columns = (*table.tasks, "average")
    best = [ranks([round(float(row.mean[c]), 1) for row in table.rows]) for c in range(len(columns))]
    lines = []
    for number, row in enumerate(table.rows):
        theirs = paper_cells(table, row.method)
        line = [Cell(row.title), Cell(size(row.runs[-1]["trainable"])), Cell(str(len(row.runs)))]
        for c, column in enumerate(columns):
            text = plus_minus(row.mean[c], row.std[c])
            text += f" ({plus_minus(*theirs[column])})" if column in theirs else ""
            line.append(Cell(text, best[c][number]))
        lines.append(line)
    return Sheet(("method", "trained parameters", "seeds", *columns), lines)


def cost_sheet(table: Table) -> Sheet:
    """Return what the methods cost, means over seeds; runs that were broken off and resumed are not timed."""
    lines = []
    for row in table.rows:
        last, timed = row.runs[-1], [run for run in row.runs if not run.get("resumed")]
        drawn = _mean([float(np.mean(run["accuracy_per_drawing"])) for run in row.runs], "{:.1f}")
        lines.append(
            [
                Cell(row.title),
                Cell(f"{last['trainable']:,}"),
                Cell(f"{100 * last['trainable'] / last['total']:.3f} %"),
                Cell(_mean([1000 * run["step_seconds"] for run in timed if run.get("step_seconds")], "{:.0f}")),
                Cell(_mean([run["images_per_second"] for run in timed if run.get("images_per_second")], "{:.0f}")),
                Cell(_mean([run["peak_memory"] / 2**20 for run in timed], "{:,.0f}")),
                Cell(_mean([run["wall_seconds"] for run in timed], "{:.0f}")),
                Cell(drawn),
            ]
        )
    cost = ("trained", "share", "step [ms]", "images/s", "peak memory [MiB]", "run [s]", "accuracy per drawing")
    return Sheet(("method", *cost), lines)


def _mean(values: Sequence[float], form: str) -> str:
    return form.format(np.mean(values)) if values else NOTHING


def group_sheet(table: Table) -> Sheet | None:
    """Return Table 3, the ablation of groups, or `None` if fewer than two of its rows were run."""
    about = read_paper()["table_3"]
    chosen = [(row, label, theirs) for method, label, theirs in about["rows"] if (row := table.row(method))]
    if len(chosen) < 2:
        return None
    best = ranks([round(float(row.mean[-1]), 2) for row, *_ in chosen])
    split = read_paper()["tables"][about["suite"]]["splits"].get(str(table.shots))
    beside = split if table.suite_name == about["suite"] else None
    lines = [
        [
            Cell(label),
            Cell(size(row.runs[-1]["trainable"])),
            Cell(plus_minus(row.mean[-1], row.std[-1], 2), best[number]),
        ]
        + ([Cell(f"{theirs[beside]:.2f}")] if beside else [])
        for number, (row, label, theirs) in enumerate(chosen)
    ]
    return Sheet(("prompts", "trained parameters", "average", *(["paper"] if beside else [])), lines)


def difference(first: Row, second: Row) -> dict[str, Any] | None:
    """Compare two methods on the seeds that both have.

    Returns:
      `mean` (points of the average over tasks), `low` and `high` (95 % interval over test drawings), `seeds`
      ({seed: points}); `None` if they share no seed and test set.
    """
    pairs = [(a, b) for a in first.runs for b in second.runs if a["seed"] == b["seed"] and _same_test(a, b)]
    if not pairs:
        return None
    parts, seeds = [], {}
    for one, other in pairs:
        values = [100 * (x.astype(float) - y) for x, y in zip(records.right(one), records.right(other), strict=True)]
        groups = np.split(records.drawings(one), np.cumsum(one["count"])[:-1])
        seeds[one["seed"]] = float(np.mean([value.mean() for value in values]))
        parts.append((values, groups))
    if all(_same_test(pairs[0][0], one) for one, _ in pairs):  # one test set: images are drawn together for all seeds
        parts = [([np.mean(v, axis=0) for v in zip(*(part[0] for part in parts), strict=True)], parts[0][1])]
    flat = [(value, group) for values, groups in parts for value, group in zip(values, groups, strict=True)]
    mean, low, high = paired.bootstrap([value for value, _ in flat], [group for _, group in flat])
    return {"mean": mean, "low": low, "high": high, "seeds": seeds}


def _same_test(one: Record, other: Record) -> bool:
    return one["count"] == other["count"] and one["drawing"] == other["drawing"] and one["tasks"] == other["tasks"]


def differences(table: Table, pairs: Iterable[tuple[str, str]]) -> list[tuple[Row, Row, dict[str, Any]]]:
    """Return the comparisons of those pairs of methods that were run."""
    rows = [(table.row(first), table.row(second)) for first, second in pairs]
    compared = [(one, two, difference(one, two)) for one, two in rows if one and two and one.method != two.method]
    return [(one, two, found) for one, two, found in compared if found]


def decide(found: dict[str, Any]) -> int:
    """Return 1 or -1 where the interval and every seed are on one side of 0, else 0: then the data do not decide.

    >>> decide({"low": 0.1, "high": 2.0, "seeds": {0: 1.0, 1: -0.2}})
    0
    """
    seeds = found["seeds"].values()
    return int(found["low"] > 0 and min(seeds) > 0) - int(found["high"] < 0 and max(seeds) < 0)


def difference_sheet(compared: Sequence[tuple[Row, Row, dict[str, Any]]]) -> Sheet:
    """Return comparisons with their intervals, and what can be said."""
    lines = []
    for one, two, found in compared:
        verdict = {1: "better", -1: "worse", 0: "undecided"}[decide(found)]
        interval = f"[{found['low']:+.2f}, {found['high']:+.2f}]"
        seeds = ", ".join(f"{value:+.1f}" for value in found["seeds"].values())
        lines.append([Cell(text) for text in (one.title, two.title, f"{found['mean']:+.2f}", interval, seeds, verdict)])
    return Sheet(("method", "against", "points", "95 % interval", "per seed", "verdict"), lines, words=2)


def sweep_sheets(found: Iterable[Record]) -> dict[str, Sheet]:
    """Return the searches for learning rates, {suite: average accuracy of every rate}."""
    cells: dict[str, dict[str, dict[float, list]]] = {}
    for record in found:
        if record.get("rate") is not None:
            value = float(np.mean(records.accuracy(record))) if record["status"] == "done" else float("nan")
            row = cells.setdefault(record["suite"], {}).setdefault(record["method"], {})
            row.setdefault(record["rate"], []).append(value)
    return {suite: sweep_sheet(rows) for suite, rows in sorted(cells.items())}


def sweep_sheet(rows: dict[str, dict[float, list]]) -> Sheet:
    """Return the percent of every learning rate of {method: {rate: percents}}, and the best."""
    width = max(map(len, rows.values()))
    lines = []
    for method, found in rows.items():
        tried = sorted(found)
        means = [float(np.mean(found[rate])) for rate in tried]
        best = ranks(means)
        texts = [
            f"{rate:g}: " + ("failed" if np.isnan(m) else f"{m:.2f}") for rate, m in zip(tried, means, strict=True)
        ]
        chosen = f"{tried[best.index(1)]:g}" if 1 in best else NOTHING
        edge = " (at the edge)" if 1 in best and best.index(1) in (0, len(tried) - 1) and len(tried) > 1 else ""
        cells = [Cell(text, int(rank == 1)) for text, rank in zip(texts, best, strict=True)]
        lines.append([Cell(method), *cells, *[Cell("")] * (width - len(cells)), Cell(chosen + edge)])
    return Sheet(("method", *(f"rate {number}" for number in range(1, width + 1)), "best"), lines)


def console(found: Sequence[Record]) -> str:
    """Return all tables of accuracies and learning rates for a terminal."""
    tables, remarks = collect(found)
    parts = [f"{table.title}\n{typeset.console(accuracy_sheet(table))}" for table in tables]
    parts += [f"{suite}, learning rates\n{typeset.console(sheet)}" for suite, sheet in sweep_sheets(found).items()]
    return "\n\n".join([*parts, *remarks]) or "There is no finished run yet."
