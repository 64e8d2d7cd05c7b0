"""The part of a report that the records of the video benchmark make: tables 1 and 2, figure 3, controls, costs."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jax_promptmtl.experiments.video.rows import ROWS
from jax_promptmtl.problems.video_tasks import SPECS, icons, next_task
from jax_promptmtl.reporting import plots, video_tables
from jax_promptmtl.reporting.records import Record
from jax_promptmtl.reporting.video_tables import BASELINES, CONTROLS, OWN, Column, Row

SCORES = """Percent on the test clips with the last step's parameters, mean ± standard deviation over seeds (ddof = \
1). A seed draws the initial parameters and the order of the training clips; clips and frozen models are the same \
for all seeds, so the deviation says nothing about other test clips. With {count} test clips per task the standard \
error of an accuracy near 50 % is {error:.1f} points; rows share their clips, which makes differences surer than \
that. All rows of a task are trained on the same clips ({train}) for as many epochs, with the learning rates of \
configs/dlm.py. **Best** and <u>second best</u> of each column."""
FIRST = """The frozen primary has been trained on its own task with many more clips, and is what the paper calls \
"full-finetuned"; "full fine-tuning" goes on from it on the clips that all rows have. The mapper's prompts are made \
of every clip ("DLM"), or are the mean over the training clips, saved and loaded again ("static prompts"), so that \
no auxiliary runs at inference; the paper leaves open which it reports. Shares are those of the trained parameters \
in all models that a row uses, a trunk that two models read counted once; beside them the paper's, whose models are \
a hundred times larger. Hard sharing needs one transformer, so three tasks have none; its share is that of one \
shared model in three separate ones. Full fine-tuning of the models on features leaves the trunk that makes the \
features frozen."""
MVLPT = """MVLPT starts from the prompts of the next task in the order of the columns, and the last from those of \
the first, trained on 20 clips per class. {flagged}"""
FLAG = "Where widths differ (for {tasks}) they go through a fixed random orthogonal map with their size kept."
SECOND = """The same parameters on test clips of another look (other icons, backgrounds and speeds; where they are \
called panned, the camera moves too), of which nothing was used in training. Prompts were trained on the plain clips \
only; the static ones are read from their file."""
CONTROL = """What the gain of the mapper may come from: as many free prompts at its place, the mapper on the \
primary's own middle states ("self-auxiliary"), on those of the auxiliaries for other clips, and an adapter of as \
many parameters. Knowledge of this clip from other tasks is what only the mapper has."""
DIFFERENCES = """Points between two rows on the same test clips, mean over seeds and each seed in brackets."""
FINDINGS = """A row is above or below another where all seeds agree, which {seeds} seeds do by chance in \
{chance:.0f} % of the cases without a difference; there is no correction for the number of comparisons."""
FIGURE = """The metric of the test clips after every epoch, mean over seeds with the range of the seeds; solid with, \
dashed without the second layer. The numbers are in curves.csv."""
SWEEP = """Percent with each learning rate, on drawings of neither the training nor the test clips, one seed; \
configs/dlm.py says what was made of it."""
SIZES = """"prompts / tokens" is the root mean square of the prompts over that of the tokens that they join, at the \
end of training. A step is one training step without compilation; a run is all that a row needs but the middle \
states of the frozen models, which are computed once for all rows, and the shared model of hard sharing, which the \
first of its tasks trains."""


def compose(page: Any, found: Sequence[Record]) -> list[str]:
    """Write the page's part and its CSV files; returns what is to be told."""
    rows, remarks = video_tables.collect(found)
    if rows:
        add_tables(page, rows)
    for task, sheet in video_tables.sweep_sheets(found).items():
        page.say(f"## Learning rates of the video rows for {task}", SWEEP)
        page.show(sheet, f"Learning rates for {task}")
    return remarks


def add_tables(page: Any, rows: Sequence[Row]) -> None:
    """Add tables 1 and 2, figure 3, controls and costs."""
    tasks, transfers = video_tables.tasks_of(rows), video_tables.transfers_of(rows)
    page.say("## Video: prompts from frozen models of other tasks (DLM-VMTL)", scores_text(rows))
    page.say(f"### Primaries (Table 1)\n\n{FIRST} {mvlpt_text(rows)}")
    first = video_tables.choose(rows, (*BASELINES, OWN))
    page.show(video_tables.score_sheet(first, tasks, shares=True), "Primary tasks (Table 1)")
    add_findings(page, rows, tasks)
    if transfers:
        page.say(f"### Other data of the same task, without training (Table 2)\n\n{SECOND}")
        page.show(video_tables.score_sheet(first, transfers), "Zero-shot transfer (Table 2)")
        add_findings(page, rows, transfers)
    add_controls(page, rows, tasks, transfers)
    add_curves(page, rows, [column.task for column in tasks])
    page.say(f"### Sizes and costs\n\n{SIZES}")
    page.show(video_tables.size_sheet(rows), "Sizes and costs of the video benchmark")
    write_results(page, rows, [column.task for column in tasks])


