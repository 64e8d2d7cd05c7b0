"""The part of a benchmark's report on images: tables 1 to 3 and figures 1, 4 and 5 of the paper, differences, costs."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jax_promptmtl.reporting import figures, plots
from jax_promptmtl.reporting.collect import AVERAGE, Column, ImageTable, MethodRuns, collect_images
from jax_promptmtl.reporting.cost_tables import image_cost_sheet
from jax_promptmtl.reporting.differences import Comparison, compare_pairs, verdict_sheet
from jax_promptmtl.reporting.formatting import format_groups
from jax_promptmtl.reporting.page import Page, file_name
from jax_promptmtl.reporting.paper import mmap_paper
from jax_promptmtl.reporting.rate_tables import rate_sheets
from jax_promptmtl.reporting.records import Record
from jax_promptmtl.reporting.score_tables import accuracy_sheet, group_sheet

HEAT_MAPS = 3  # similarity matrices side by side
ACCURACY = """Accuracy in percent on every test image of the last step's parameters, mean ± standard deviation over \
seeds (ddof = 1); a seed draws the training images, the initial parameters and the data order. The average is the \
plain one over tasks, taken per seed. **Best** and <u>second best</u> of each column."""
BESIDE = """In brackets: {source}, Table {number}, CLIP ViT-B/16. There the deviation of an average is the average of \
the deviations."""
COST = """Means over seeds. A step is one training step without compilation; peak memory is the largest resident \
memory of the process during the run, with whatever earlier runs left in it; a run is training and evaluation, without \
the grouping of tasks, which all methods share. Accuracy per drawing weighs every test drawing alike, however often it \
is shown."""
SWEEP = """Average accuracy on data held out for tuning, never on test data; the same number of rates for each."""
DIFFERENCES = """Difference of the average accuracy on the same seeds and test images, in points. The interval is a \
bootstrap over test drawings within each task (2,000 resamples, 95 %), for these seeds: it says how sure the test set \
makes us, and the column per seed says how much training varies. A method is better or worse where the interval and \
every seed agree; there is no correction for the number of comparisons."""


def add_image_benchmark(page: Page, found: Sequence[Record]) -> list[str]:
    """Add the part on image records; returns warnings on mismatches."""
    tables, remarks = collect_images(found)
    for table in tables:
        page.say(f"## {table.title}")
        _add_accuracy(page, table)
        _add_trade_off(page, table)
        _add_ablations(page, table)
        _add_differences(page, table)
        _add_learned_groups(page, table)
        page.say("### Cost", COST)
        page.show(image_cost_sheet(table), f"Cost on {table.title}")
    _add_shots(page, tables)
    for suite, sheet in rate_sheets(found).items():
        page.say(f"## Learning rates on {suite}", SWEEP)
        page.show(sheet, f"Learning rates on {suite}")
    if tables:
        _write_scores(page, tables)
    return remarks


def _add_accuracy(page: Page, table: ImageTable) -> None:
    """Add Tables 1 and 2."""
    page.say(ACCURACY)
    theirs = mmap_paper()["tables"].get(table.suite_name, {})
    if str(table.shots) in theirs.get("splits", {}):
        page.say(BESIDE.format(source=mmap_paper()["source"], number=theirs["number"]))
    page.show(accuracy_sheet(table), f"Accuracy on {table.title}")


def _add_trade_off(page: Page, table: ImageTable) -> None:
    """Add Figure 1."""
    trained = [row for row in table.rows if row.trainable]
    free = [row for row in table.rows if not row.trainable]
    if len(trained) < 2:
        return
    name = file_name(f"trade-off-{table.title}.png")
    path = page.picture(name, f"Accuracy against trained parameters, {table.title}.")
    points = [_point(row) | {"own": row.method == mmap_paper()["reference"]} for row in trained]
    level = (free[0].title, free[0].mean(AVERAGE)) if free else None
    plots.trade_off(path, points, title=f"Accuracy and trained parameters: {table.title}", level=level)


def _point(row: MethodRuns) -> dict[str, Any]:
    """Return a row as a point of Figures 1 and 4."""
    average = {"accuracy": row.mean(AVERAGE), "std": row.std(AVERAGE), "seeds": row.values(AVERAGE)}
    return {"label": row.title, "trainable": row.trainable} | average


def _add_ablations(page: Page, table: ImageTable) -> None:
    """Add Table 3 and Figure 4."""
    sheet = group_sheet(table)
    if sheet:
        page.say("### Groups of tasks (Table 3)")
        page.show(sheet, f"Task-specific and group-shared prompts on {table.title}")
    rows = [row for method in mmap_paper()["figure_4"]["methods"] if (row := table.row(method))]
    if len(rows) > 1:
        page.say("### Ways to make the prompts of both towers (Figure 4)")
        caption = f"Average accuracy and trained parameters, {table.title}; points are seeds."
        path = page.picture(file_name(f"prompts-{table.title}.png"), caption)
        plots.bars(path, [_point(row) for row in rows], title=f"Prompts for both towers: {table.title}")


