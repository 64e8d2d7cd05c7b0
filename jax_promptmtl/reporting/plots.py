"""Figures of a benchmark: trade-off, bars, k-shot curves, paired differences. Plain data in, PNG out."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from jax_promptmtl.reporting.style import FAINT, INK, PALETTE, canvas

LABEL = 8.5  # font size of labels beside points
PLACES = [(x, y) for y in (0, 1, -1, 2, -2, 3, -3) for x in (1, -1)] + [(0, 2), (0, -2), (0, 3), (0, -3)]


def trade_off(
    path: str | pathlib.Path, points: Sequence[Mapping[str, Any]], *, title: str, level: tuple[str, float] | None = None
) -> None:
    """Draw accuracy against the number of trained parameters (Figure 1).

    Args:
      path: of the PNG.
      points: `label`, `trainable` (> 0), `accuracy` in percent, `std` (may be NaN), `own` (drawn in the first colour).
      title: of the picture.
      level: name and accuracy of an untrained baseline, drawn as a line.
    """
    with canvas(path, 7.6, 4.9) as figure:
        axes = figure.subplots()
        axes.set_xscale("log")
        x, y = (np.array([point[key] for point in points], float) for key in ("trainable", "accuracy"))
        for point in points:
            colour, size = (PALETTE[1], 11) if point["own"] else (PALETTE[0], 8)
            bar = None if np.isnan(point["std"]) else point["std"]
            axes.errorbar(point["trainable"], point["accuracy"], bar, fmt="o", color=colour, markersize=size,
                          markeredgecolor="white", ecolor=colour, elinewidth=1.2)  # fmt: skip
        if level:
            axes.axhline(level[1], color=FAINT, linewidth=1.2, linestyle="--", zorder=0)
            axes.annotate(level[0], (0, level[1]), xycoords=("axes fraction", "data"), xytext=(4, 4),
                          textcoords="offset points", color=FAINT, fontsize=LABEL)  # fmt: skip
        axes.grid(True)
        axes.set(xlabel="trained parameters", ylabel="average accuracy [%]", title=title)
        axes.set_xlim(x.min() / 3, x.max() * 3)
        axes.margins(y=0.12)
        _label(figure, axes, x, y, [point["label"] for point in points], [point["own"] for point in points])


def _label(
    figure: Any,
    axes: Any,
    x: np.ndarray,
    y: np.ndarray,
    labels: Sequence[str],
    bold: Sequence[bool],
) -> None:
    """Label each point where the label covers neither a point nor another label, if possible."""
    figure.canvas.draw()
    figure.set_layout_engine("none")  # fixes the layout: positions are computed from it below
    scale = 72 / figure.dpi  # all lengths in points, independent of the resolution
    dots = scale * axes.transData.transform(np.stack([x, y], axis=1))
    taken = [(px - 5, py - 5, px + 5, py + 5) for px, py in dots]
    border = scale * axes.get_window_extent().get_points().ravel()
    for index in np.argsort(-y):
        text = axes.annotate(labels[index], (x[index], y[index]), xytext=(0, 0), textcoords="offset points",
                             fontsize=LABEL, color=INK, fontweight="bold" if bold[index] else "normal",
                             va="center", path_effects=[withStroke(linewidth=2.5, foreground="white")])  # fmt: skip
        extent = text.get_window_extent(figure.canvas.get_renderer())
        others = [box for number, box in enumerate(taken) if number != index]
        boxes = [_place(dots[index], scale * extent.width, scale * extent.height, place) for place in PLACES]
        costs = [sum(_overlap(box, other) for other in others) + 50 * _outside(box, border) for box in boxes]
        best = int(np.argmin(np.array(costs) + 0.5 * np.arange(len(costs))))
        box = np.array(boxes[best])
        text.set_position((box[0] - dots[index][0], (box[1] + box[3]) / 2 - dots[index][1]))
        if abs(PLACES[best][1]) > 1:
            _tie(axes, (x[index], y[index]), dots[index], box)
        taken.append(boxes[best])


def _tie(axes: Any, point: tuple[float, float], dot: np.ndarray, box: np.ndarray) -> None:
    """Draw a leader line from a point to a label that is not beside it."""
    end = np.clip(dot, box[:2], box[2:]) - dot
    line = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.6}
    axes.annotate("", point, xytext=end, textcoords="offset points", arrowprops=line, zorder=0)


def _place(dot: np.ndarray, width: float, height: float, place: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the box of a label at a place: to the right, the left or the middle of its dot, some lines up or down."""
    middle = dot[1] + place[1] * 1.1 * height
    left = dot[0] + 7 if place[0] > 0 else dot[0] - 7 - width if place[0] < 0 else dot[0] - width / 2
    return left, middle - height / 2, left + width, middle + height / 2


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


def _outside(box: Sequence[float], border: np.ndarray) -> float:
    """Return by how much a box exceeds the left, lower, right and upper border."""
    beyond = [border[0] - box[0], border[1] - box[1], box[2] - border[2], box[3] - border[3]]
    total: float = sum(max(length, 0.0) for length in beyond)
    return total


