"""Figures of one run: task similarity, learning curves, gains per class, confusion matrices. Plain data in, PNG out."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from jax_promptmtl.reporting.style import FAINT, INK, PALETTE, canvas, shorten

Groups = Sequence[Sequence[int]]


def heat_map(
    path: str | pathlib.Path,
    names: Sequence[str],
    matrices: Mapping[str, np.ndarray],
    groups: Groups | None = None,
) -> None:
    """Draw task similarity matrices side by side, tasks sorted by group and groups framed.

    Args:
      path: of the PNG.
      names: T task names.
      matrices: {title: float[T, T]}. The diagonal is grey: it measures gradient noise, not similarity.
      groups: disjoint task numbers, or `None` for one group without a frame.
    """
    groups = [list(group) for group in groups or [range(len(names))]]
    order = [task for group in groups for task in group]
    side = max(2.6, 0.62 * len(names) + 0.6) if len(names) <= 12 else 7.5
    with canvas(path, len(matrices) * (side + 1.5), side + 1.2) as figure:
        panels = figure.subplots(1, len(matrices), squeeze=False)[0]
        for axes, (title, matrix) in zip(panels, matrices.items(), strict=True):
            image = _heat_panel(axes, title, np.asarray(matrix)[np.ix_(order, order)])
            axes.set_xticks(range(len(order)), [names[task] for task in order], rotation=35, ha="right")
            axes.set_yticks(range(len(order)), [names[task] for task in order])
            _frame_groups(axes, list(map(len, groups)))
            bar = figure.colorbar(image, ax=axes, shrink=0.72, aspect=24, pad=0.03)
            bar.outline.set_visible(False)
            bar.locator = MaxNLocator(5)


def _heat_panel(axes: Any, title: str, matrix: np.ndarray) -> Any:
    """Draw one annotated matrix on a scale symmetric about 0."""
    off = ~np.eye(len(matrix), dtype=bool)
    largest = float(np.abs(matrix[off]).max(initial=0)) or 1.0
    power, unit = _unit(largest)
    shown, largest = matrix / 10.0**power, largest / 10.0**power
    image = axes.imshow(np.where(off, shown, np.nan), cmap="RdBu", vmin=-largest, vmax=largest)
    axes.set_facecolor("#F0F0F0")
    axes.set_title(title + unit)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(len(matrix) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(matrix) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.6)
    axes.tick_params(which="minor", length=0)
    for (row, column), value in np.ndenumerate(shown) if len(matrix) <= 12 else ():
        dark = off[row, column] and abs(value) > 0.6 * largest
        colour = "white" if dark else INK if off[row, column] else FAINT
        axes.text(column, row, _three_digits(value), ha="center", va="center", fontsize=8.5, color=colour)
    return image


def _unit(largest: float) -> tuple[int, str]:
    """Return the power of ten to scale values by and its label; none for readable sizes."""
    power = 0 if 0.05 <= largest < 1000 or largest == 0 else int(np.floor(np.log10(largest)))
    return power, f"  ($\\times 10^{{{power}}}$)" if power else ""


def _three_digits(value: float) -> str:
    text = f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"
    return text.replace("-", "\u2212")


def _frame_groups(axes: Any, sizes: Sequence[int]) -> None:
    """Frame the diagonal block of each group, where there is more than one."""
    start = 0
    for size in sizes if len(sizes) > 1 else ():
        box = Rectangle((start - 0.5, start - 0.5), size, size, fill=False, edgecolor=INK, linewidth=2.2, clip_on=False)
        axes.add_patch(box)
        start += size


def similarity_curves(
    path: str | pathlib.Path, names: Sequence[str], epochs: Sequence[int], matrices: np.ndarray, groups: Groups
) -> None:
    """Draw the similarity of each pair of tasks against the epoch, pairs of one group in colour.

    Args:
      path: of the PNG.
      names: T task names.
      epochs: E epoch numbers.
      matrices: float[E, T, T].
      groups: disjoint task numbers.
    """
    mates = {(min(i, j), max(i, j)) for group in groups for i in group for j in group if i != j}
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    matrices = np.asarray(matrices)
    power, unit = _unit(max((float(abs(matrices[:, i, j]).max()) for i, j in pairs), default=0.0))
    matrices = matrices / 10.0**power
    pairs.sort(key=lambda pair: -matrices[-1][pair])
    with canvas(path, 7.2, 3.6) as figure:
        axes = figure.subplots()
        dashes = itertools.cycle(("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1))))
        colours = itertools.cycle(PALETTE)
        for pair in sorted(pairs, key=lambda pair: pair not in mates):  # mates first
            grey: dict[str, Any] = {"color": FAINT, "linewidth": 1.4}
            style = {"color": next(colours), "linewidth": 2.2} if pair in mates else grey | {"linestyle": next(dashes)}
            label = " – ".join(names[task] for task in pair)  # noqa: RUF001
            axes.plot(epochs, matrices[:, *pair], marker="o", markersize=3.5, label=label, **style)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set(title="Task similarity during training", xlabel="epoch", ylabel="mean gradient dot product" + unit)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        if len(pairs) <= 15:
            figure.legend(loc="outside right center", title="same group in colour", title_fontsize=8.5)


def partition_bars(
    path: str | pathlib.Path, names: Sequence[str], ranking: Sequence[tuple[Groups, float]], objective: str
) -> None:
    """Draw the scores of the best partitions, the chosen one in colour.

    Args:
      path: of the PNG.
      names: T task names.
      ranking: partitions of task numbers with their scores, best first.
      objective: name of the score.
    """
    labels = ["   |   ".join(", ".join(names[task] for task in group) for group in groups) for groups, _ in ranking]
    with canvas(path, 7.2, 0.36 * len(ranking) + 1.1) as figure:
        axes = figure.subplots()
        scores = [score for _, score in ranking]
        colours = [PALETTE[0]] + ["#C9CED3"] * (len(ranking) - 1)
        bars = axes.barh(range(len(ranking)), scores, color=colours, height=0.66)
        power, unit = _unit(float(np.abs(scores).max()))
        axes.bar_label(bars, [_three_digits(score / 10.0**power) for score in scores], padding=4, fontsize=8.5)
        axes.set_yticks(range(len(ranking)), labels)
        axes.invert_yaxis()
        axes.set_xticks([])
        axes.spines[["bottom", "left"]].set_visible(False)
        axes.margins(x=0.12)
        axes.set_title(f"Best partitions by objective “{objective}”{unit}")


def curves(path: str | pathlib.Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Draw loss and accuracy against the step, one column per stage.

    Args:
      path: of the PNG.
      records: rows of metrics.jsonl: `stage`, `step`, and either `loss`, `accuracy` (a share) and their values per
        task, such as `accuracy/clipart`, or the same in a dict `evaluation`. Training is drawn smoothed over a faint
        raw line, evaluation as points.
    """
    stages = list(dict.fromkeys(record["stage"] for record in records))
    keys = {key.split("/")[0] for record in records for key in [*record, *_evaluated(record)]}
    metrics = [metric for metric in ("loss", "accuracy") if metric in keys]
    with canvas(path, max(3.6 * len(stages), 5.2), 2.5 * len(metrics) + 0.5) as figure:
        grid = figure.subplots(len(metrics), len(stages), squeeze=False, sharex="col", sharey="row")
        for row, metric in enumerate(metrics):
            for column, stage in enumerate(stages):
                axes = grid[row][column]
                _curves_panel(axes, metric, [record for record in records if record["stage"] == stage])
                axes.grid(axis="y")
                axes.set_title(stage if row == 0 else "")
                axes.set_xlabel("step" if row == len(metrics) - 1 else "")
                axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
            grid[row][0].set_ylabel(metric + (" [%]" if metric == "accuracy" else ""))
        handles: dict[str, Any] = {}
        for axes in grid.ravel():
            handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        if len(handles) > 1:
            figure.legend(
                handles.values(), handles.keys(), loc="outside lower center", ncols=min(len(handles), 3 * len(stages))
            )


