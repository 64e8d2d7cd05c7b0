"""Paired differences of two methods: on images with intervals over test drawings, on videos seed by seed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jax_promptmtl.reporting import records
from jax_promptmtl.reporting.collect import Column, ImageTable, MethodRuns
from jax_promptmtl.reporting.formatting import NOTHING
from jax_promptmtl.reporting.paper import dlm_paper
from jax_promptmtl.reporting.records import Record
from jax_promptmtl.reporting.typeset import Cell, Sheet
from jax_promptmtl.tasks.metrics import paired

MINUS = "−"  # noqa: RUF001


@dataclass(frozen=True)
class Difference:
    """How many points one method is above another on the same seeds and test examples.

    Attributes:
      mean: over seeds.
      seeds: {seed: points}.
      interval: 95 % over resamples of the test drawings, where the answers per image are known.
    """

    mean: float
    seeds: Mapping[int, float]
    interval: tuple[float, float] | None = None

    @property
    def sign(self) -> int:
        """Return 1 or -1 where the interval and every seed are on one side of 0, else 0: the data do not decide.

        >>> Difference(0.4, {0: 1.0, 1: -0.2}, (0.1, 2.0)).sign, Difference(0.6, {0: 1.0, 1: 0.2}).sign
        (0, 1)
        """
        points = [*self.seeds.values(), *(self.interval or ())]
        return int(min(points) > 0) - int(max(points) < 0)


@dataclass(frozen=True)
class Comparison:
    """Two methods and their difference."""

    method: MethodRuns
    against: MethodRuns
    difference: Difference


# --- images ---


def compare_pairs(table: ImageTable, pairs: Iterable[tuple[str, str]]) -> list[Comparison]:
    """Return the comparisons of those pairs of methods that were run on the same seeds and test images."""
    rows = [(table.row(first), table.row(second)) for first, second in pairs]
    compared = [(one, two, image_difference(one, two)) for one, two in rows if one and two and one.method != two.method]
    return [Comparison(one, two, found) for one, two, found in compared if found]


def image_difference(first: MethodRuns, second: MethodRuns) -> Difference | None:
    """Return the difference of the average over tasks, with its interval; `None` if they share no seed and test set."""
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
    return Difference(mean, seeds, (low, high))


def _same_test(one: Record, other: Record) -> bool:
    return all(one[key] == other[key] for key in ("count", "drawing", "tasks"))


def verdict_sheet(compared: Sequence[Comparison]) -> Sheet:
    """Return comparisons with their intervals and verdicts."""
    lines = []
    for one in compared:
        found = one.difference
        verdict = {1: "better", -1: "worse", 0: "undecided"}[found.sign]
        interval = "[{:+.2f}, {:+.2f}]".format(*found.interval) if found.interval else NOTHING
        seeds = ", ".join(f"{value:+.1f}" for value in found.seeds.values())
        texts = (one.method.title, one.against.title, f"{found.mean:+.2f}", interval, seeds, verdict)
        lines.append([*map(Cell, texts)])
    return Sheet(("method", "against", "points", "95 % interval", "per seed", "verdict"), lines, words=2)


# --- videos ---


def video_difference(one: MethodRuns, two: MethodRuns, column: Column) -> Difference | None:
    """Return the difference in a column of the seeds that both have; `None` where they share none."""
    first, second = one.scores.get(column, {}), two.scores.get(column, {})
    seeds = {seed: first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())}
    return Difference(float(np.mean(list(seeds.values()))), seeds) if seeds else None


def point_sheet(own: MethodRuns, others: Iterable[MethodRuns], columns: Sequence[Column]) -> Sheet:
    """Return the differences of a row to others in points: the mean, and every seed in brackets."""
    lines = []
    for other in others:
        texts = [_points(video_difference(own, other, column)) for column in columns]
        lines.append([Cell(f"{own.title} {MINUS} {other.title}"), *map(Cell, texts)])
    return Sheet(("points", *map(str, columns)), lines)


def _points(found: Difference | None) -> str:
    if found is None:
        return NOTHING
    return f"{found.mean:+.1f} ({', '.join(f'{value:+.1f}' for value in found.seeds.values())})"


def compared_rows(rows: Iterable[MethodRuns]) -> list[MethodRuns]:
    """Return the rows to compare the mapper with: all others, with dynamic prompts where they have any."""
    return [row for row in rows if row.prompts == "dynamic" and row.method != dlm_paper()["reference"]]


def seed_findings(rows: Sequence[MethodRuns], columns: Sequence[Column]) -> list[str]:
    """Summarise in which columns every seed of the mapper is above or below each other row, per kind of prompts."""
    words = {1: "above", -1: "below", 0: "undecided"}
    lines = []
    for own in (row for row in rows if row.method == dlm_paper()["reference"]):
        for other in compared_rows(rows):
            said: dict[int, list[str]] = {}
            for column in columns:
                if found := video_difference(own, other, column):
                    said.setdefault(found.sign, []).append(str(column))
            texts = [f"{word} on {', '.join(said[sign])}" for sign, word in words.items() if sign in said]
            if texts:
                lines.append(f"{own.title} against {other.title}: {'; '.join(texts)}.")
    return lines