def bars(path: str | pathlib.Path, rows: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Draw one bar per method on a scale that starts near the lowest (Figure 4).

    Args:
      path: of the PNG.
      rows: `label`, `accuracy` in percent, `std` (may be NaN), `trainable`, `seeds` (float[S], drawn as points).
      title: of the picture.
    """
    with canvas(path, 1.5 + 1.25 * len(rows), 3.6) as figure:
        axes = figure.subplots()
        values = [row["accuracy"] for row in rows]
        errors = [0 if np.isnan(row["std"]) else row["std"] for row in rows]
        every = [value for row in rows for value in row["seeds"]]
        low = np.floor(min(every) - max(1.0, 0.6 * (max(every) - min(every))))
        colours = ["#9CC3DE"] * (len(rows) - 1) + [PALETTE[0]]
        axes.bar(range(len(rows)), np.array(values) - low, bottom=low, color=colours, width=0.62)
        axes.errorbar(range(len(rows)), values, errors, fmt="none", ecolor=INK, elinewidth=1.2, capsize=4)
        for number, row in enumerate(rows):
            places = number + 0.18 * np.linspace(-1, 1, len(row["seeds"])) if len(row["seeds"]) > 1 else [number]
            axes.plot(places, row["seeds"], "o", color=INK, markersize=3, alpha=0.7)
            top = max(row["accuracy"] + errors[number], *row["seeds"])
            axes.annotate(
                f"{row['accuracy']:.1f}", (number, top), xytext=(0, 5), textcoords="offset points", ha="center"
            )
        texts = [f"{row['label']}\n{row['trainable']:,}" for row in rows]
        axes.set_xticks(range(len(rows)), texts, fontsize=LABEL)
        axes.set(ylabel="average accuracy [%]", title=title)
        axes.set_ylim(low, max(every) + 0.35 * (max(every) - low))
        axes.grid(axis="y")


def shot_curves(
    path: str | pathlib.Path, shots: Sequence[int], panels: Mapping[str, Mapping[str, np.ndarray]], *, own: str = ""
) -> None:
    """Draw accuracy against the number of shots, one panel per task (Figure 5).

    Args:
      path: of the PNG.
      shots: the numbers of shots.
      panels: {task: {method: float[2, shots], mean and std over seeds; NaN where missing}}.
      own: the method to draw bold.
    """
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    with canvas(path, 3.1 * columns + 0.4, 2.7 * lines + 0.6) as figure:
        grid = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, (task, curves) in zip(grid, panels.items(), strict=False):
            for number, (method, (mean, std)) in enumerate(curves.items()):
                bold = method == own
                colour = PALETTE[1] if bold else [c for c in PALETTE if c != PALETTE[1]][number % (len(PALETTE) - 1)]
                axes.errorbar(shots, mean, np.nan_to_num(std), color=colour, label=method, marker="o", capsize=2,
                              markersize=5 if bold else 3.5, linewidth=2.4 if bold else 1.4)  # fmt: skip
            axes.set_xscale("log")
            axes.set_xticks(shots, [str(shot) for shot in shots])
            axes.minorticks_off()
            axes.set_title(task)
            axes.grid(True)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for axes in grid[::columns]:
            axes.set_ylabel("accuracy [%]")
        for axes in grid[max(len(panels) - columns, 0) : len(panels)]:
            axes.set_xlabel("shots per class")
        handles = grid[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=min(len(handles[1]), 5))


def intervals(path: str | pathlib.Path, rows: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Draw paired differences with their intervals, the largest on top.

    Args:
      path: of the PNG.
      rows: `label`, `mean`, `low`, `high` in points, `seeds` (the difference of each seed), `sign` (1 and -1 are drawn
        in colour).
      title: of the picture.
    """
    rows = sorted(rows, key=lambda row: row["mean"])
    with canvas(path, 6.6, 0.34 * len(rows) + 1.2) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=0.9)
        for number, row in enumerate(rows):
            colour = {1: PALETTE[2], -1: PALETTE[1], 0: FAINT}[row["sign"]]
            axes.plot((row["low"], row["high"]), (number, number), color=colour, linewidth=3, alpha=0.55)
            axes.plot(row["seeds"], [number] * len(row["seeds"]), "|", color=colour, markersize=8)
            axes.plot(row["mean"], number, "o", color=colour, markersize=6.5, markeredgecolor="white")
        axes.set_yticks(range(len(rows)), [row["label"] for row in rows])
        axes.set(xlabel="difference of the average accuracy [points]", title=title)
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")


def convergence(path: str | pathlib.Path, panels: Mapping[str, Mapping[str, np.ndarray]], *, solid: str) -> None:
    """Draw a metric against the epoch, one panel per task: the mean over seeds, and their range (Figure 3).

    Args:
      path: of the PNG.
      panels: {task: {row: float[S, E], of S seeds after E epochs}}.
      solid: the row to draw solid; the others are dashed.
    """
    columns = min(len(panels), 2)
    lines = -(-len(panels) // columns)
    with canvas(path, 3.5 * columns + 0.4, 2.6 * lines + 0.6) as figure:
        grid = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, (task, curves) in zip(grid, panels.items(), strict=False):
            for number, (row, values) in enumerate(curves.items()):
                epochs, colour = np.arange(1, values.shape[1] + 1), PALETTE[number % len(PALETTE)]
                style = "-" if row == solid else "--"
                axes.plot(epochs, values.mean(axis=0), style, color=colour, label=row, linewidth=1.8)
                axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, linewidth=0)
            axes.set(title=task, xlabel="epoch", ylabel="percent")
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
            axes.grid(True)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        handles = grid[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=len(handles[1]))
