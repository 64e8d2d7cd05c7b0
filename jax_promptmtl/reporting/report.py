"""The report of a benchmark, from its records alone: report.md with pictures, the same as one HTML file, CSV, LaTeX."""

import csv
import pathlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.reporting import figures, plots, records, tables, typeset, video_report, webpage
from jax_promptmtl.reporting.records import Record
from jax_promptmtl.reporting.tables import Row, Table

HEAT_MAPS = 3  # similarity matrices side by side


@dataclass
class Page:
    """What becomes report.md, report.tex and the pictures."""

    folder: pathlib.Path
    parts: list[str] = field(default_factory=list)
    tex: list[str] = field(default_factory=list)

    def say(self, *paragraphs: str) -> None:
        """Add paragraphs."""
        self.parts += paragraphs

    def show(self, sheet: typeset.Sheet, caption: str) -> None:
        """Add a table, to the LaTeX file too."""
        self.parts.append(typeset.markdown(sheet))
        self.tex.append(typeset.latex(sheet, caption, caption))

    def table(self, name: str, header: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
        """Write a CSV file."""
        with (self.folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *lines])

    def picture(self, name: str, caption: str) -> pathlib.Path:
        """Add a picture; returns where to draw it."""
        name = re.sub(r"[^a-z0-9.]+", "-", name.lower())
        self.parts.append(f"![{caption}](<figures/{name}>)\n\n*{caption}*")
        return self.folder / "figures" / name


