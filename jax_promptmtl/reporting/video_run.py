"""Sections specific to the page of a video run: scores by part, learning curves, settings."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jax_promptmtl.reporting import figures, plots, typeset
from jax_promptmtl.reporting.collect import MethodRuns, collect_videos
from jax_promptmtl.reporting.cost_tables import video_cost_sheet
from jax_promptmtl.reporting.page import Page
from jax_promptmtl.reporting.paper import dlm_paper
from jax_promptmtl.reporting.score_tables import part_sheet
from jax_promptmtl.reporting.typeset import Cell, Sheet
from jax_promptmtl.tasks.metrics import TITLES

WIDTHS = (30, 10, *[16] * 12)  # minimum widths of the console table, which is reprinted after every row
SETTING = """The primary is a frozen {task} model, cut after {middle} of its {depth} layers, and prompts enter \
there. Auxiliaries: {aux}. All rows are trained on the same {train:,} clips for {epochs} epochs ({batch} clips a step, \
{optimizer}, learning rate {rate:g}{others}) and measured on {test:,} test clips, with one seed ({seed})."""
SCORES = """The metric is {metric}, in percent, with the last step's parameters. **Best** and <u>second best</u> of \
each column. {static}The standard error of an accuracy near 50 % is {error:.1f} points on so many clips; rows share \
their clips, which makes differences surer than that, and one seed says nothing about how much training varies."""
STATIC = """Prompts are made of every clip, or are their mean over the training clips ("static prompts"), so that no \
auxiliary runs at inference. """
SIZES = """Shares are those of the trained parameters, in the primary and in all models that a row uses. "prompts / \
tokens" is the root mean square of the prompts over that of the tokens that they join, at the end of training. A step \
is one training step without compilation; a run is training and measuring a row."""


@dataclass(frozen=True)
class VideoRun:
    """One primary and its measured rows.

    Attributes:
      task: of the primary.
      seed: of the run.
      clips: number of test clips.
      metric: key of the task's metric.
      rows: {name: title, sizes, scores, curve and costs of a row, as in results.json, and wall_seconds}.
    """

    task: str
    seed: int
    clips: int
    metric: str
    rows: Mapping[str, Mapping[str, Any]]

    @property
    def metric_title(self) -> str:
        """Return the metric's title in tables."""
        return TITLES.get(self.metric, self.metric)

    @property
    def table_rows(self) -> tuple[MethodRuns, ...]:
        """Return the rows in the form of a sweep's tables, with a single seed."""
        common = {"status": "done", "written": "", "task": self.task, "seed": self.seed}
        table, _ = collect_videos({**common, "id": name, "method": name, **row} for name, row in self.rows.items())
        return table.rows


@dataclass(frozen=True)
class Setting:
    """The setting of a run.

    Attributes:
      middle, depth: split layer of the primary, and its number of layers.
      train: number of training clips.
      epochs, batch, optimizer, rate: of the training.
      rates: {title of a row: its own learning rate}.
      models: {task: (role, parameters)} of the frozen models, the primary first.
    """

    middle: int
    depth: int
    train: int
    epochs: int
    batch: int
    optimizer: str
    rate: float
    rates: Mapping[str, float]
    models: Mapping[str, tuple[str, int]]


def console_scores(rows: Mapping[str, Mapping[str, Any]], metric: str) -> str:
    """Return measured rows for a terminal, with a column per part of the videos and kind of prompts.

    >>> row = {"title": "DLM", "trainable": 1234, "scores": {"dynamic": {"test": {"top1": 71.25}}}}
    >>> print(console_scores({"dlm": row}, "top1"))
    top1                             trainable      test dynamic       test static
    DLM                                  1,234              71.2                 -
    """
    kinds = [kind for row in rows.values() for kind in row["scores"].values()]
    parts = dict.fromkeys(part for kind in kinds for part in kind)
    columns = [(part, prompts) for part in parts for prompts in ("dynamic", "static")]
    lines = []
    for row in rows.values():
        found = [row["scores"].get(prompts, {}).get(part, {}).get(metric) for part, prompts in columns]
        values = ["-" if value is None else f"{value:.1f}" for value in found]
        lines.append([*map(Cell, (row["title"], f"{row['trainable']:,}", *values))])
    header = (metric, "trainable", *(f"{part} {prompts}" for part, prompts in columns))
    return typeset.console(Sheet(header, lines), least=WIDTHS, ruled=False)