def _evaluated(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return record.get("evaluation") or {}


def _curves_panel(axes: Any, metric: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Draw one metric of one stage: tasks thin, the whole bold, evaluations as points."""
    keys = {key for record in records for key in [*record, *_evaluated(record)]}
    tasks = sorted(key for key in keys if key.startswith(metric + "/"))
    for key in [*tasks, metric]:
        colour = INK if key == metric else PALETTE[tasks.index(key) % len(PALETTE)]
        name = "all tasks" if key == metric else key.split("/", 1)[1]
        percent = 100 if metric == "accuracy" else 1
        trained = np.array([(row["step"], percent * row[key]) for row in records if key in row])
        if len(trained):
            if key == metric:
                axes.plot(*trained.T, color=colour, linewidth=0.8, alpha=0.22)
            width = 2.0 if key == metric else 1.1
            alone = "o" if len(trained) == 1 else ""  # one point has no line
            axes.plot(trained[:, 0], _smooth(trained[:, 1]), alone + "-", color=colour, linewidth=width, label=name)
        tested = np.array([(row["step"], percent * _evaluated(row)[key]) for row in records if key in _evaluated(row)])
        if len(tested):
            label = "evaluation" if key == metric else "_" if len(trained) else name  # "_": not in the legend
            axes.plot(*tested.T, "o--", color=colour, markersize=4, linewidth=1, label=label)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Average over a centred window of about a twentieth of the curve, narrower at its ends."""
    half = len(values) // 40
    sums = np.concatenate([[0], np.cumsum(values)])
    low, high = np.maximum(np.arange(len(values)) - half, 0), np.minimum(np.arange(len(values)) + half + 1, len(values))
    means: np.ndarray = (sums[high] - sums[low]) / (high - low)
    return means


def class_gains(
    path: str | pathlib.Path, classes: Sequence[str], gains: Sequence[float] | np.ndarray, title: str, most: int = 60
) -> None:
    """Draw the gain of each class as a bar, sorted.

    Args:
      path: of the PNG.
      classes: C class names.
      gains: C gains in percentage points.
      title: what was compared.
      most: beyond so many classes, show the largest gains and losses only.
    """
    order = np.argsort(-np.asarray(gains), kind="stable")
    if len(order) > most:
        order = np.concatenate([order[: most // 2], order[-(most // 2) :]])
        title += f" ({most} of {len(classes)} classes)"
    values = np.asarray(gains, float)[order]
    with canvas(path, max(0.19 * len(order) + 1.2, 4.5), 3.3) as figure:
        axes = figure.subplots()
        axes.bar(range(len(order)), values, color=[PALETTE[0] if v >= 0 else PALETTE[1] for v in values], width=0.74)
        mean = float(np.mean(gains))
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.axhline(mean, color=FAINT, linewidth=1, linestyle="--")
        axes.annotate(f"mean {mean:+.1f}", (1, mean), xycoords=("axes fraction", "data"), xytext=(-2, 3),
                      textcoords="offset points", ha="right", color=FAINT, fontsize=8.5)  # fmt: skip
        axes.set_xticks(range(len(order)), [classes[index] for index in order], rotation=90, fontsize=7.5)
        axes.set(xlim=(-0.7, len(order) - 0.3), ylabel="gain [points]", title=title)
        axes.spines["bottom"].set_visible(False)
        axes.grid(axis="y")


def confusion(path: str | pathlib.Path, classes: Sequence[str], matrix: np.ndarray, title: str, most: int = 60) -> None:
    """Draw a confusion matrix.

    Args:
      path: of the PNG.
      classes: C class names.
      matrix: int[C, C], images by true (row) and predicted class (column).
      title: of the picture.
      most: beyond so many classes the axes have no class names.
    """
    share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(max(0.16 * len(classes), 2.2), 9.6)
    with canvas(path, side + 2.6, side + 1.5) as figure:
        axes = figure.subplots()
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
        named = range(len(classes)) if len(classes) <= most else ()
        axes.set_xticks(named, [shorten(classes[c]) for c in named], rotation=90, fontsize=7)
        axes.set_yticks(named, [shorten(classes[c]) for c in named], fontsize=7)
        axes.set(xlabel="predicted", ylabel="true class", title=title)
        axes.spines[:].set_visible(False)
        for (row, column), value in np.ndenumerate(matrix) if len(classes) <= 12 else ():
            colour = "white" if share[row, column] > 60 else INK if value else FAINT
            axes.text(column, row, f"{value}", ha="center", va="center", fontsize=7, color=colour)
        bar = figure.colorbar(image, ax=axes, shrink=0.72, aspect=24, pad=0.03, label="% of the class")
        bar.outline.set_visible(False)