def scores_text(rows: Sequence[Row]) -> str:
    """Return what the scores are."""
    clips = [run["config"]["clips"] for row in rows for runs in row.runs.values() for run in runs]
    train, test = (" or ".join(f"{n:,}" for n in sorted({some[part] for some in clips})) for part in ("train", "test"))
    return SCORES.format(train=train, count=test, error=50 / np.sqrt(max(some["test"] for some in clips)))


def mvlpt_text(rows: Sequence[Row]) -> str:
    """Return where MVLPT's prompts come from, if it was run."""
    tasks = [task for row in rows if row.method == "mvlpt" for task in row.runs]
    width = {task: spec.width(icons.sizes(task)) for task, spec in SPECS.items()}
    flagged = [task for task in tasks if width[task] != width[next_task(task)]]
    return MVLPT.format(flagged=FLAG.format(tasks=" and ".join(flagged)) if flagged else "") if tasks else ""


def add_findings(page: Any, rows: Sequence[Row], columns: Sequence[Column]) -> None:
    """Say what the seeds agree on."""
    lines = video_tables.findings(rows, columns)
    if lines:
        seeds = max(len(runs) for row in rows for runs in row.runs.values())
        note = FINDINGS.format(seeds=seeds, chance=100 * 0.5 ** (seeds - 1))
        page.say("\n".join(f"- {line}" for line in lines), note)


def add_controls(page: Any, rows: Sequence[Row], tasks: Sequence[Column], transfers: Sequence[Column]) -> None:
    """Add the controls and the differences to everything."""
    some = video_tables.choose(rows, ("frozen", *CONTROLS, "single_layer", OWN))
    page.say(f"### Controls and the single layer\n\n{CONTROL}")
    page.show(video_tables.score_sheet(some, tasks), "Controls")
    others = [row for row in rows if row.kind == "dynamic" and row.method != OWN]
    page.say(f"### Differences\n\n{DIFFERENCES}")
    for own in video_tables.choose(rows, (OWN,)):
        page.show(video_tables.difference_sheet(own, others, tasks), f"{own.title} against every other row")
        if transfers:
            caption = f"{own.title} against every other row, other data"
            page.show(video_tables.difference_sheet(own, others, transfers), caption)


def add_curves(page: Any, rows: Sequence[Row], tasks: Sequence[str]) -> None:
    """Add figure 3 and curves.csv, of the rows that were measured after every epoch."""
    lines = [
        [task, row.method, run["seed"], epoch, name, f"{value:.4f}"]
        for row in rows if row.kind == "dynamic" for task, runs in row.runs.items() for run in runs
        for epoch, metrics in enumerate(run["curve"], 1) for name, value in metrics.items()
    ]  # fmt: skip
    if not lines:
        return
    page.table("curves.csv", ["task", "row", "seed", "epoch", "metric", "percent"], lines)
    panels: dict[str, dict[str, np.ndarray]] = {}
    for task in tasks:
        metric = video_tables.metric_of(rows, task)
        curved = [row for row in rows if row.kind == "dynamic" and any(run["curve"] for run in row.runs.get(task, ()))]
        panels[f"{task} ({video_tables.METRICS[metric]})"] = {
            row.title: np.array([[point[metric] for point in run["curve"]] for run in row.runs[task]]) for row in curved
        }
    page.say(f"### Two layers against one (Figure 3)\n\n{FIGURE}")
    path = page.picture("convergence.png", "Metric of the test clips after every epoch.")
    plots.convergence(path, {name: curves for name, curves in panels.items() if curves}, solid=ROWS[OWN][0])


def write_results(page: Any, rows: Sequence[Row], tasks: Sequence[str]) -> None:
    """Write every metric of every row, kind of prompts, part and seed."""
    header = ["task", "row", "title", "prompts", "part", "metric", "seed", "percent", "trainable", "primary", "loaded"]
    lines = [
        [task, row.method, row.title, row.kind, part, name, run["seed"], f"{value:.4f}",
         run["trainable"], run["primary"], run["loaded"]]
        for row in rows for task in tasks for run in row.runs.get(task, ())
        for part, metrics in run["scores"][row.kind].items() for name, value in metrics.items()
    ]  # fmt: skip
    page.table("video_results.csv", header, lines)
