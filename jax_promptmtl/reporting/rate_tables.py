"""Tables of learning-rate sweeps: the score of every rate, and the best."""

from collections.abc import Iterable, Mapping

import numpy as np

from jax_promptmtl.reporting import records
from jax_promptmtl.reporting.formatting import NOTHING, rank_best
from jax_promptmtl.reporting.records import Record
from jax_promptmtl.reporting.typeset import Cell, Sheet

Searched = dict[float, list[float]]  # learning rate -> percents of its runs, NaN of those that failed


def rate_sheets(found: Iterable[Record]) -> dict[str, Sheet]:
    """Return {suite of images, or task of videos: the percent of every learning rate}, suites by name."""
    searches: dict[str, dict[str, Searched]] = {}
    for record in sorted(found, key=lambda record: record.get("suite", "")):
        if record.get("rate") is not None:
            value = records.score(record) if record["status"] == "done" else float("nan")
            methods = searches.setdefault(record.get("suite") or record["task"], {})
            methods.setdefault(record["method"], {}).setdefault(record["rate"], []).append(value)
    return {name: _rate_sheet(methods) for name, methods in searches.items()}


def _rate_sheet(methods: Mapping[str, Searched]) -> Sheet:
    """Return a line per method: each rate with its mean, then the best one."""
    width = max(map(len, methods.values()))
    lines = []
    for method, found in methods.items():
        tried = sorted(found)
        means = [float(np.mean(found[rate])) for rate in tried]
        best = rank_best(means)
        texts = [
            f"{rate:g}: " + ("failed" if np.isnan(m) else f"{m:.2f}") for rate, m in zip(tried, means, strict=True)
        ]
        chosen = f"{tried[best.index(1)]:g}" if 1 in best else NOTHING
        edge = " (at the edge)" if 1 in best and best.index(1) in (0, len(tried) - 1) and len(tried) > 1 else ""
        cells = [Cell(text, int(rank == 1)) for text, rank in zip(texts, best, strict=True)]
        lines.append([Cell(method), *cells, *[Cell("")] * (width - len(cells)), Cell(chosen + edge)])
    return Sheet(("method", *(f"rate {number}" for number in range(1, width + 1)), "best"), lines)
