"""Cost tables: parameters, time and memory, as means over uninterrupted runs."""

from collections.abc import Iterable, Sequence

import numpy as np

from jax_promptmtl.reporting.collect import ImageTable, MethodRuns
from jax_promptmtl.reporting.formatting import format_average, format_count
from jax_promptmtl.reporting.records import Record
from jax_promptmtl.reporting.typeset import Cell, Sheet

IMAGE_COSTS = ("trained", "share", "step [ms]", "images/s", "peak memory [MiB]", "run [s]", "accuracy per drawing")
VIDEO_COSTS = (
    "trained",
    "all models used",
    "of the primary",
    "of all models",
    "prompts / tokens",
    "step [ms]",
    "run [s]",
)


def image_cost_sheet(table: ImageTable) -> Sheet:
    """Return what the methods on images cost, and their accuracy with every drawing weighing the same."""
    lines = []
    for row in table.rows:
        last, timed = row.runs[-1], _timed(row.runs)
        cells = [
            row.title,
            f"{last['trainable']:,}",
            f"{100 * last['trainable'] / last['total']:.3f} %",
            format_average(_present(timed, "step_seconds", 1000), "{:.0f}"),
            format_average(_present(timed, "images_per_second"), "{:.0f}"),
            format_average([run["peak_memory"] / 2**20 for run in timed], "{:,.0f}"),
            format_average([run["wall_seconds"] for run in timed], "{:.0f}"),
            format_average([float(np.mean(run["accuracy_per_drawing"])) for run in row.runs], "{:.1f}"),
        ]
        lines.append([*map(Cell, cells)])
    return Sheet(("method", *IMAGE_COSTS), lines)


def video_cost_sheet(rows: Iterable[MethodRuns]) -> Sheet:
    """Return per primary what is trained, its share of the primary and of all models used, and what it costs."""
    lines = [
        [Cell(row.title), Cell(task), *map(Cell, _video_costs(runs))]
        for row in rows
        if row.prompts == "dynamic"
        for task, runs in row.by_task.items()
    ]
    return Sheet(("method", "primary", *VIDEO_COSTS), lines, words=2)


def _video_costs(runs: Sequence[Record]) -> list[str]:
    last, timed = runs[-1], _timed(runs)
    return [
        format_count(last["trainable"]),
        format_count(last["loaded"]),
        *(f"{100 * last['trainable'] / last[whole]:.2f} %" for whole in ("primary", "loaded")),
        format_average(_present(timed, "prompt_rms"), "{:.2f}"),
        format_average(_present(timed, "step_seconds", 1000), "{:.0f}"),
        format_average(_present(timed, "wall_seconds"), "{:.0f}"),
    ]


def _timed(runs: Sequence[Record]) -> list[Record]:
    """Return the uninterrupted runs; wall times of resumed ones are meaningless."""
    return [run for run in runs if not run.get("resumed")]


def _present(runs: Sequence[Record], key: str, factor: float = 1) -> list[float]:
    """Return the values of the runs that have one."""
    return [factor * run[key] for run in runs if run.get(key)]