def write(place: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """Write report.md, report.html, report.tex, results.csv, runs.csv and pictures; returns what is to be told.

    Raises:
      UserError: no record can be read, or the folder cannot be written to.
    """
    found, ignored = records.read_all(place)
    if not found:
        one = place / "report.html"
        todo = f"the report of this one run is {str(one)!r}." if one.is_file() else "run the benchmark first."
        raise UserError(f"{str(place)!r} holds no record of a benchmark; {' '.join(ignored) or todo}")
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        page = Page(folder)
        remarks = compose(page, found, ignored)
        (folder / "report.md").write_text("\n\n".join(page.parts) + "\n", encoding="utf-8")
        webpage.write(folder / "report.md")
        (folder / "report.tex").write_text("% needs the package booktabs\n" + "\n\n".join(page.tex) + "\n", "utf-8")
        write_runs(page, found)
    except OSError as error:
        raise UserError(f"Cannot write to {str(folder)!r}: {error.strerror}; give another --out.") from error
    return remarks


def compose(page: Page, found: list[Record], ignored: list[str]) -> list[str]:
    """Write the whole page; returns what is to be told."""
    images, video = ([record for record in found if records.kind_of(record) == kind] for kind in ("images", "video"))
    made, remarks = tables.collect(images)
    page.say("# Benchmark", about(found), "")
    place = len(page.parts) - 1
    add_images(page, made, images)
    remarks = [*ignored, *remarks, *video_report.compose(page, video)]
    page.parts[place : place + 1] = ["**To note**\n\n" + "\n".join(f"- {text}" for text in remarks)] if remarks else []
    failed = [record for record in found if record["status"] == "failed"]
    if failed:
        lines = "\n".join(f"- {record['id']}: {record['error']}" for record in failed)
        page.say("## Failed runs", f"Not counted above.\n\n{lines}")
    return remarks


def add_images(page: Page, made: list[Table], found: list[Record]) -> None:
    """Add everything about the records of images."""
    for table in made:
        page.say(f"## {table.title}")
        add_accuracy(page, table)
        add_trade_off(page, table)
        add_ablations(page, table)
        add_differences(page, table)
        add_groups(page, table)
        page.say("### Cost", COST)
        page.show(tables.cost_sheet(table), f"Cost on {table.title}")
    add_shots(page, made)
    for suite, sheet in tables.sweep_sheets(found).items():
        page.say(f"## Learning rates on {suite}", SWEEP)
        page.show(sheet, f"Learning rates on {suite}")
    if made:
        write_results(page, made)


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


def about(found: list[Record]) -> str:
    """Return what the records have in common."""
    done = [record for record in found if record["status"] == "done"]
    commits = Counter(spell_git(record.get("git")) for record in found)
    weights = {f"{r['backbone']['name']} ({r['backbone']['sha256'][:12]})" for r in found if "backbone" in r}
    weights |= {f"{task} ({sha[:12]})" for r in found for task, sha in r.get("weights", {}).items()}
    versions = sorted(
        {f"jax {r['versions']['jax']}, Python {r['versions']['python']}" for r in found if "versions" in r}
    )
    hours = sum(record.get("wall_seconds", 0) for record in found) / 3600
    return (
        f"{len(done)} runs done, {len(found) - len(done)} failed, {hours:.1f} hours of computing. "
        f"Frozen models: {', '.join(sorted(weights))}. {'; '.join(versions)}. "
        f"Code: {', '.join(f'{commit} ({number} runs)' for commit, number in commits.most_common())}."
    )


def spell_git(state: dict[str, Any] | None) -> str:
    """Return a git state as text.

    >>> spell_git({"commit": "0123456789abcdef", "dirty": True}), spell_git(None)
    ('0123456789 with changes', 'no repository')
    """
    return f"{state['commit'][:10]}{' with changes' if state['dirty'] else ''}" if state else "no repository"


def add_accuracy(page: Page, table: Table) -> None:
    """Add Tables 1 and 2."""
    page.say(ACCURACY)
    theirs = tables.read_paper()["tables"].get(table.suite_name, {})
    if str(table.shots) in theirs.get("splits", {}):
        page.say(BESIDE.format(source=tables.read_paper()["source"], number=theirs["number"]))
    page.show(tables.accuracy_sheet(table), f"Accuracy on {table.title}")


def add_trade_off(page: Page, table: Table) -> None:
    """Add Figure 1."""
    own = tables.read_paper()["reference"]
    trained = [row for row in table.rows if row.runs[-1]["trainable"]]
    free = [row for row in table.rows if not row.runs[-1]["trainable"]]
    if len(trained) < 2:
        return
    path = page.picture(f"trade-off-{table.title}.png", f"Accuracy against trained parameters, {table.title}.")
    points = [point(row) | {"own": row.method == own} for row in trained]
    level = (free[0].title, float(free[0].mean[-1])) if free else None
    plots.trade_off(path, points, title=f"Accuracy and trained parameters: {table.title}", level=level)


def point(row: Row) -> dict[str, Any]:
    """Return what pictures need of a row."""
    average = {"accuracy": float(row.mean[-1]), "std": float(row.std[-1]), "seeds": row.accuracy[:, -1].tolist()}
    return {"label": row.title, "trainable": row.runs[-1]["trainable"]} | average


def add_ablations(page: Page, table: Table) -> None:
    """Add Table 3 and Figure 4."""
    sheet = tables.group_sheet(table)
    if sheet:
        page.say("### Groups of tasks (Table 3)")
        page.show(sheet, f"Task-specific and group-shared prompts on {table.title}")
    rows = [row for method in tables.read_paper()["figure_4"]["methods"] if (row := table.row(method))]
    if len(rows) > 1:
        page.say("### Ways to make the prompts of both towers (Figure 4)")
        caption = f"Average accuracy and trained parameters, {table.title}; points are seeds."
        path = page.picture(f"prompts-{table.title}.png", caption)
        plots.bars(path, [point(row) for row in rows], title=f"Prompts for both towers: {table.title}")


def add_differences(page: Page, table: Table) -> None:
    """Add the paired comparisons: the paper's claims, and all methods against the reference."""
    about = tables.read_paper()
    claims = [(text, tables.differences(table, pairs)) for text, pairs in about["claims"]]
    pairs = [(about["reference"], row.method) for row in table.rows]
    compared = tables.differences(table, pairs)
    if not compared:
        return
    page.say("### Differences", DIFFERENCES)
    for text, found in claims:
        if found:
            page.say(f"**{text}?**")
            page.show(tables.difference_sheet(found), f"{text}: {table.title}")
    title = compared[0][0].title
    page.say(f"**{title} against every other method**")
    page.show(tables.difference_sheet(compared), f"{title} against every other method: {table.title}")
    path = page.picture(f"differences-{table.title}.png", f"{title} minus each method, {table.title}; ticks are seeds.")
    rows = [
        {"label": two.title, "sign": tables.decide(found)} | found | {"seeds": list(found["seeds"].values())}
        for _, two, found in compared
    ]
    plots.intervals(path, rows, title=f"{title} minus …")


def add_groups(page: Page, table: Table) -> None:
    """Add what grouping learned: groups per seed and heat maps."""
    learned = {run["seed"]: run["grouping"] for row in table.rows for run in row.runs if run.get("grouping")}
    if not learned:
        return
    page.say("### Learned groups")
    lines = [f"- seed {seed}: {say_groups(content)}" for seed, content in sorted(learned.items())]
    page.say("\n".join(lines))
    shown = sorted(learned.items())[:HEAT_MAPS]
    matrices = {f"seed {seed}": np.array(content["matrices"]["dot"]) for seed, content in shown}
    tasks = shown[0][1]["tasks"]
    same = all(content["groups"] == shown[0][1]["groups"] for _, content in shown)
    groups = [[tasks.index(name) for name in group] for group in shown[0][1]["groups"]] if same else None
    caption = f"Mean dot product of the tasks' gradients (eq. 8), {table.title}" + ("; groups framed." if same else ".")
    figures.heat_map(page.picture(f"similarity-{table.title}.png", caption), tasks, matrices, groups)


def say_groups(content: dict[str, Any]) -> str:
    """Return the groups of a grouping.json as a line."""
    text = "; ".join(" + ".join(group) for group in content["groups"])
    stable = content.get("stability")
    return text + (f", the same in {100 * stable:.0f} % of bootstrap resamples" if stable is not None else "")


def add_shots(page: Page, made: list[Table]) -> None:
    """Add Figure 5 for every suite that was run with several numbers of shots."""
    about = tables.read_paper()
    for suite in dict.fromkeys(table.suite for table in made):
        some = {table.shots: table for table in made if table.suite == suite}
        if len(some) < 2:
            continue
        shots = sorted(some)
        last = some[shots[-1]]
        methods = [m for m in about["figure_5"]["methods"] if sum(some[k].row(m) is not None for k in shots) > 1]
        panels = {
            task: {title_of(some, m): np.array([column(some[k].row(m), c) for k in shots]).T for m in methods}
            for c, task in enumerate((*last.tasks, "average"))
        }
        if methods:
            page.say(f"## {suite}: number of shots (Figure 5)")
            path = page.picture(f"shots-{suite}.png", f"Accuracy against shots per class, {suite}; bars are ± std.")
            own = about["reference"]
            plots.shot_curves(path, shots, panels, own=title_of(some, own) if own in methods else "")


def title_of(some: dict[int, Table], method: str) -> str:
    """Return what a method is called in the first table that has it."""
    return next(row.title for table in some.values() if (row := table.row(method)))


def column(row: Row | None, number: int) -> tuple[float, float]:
    """Return mean and std of a column, NaN where the method was not run."""
    return (float(row.mean[number]), float(row.std[number])) if row else (np.nan, np.nan)


def write_results(page: Page, made: list[Table]) -> None:
    """Write mean and std of every method and task."""
    header = ["suite", "shots", "method", "title", "task", "mean", "std_ddof1", "seeds", "trainable", "total"]
    lines = [
        [table.suite, table.shots, row.method, row.title, task, f"{row.mean[c]:.4f}",
         "" if np.isnan(row.std[c]) else f"{row.std[c]:.4f}", len(row.runs), row.runs[-1]["trainable"],
         row.runs[-1]["total"]]
        for table in made for row in table.rows for c, task in enumerate((*table.tasks, "average"))
    ]  # fmt: skip
    page.table("results.csv", header, lines)


def write_runs(page: Page, found: list[Record]) -> None:
    """Write one line per run and task."""
    cells = ["id", "status", "suite", "shots", "method", "seed", "rate"]
    costs = [
        "trainable",
        "total",
        "steps",
        "step_seconds",
        "images_per_second",
        "peak_memory",
        "wall_seconds",
        "resumed",
    ]
    lines = []
    for record in found:
        tasks = record.get("tasks", [record.get("task", "")])
        counted = zip(tasks, record.get("correct", [""]), record.get("count", [""]), strict=True)
        for row in counted:
            lines.append([*(record.get(key) for key in cells), *row, *(record.get(key) for key in costs)])
    page.table("runs.csv", [*cells, "task", "correct", "count", *costs], lines)
