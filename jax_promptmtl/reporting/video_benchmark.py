"""The part of a benchmark's report on videos: tables 1 and 2 and figure 3 of the paper, controls, costs."""

from collections.abc import Sequence

import numpy as np

from jax_promptmtl.reporting import plots
from jax_promptmtl.reporting.collect import Column, VideoTable, collect_videos
from jax_promptmtl.reporting.cost_tables import video_cost_sheet
from jax_promptmtl.reporting.differences import compared_rows, point_sheet, seed_findings
from jax_promptmtl.reporting.page import Page
from jax_promptmtl.reporting.paper import dlm_paper
from jax_promptmtl.reporting.rate_tables import rate_sheets
from jax_promptmtl.reporting.records import Record
from jax_promptmtl.reporting.score_tables import video_score_sheet
from jax_promptmtl.reporting.video_layout import has_mapped_prompts

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


def add_video_benchmark(page: Page, found: Sequence[Record]) -> list[str]:
    """Add the part on video records; returns warnings on mismatches."""
    table, remarks = collect_videos(found)
    if table.rows:
        _add_tables(page, table)
    for task, sheet in rate_sheets(found).items():
        page.say(f"## Learning rates of the video rows for {task}", SWEEP)
        page.show(sheet, f"Learning rates for {task}")
    return remarks


def _add_tables(page: Page, table: VideoTable) -> None:
    """Add tables 1 and 2, figure 3, controls and costs."""
    page.say("## Video: prompts from frozen models of other tasks (DLM-VMTL)", _scores_text(table))
    page.say(f"### Primaries (Table 1)\n\n{FIRST} {mvlpt_text(table)}")
    first = table.select(dlm_paper()["table_1"])
    page.show(video_score_sheet(table, first, table.tasks, shares=True), "Primary tasks (Table 1)")
    _add_findings(page, table, table.tasks)
    if table.transfers:
        page.say(f"### Other data of the same task, without training (Table 2)\n\n{SECOND}")
        page.show(video_score_sheet(table, first, table.transfers), "Zero-shot transfer (Table 2)")
        _add_findings(page, table, table.transfers)
    _add_controls(page, table)
    _add_differences(page, table)
    _add_curves(page, table)
    page.say(f"### Sizes and costs\n\n{SIZES}")
    page.show(video_cost_sheet(table.rows), "Sizes and costs of the video benchmark")
    _write_scores(page, table)


def _scores_text(table: VideoTable) -> str:
    """Explain the scores."""
    clips = [run["config"]["clips"] for row in table.rows for run in row.runs]
    train, test = (" or ".join(f"{n:,}" for n in sorted({some[part] for some in clips})) for part in ("train", "test"))
    return SCORES.format(train=train, count=test, error=50 / np.sqrt(max(some["test"] for some in clips)))


def mvlpt_text(table: VideoTable) -> str:
    """Explain the origin of MVLPT's prompts, if it was run."""
    runs = {task: runs[-1] for row in table.select(["mvlpt"]) for task, runs in row.by_task.items()}
    flagged = [task for task, run in runs.items() if has_mapped_prompts(run)]
    return MVLPT.format(flagged=FLAG.format(tasks=" and ".join(flagged)) if flagged else "") if runs else ""


def _add_findings(page: Page, table: VideoTable, columns: Sequence[Column]) -> None:
    """Add the findings on which all seeds agree."""
    lines = seed_findings(table.rows, columns)
    if lines:
        seeds = max(len(runs) for row in table.rows for runs in row.by_task.values())
        note = FINDINGS.format(seeds=seeds, chance=100 * 0.5 ** (seeds - 1))
        page.say("\n".join(f"- {line}" for line in lines), note)


def _add_controls(page: Page, table: VideoTable) -> None:
    """Add the controls next to the mapper."""
    page.say(f"### Controls and the single layer\n\n{CONTROL}")
    page.show(video_score_sheet(table, table.select(dlm_paper()["controls"]), table.tasks), "Controls")


def _add_differences(page: Page, table: VideoTable) -> None:
    """Add the differences of the mapper to everything."""
    page.say(f"### Differences\n\n{DIFFERENCES}")
    for own in table.select([dlm_paper()["reference"]]):
        others = compared_rows(table.rows)
        page.show(point_sheet(own, others, table.tasks), f"{own.title} against every other row")
        if table.transfers:
            caption = f"{own.title} against every other row, other data"
            page.show(point_sheet(own, others, table.transfers), caption)


def _add_curves(page: Page, table: VideoTable) -> None:
    """Add figure 3 and curves.csv for the rows measured after every epoch."""
    rows = [row for row in table.rows if row.prompts == "dynamic"]
    lines = [
        [task, row.method, run["seed"], epoch, name, f"{value:.4f}"]
        for row in rows for task, runs in row.by_task.items() for run in runs
        for epoch, metrics in enumerate(run["curve"], 1) for name, value in metrics.items()
    ]  # fmt: skip
    if not lines:
        return
    page.write_csv("curves.csv", ["task", "row", "seed", "epoch", "metric", "percent"], lines)
    panels: dict[str, dict[str, np.ndarray]] = {}
    for column in table.tasks:
        metric, task = table.metric(column.task), column.task
        curved = [row for row in rows if any(run["curve"] for run in row.by_task.get(task, ()))]
        panels[table.heading(column)] = {
            row.title: np.array([[point[metric] for point in run["curve"]] for run in row.by_task[task]])
            for row in curved
        }
    page.say(f"### Two layers against one (Figure 3)\n\n{FIGURE}")
    path = page.picture("convergence.png", "Metric of the test clips after every epoch.")
    solid = next((row.title for row in table.select([dlm_paper()["reference"]])), "")
    plots.convergence(path, {name: curves for name, curves in panels.items() if curves}, solid=solid)


def _write_scores(page: Page, table: VideoTable) -> None:
    """Write every metric of every row, kind of prompts, part and seed."""
    header = ["task", "row", "title", "prompts", "part", "metric", "seed", "percent", "trainable", "primary", "loaded"]
    lines = [
        [column.task, row.method, row.title, row.prompts, part, name, run["seed"], f"{value:.4f}",
         run["trainable"], run["primary"], run["loaded"]]
        for row in table.rows for column in table.tasks for run in row.by_task.get(column.task, ())
        for part, metrics in run["scores"][row.prompts].items() for name, value in metrics.items()
    ]  # fmt: skip
    page.write_csv("video_results.csv", header, lines)