def add_scores(page: Page, run: VideoRun) -> None:
    """Add the table of the rows: trained parameters, and the metric on every part of the videos."""
    lines = run.table_rows
    static = STATIC if any(line.prompts == "static" for line in lines) else ""
    page.say("## Result")
    page.show(part_sheet(lines, run.task))
    page.say(SCORES.format(metric=run.metric_title, static=static, error=50 / np.sqrt(run.clips)))


def add_curves(page: Page, run: VideoRun, logged: Iterable[Mapping[str, Any]]) -> None:
    """Add the loss of every row that is trained, and the metric after every epoch where it was measured.

    Args:
      page: to add to.
      run: the rows.
      logged: lines of metrics.jsonl.
    """
    losses, curves = row_losses(logged, run.rows), epoch_curves(run.rows)
    if losses or curves:
        page.say("## Learning curves")
    if losses:
        figures.curves(page.picture("curves.png", "On the training batches, smoothed."), losses)
    if curves:
        path = page.picture("epochs.png", "On the test clips, after every epoch.")
        own = run.rows.get(dlm_paper()["reference"], {}).get("title", "")
        plots.convergence(path, {f"{run.task} ({run.metric_title})": curves}, solid=own)


def row_losses(logged: Iterable[Mapping[str, Any]], rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return lines of metrics.jsonl with rows in place of tasks, for `figures.curves`.

    >>> logged = [{"stage": "dlm", "step": 20, "loss": 0.5}, {"stage": "vpt", "step": 20, "loss": 0.7}]
    >>> row_losses(logged, {"dlm": {"title": "DLM"}})
    [{'stage': 'training', 'step': 20, 'loss/DLM': 0.5}]
    """
    return [
        {"stage": "training", "step": line["step"]}
        | {f"{key}/{rows[line['stage']]['title']}": line[key] for key in ("loss", "accuracy") if key in line}
        for line in logged
        if line["stage"] in rows and "loss" in line
    ]


def epoch_curves(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Return title -> the metric after every epoch, float[1, E], with the frozen primary as a constant.

    >>> dlm = {"title": "DLM", "metric": "map", "curve": [{"map": 1.0}, {"map": 2.0}]}
    >>> frozen = {"title": "frozen", "metric": "map", "curve": [], "scores": {"dynamic": {"test": {"map": 0.5}}}}
    >>> {title: values.tolist() for title, values in epoch_curves({"frozen": frozen, "dlm": dlm}).items()}
    {'DLM': [[1.0, 2.0]], 'frozen': [[0.5, 0.5]]}
    """
    curved = {row["title"]: [point[row["metric"]] for point in row["curve"]] for row in rows.values()}
    curves = {title: np.array([values]) for title, values in curved.items() if values}
    if curves and "frozen" in rows:
        frozen, longest = rows["frozen"], max(values.shape[1] for values in curves.values())
        curves[frozen["title"]] = np.full((1, longest), frozen["scores"]["dynamic"]["test"][frozen["metric"]])
    return curves


def add_setting(page: Page, run: VideoRun, setting: Setting) -> None:
    """Add the setting: the config in words, the frozen models, and trained parameters and cost of each row."""
    others = "".join(f"; {rate:g} for {title}" for title, rate in setting.rates.items())
    aux = ", ".join(name for name in setting.models if name != run.task) or "none"
    words = {key: value for key, value in vars(setting).items() if key not in ("rates", "models")}
    page.say("## What was run")
    page.say(SETTING.format(task=run.task, test=run.clips, seed=run.seed, aux=aux, others=others, **words))
    lines = [[Cell(name), Cell(role), Cell(f"{count:,}")] for name, (role, count) in setting.models.items()]
    page.show(Sheet(("frozen model", "role", "parameters"), lines, words=2))
    page.say("### Sizes and costs", SIZES)
    page.show(video_cost_sheet(run.table_rows))