def _add_differences(page: Page, table: ImageTable) -> None:
    """Add the paired comparisons: the paper's claims, and all methods against the reference."""
    compared = compare_pairs(table, [(mmap_paper()["reference"], row.method) for row in table.rows])
    if not compared:
        return
    page.say("### Differences", DIFFERENCES)
    for text, pairs in mmap_paper()["claims"]:
        if found := compare_pairs(table, pairs):
            page.say(f"**{text}?**")
            page.show(verdict_sheet(found), f"{text}: {table.title}")
    title = compared[0].method.title
    page.say(f"**{title} against every other method**")
    page.show(verdict_sheet(compared), f"{title} against every other method: {table.title}")
    caption = f"{title} minus each method, {table.title}; ticks are seeds."
    path = page.picture(file_name(f"differences-{table.title}.png"), caption)
    plots.intervals(path, [_interval(one) for one in compared], title=f"{title} minus …")


def _interval(one: Comparison) -> dict[str, Any]:
    """Return a comparison as an interval of a figure."""
    found = one.difference
    low, high = found.interval or (np.nan, np.nan)
    points = {"mean": found.mean, "low": low, "high": high, "seeds": list(found.seeds.values())}
    return {"label": one.against.title, "sign": found.sign} | points


def _add_learned_groups(page: Page, table: ImageTable) -> None:
    """Add what grouping learned: groups per seed and heat maps."""
    learned = {run["seed"]: run["grouping"] for row in table.rows for run in row.runs if run.get("grouping")}
    if not learned:
        return
    page.say("### Learned groups")
    page.say("\n".join(f"- seed {seed}: {_groups_text(content)}" for seed, content in sorted(learned.items())))
    shown = sorted(learned.items())[:HEAT_MAPS]
    matrices = {f"seed {seed}": np.array(content["matrices"]["dot"]) for seed, content in shown}
    tasks = shown[0][1]["tasks"]
    same = all(content["groups"] == shown[0][1]["groups"] for _, content in shown)
    groups = [[tasks.index(name) for name in group] for group in shown[0][1]["groups"]] if same else None
    caption = f"Mean dot product of the tasks' gradients (eq. 8), {table.title}" + ("; groups framed." if same else ".")
    figures.heat_map(page.picture(file_name(f"similarity-{table.title}.png"), caption), tasks, matrices, groups)


def _groups_text(content: dict[str, Any]) -> str:
    """Return the groups of a grouping.json as a line."""
    stable = content.get("stability")
    said = f", the same in {100 * stable:.0f} % of bootstrap resamples" if stable is not None else ""
    return format_groups(content["groups"]) + said


def _add_shots(page: Page, tables: Sequence[ImageTable]) -> None:
    """Add Figure 5 for every suite that was run with several numbers of shots."""
    about = mmap_paper()
    for suite in dict.fromkeys(table.suite for table in tables):
        some = {table.shots: table for table in tables if table.suite == suite}
        if len(some) < 2:
            continue
        shots = sorted(some)
        methods = [m for m in about["figure_5"]["methods"] if sum(some[k].row(m) is not None for k in shots) > 1]
        titles = {m: next(row.title for table in some.values() if (row := table.row(m))) for m in methods}
        panels = {
            str(column): {titles[m]: np.array([_point_of(some[k].row(m), column) for k in shots]).T for m in methods}
            for column in some[shots[-1]].columns
        }
        if methods:
            page.say(f"## {suite}: number of shots (Figure 5)")
            caption = f"Accuracy against shots per class, {suite}; bars are ± std."
            path = page.picture(file_name(f"shots-{suite}.png"), caption)
            plots.shot_curves(path, shots, panels, own=titles.get(about["reference"], ""))


def _point_of(row: MethodRuns | None, column: Column) -> tuple[float, float]:
    """Return mean and std of a column, NaN where the method was not run."""
    return (row.mean(column), row.std(column)) if row else (np.nan, np.nan)


def _write_scores(page: Page, tables: Sequence[ImageTable]) -> None:
    """Write mean and std of every method and task."""
    header = ["suite", "shots", "method", "title", "task", "mean", "std_ddof1", "seeds", "trainable", "total"]
    lines = [
        [table.suite, table.shots, row.method, row.title, column, f"{row.mean(column):.4f}",
         "" if np.isnan(row.std(column)) else f"{row.std(column):.4f}", len(row.runs), row.trainable,
         row.runs[-1]["total"]]
        for table in tables for row in table.rows for column in table.columns
    ]  # fmt: skip
    page.write_csv("results.csv", header, lines)
