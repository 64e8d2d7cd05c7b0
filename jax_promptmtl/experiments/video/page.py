"""What a video job leaves to read: report.md and report.html with its rows, learning curves, mistakes and examples."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from einops import rearrange

from jax_promptmtl.core import tree
from jax_promptmtl.data import predictions
from jax_promptmtl.engine import writer
from jax_promptmtl.experiments.image import results
from jax_promptmtl.experiments.video.job import Job
from jax_promptmtl.experiments.video.rows import ROWS
from jax_promptmtl.models.video.pixels import uniform
from jax_promptmtl.reporting import figures, page, plots, records, video_tables, webpage
from jax_promptmtl.reporting.tables import NOTHING, ranks, size
from jax_promptmtl.reporting.typeset import Cell, Sheet, markdown
from jax_promptmtl.reporting.video_tables import METRICS, OWN, Column, Row

Results = Mapping[str, Mapping[str, Any]]  # of `video.measure_row`
CLASSIFIED = "recognition"  # the task whose answers are one class per clip
COMPARED = ("frozen", OWN)  # rows whose mistakes and examples are shown
MISTAKES, EXAMPLES, FRAMES = 6, 8, 6  # in the table, clips, frames of each
FRAME = 64  # pixels of a frame's side
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


def answers(task: str, found: Mapping[str, np.ndarray]) -> str | None:
    """Return which class each clip is taken for, as `records.unpack_numbers` reads it; `None` for other tasks."""
    return records.pack_numbers(found["score"].argmax(axis=1)) if task == CLASSIFIED else None


def publish(job: Job, measured: Results) -> None:
    """Write the report of a job, and say where it is.

    Args:
      job: what was run.
      measured: row -> what `video.measure_row` returned, and `wall_seconds`.
    """
    (job.workdir / "figures").mkdir(parents=True, exist_ok=True)
    panels: dict[str, str] = {}
    made = [page.attempt(title, partial(tell, job, measured, panels)) for title, tell in SECTIONS.items()]
    timings = {row["title"]: row["wall_seconds"] for row in measured.values()}
    path = page.write_page(
        job.workdir,
        title=f"{job.task}: prompts from frozen models of other tasks",
        parts=[part for parts in made for part in parts],
        command=results.typed(),
        config=tree.flatten(job.config.to_dict()),
        timings=timings,
        files={name: text for name, text in files(measured).items() if (job.workdir / name).exists()},
    )
    seconds = page.duration(sum(timings.values()))
    name = webpage.write(path, panels).name
    print(f"\n{path} has the pictures, {name} all in one file; {seconds} in all.")


def files(measured: Results) -> dict[str, str]:
    """Return what a work directory may hold, and what it is."""
    prompts = {f"prompts_{name}.safetensors": f"mean prompts, {row['title']}" for name, row in measured.items()}
    return results.FILES | prompts


# --- sections ---


def rows_of(job: Job, measured: Results) -> list[Row]:
    """Return the results as rows of tables, which read records of a grid: this is one of a single seed."""
    common = {"status": "done", "written": "", "task": job.task, "seed": job.config.seed}
    found, _ = video_tables.collect({**common, "id": name, "method": name, **row} for name, row in measured.items())
    return found


def tell_scores(job: Job, measured: Results, panels: dict[str, str]) -> list[str]:
    """Return the table of the rows: what each trains, and its metric on every part of the clips."""
    rows = rows_of(job, measured)
    metric = METRICS[video_tables.metric_of(rows, job.task)]
    static = STATIC if any(row.kind == "static" for row in rows) else ""
    said = SCORES.format(metric=metric, static=static, error=50 / np.sqrt(len(job.footage.videos("test"))))
    return ["## Result", markdown(score_sheet(rows, job.task)), said]


def parts_of(measured: Results) -> list[str]:
    """Return the parts of the clips that any row was measured on.

    >>> parts_of({"dlm": {"scores": {"dynamic": {"test": {}}, "static": {"test": {}, "shifted": {}}}}})
    ['test', 'shifted']
    """
    kinds = [kind for row in measured.values() for kind in row["scores"].values()]
    return list(dict.fromkeys(part for kind in kinds for part in kind))


def score_sheet(rows: Sequence[Row], task: str) -> Sheet:
    """Return trained parameters and the metric on every part, a line for each row and kind of prompts."""
    parts = parts_of({row.method: row.runs[task][-1] for row in rows})
    columns = [[video_tables.mean(row.values(Column(task, part))) for row in rows] for part in parts]
    cells = [
        [Cell(NOTHING if np.isnan(value) else f"{value:.1f}", rank) for value, rank in zip(c, ranks(c), strict=True)]
        for c in columns
    ]
    lines = [
        [Cell(row.title), Cell(size(row.runs[task][-1]["trainable"])), *values]
        for row, *values in zip(rows, *cells, strict=True)
    ]
    return Sheet(("row", "trained", *parts), lines)


def tell_setting(job: Job, measured: Results, panels: dict[str, str]) -> list[str]:
    """Return what was run: the config in words, the frozen models, and what each row trains and costs."""
    config, primary = job.config, job.view(job.footage.primary).backbone
    rates = {ROWS[name][0]: rate for name, rate in config.rates.items() if name in measured}
    words = {part: len(job.footage.videos(part)) for part in ("train", "test")} | {"seed": config.seed}
    words |= {"epochs": config.train.epochs, "batch": config.train.batch_size}
    words |= {"optimizer": config.train.optimizer.name, "rate": config.train.optimizer.learning_rate}
    words |= {"others": "".join(f"; {rate:g} for {title}" for title, rate in rates.items())}
    words |= {"aux": ", ".join(job.footage.aux) or "none", "middle": primary.middle, "depth": primary.depth}
    roles = {job.footage.primary: "primary"} | dict.fromkeys(job.footage.aux, "auxiliary")
    counts = {name: tree.count(job.view(name).backbone.params) for name in roles}
    lines = [[Cell(name), Cell(roles[name]), Cell(f"{count:,}")] for name, count in counts.items()]
    models = markdown(Sheet(("frozen model", "role", "parameters"), lines, words=2))
    sizes = markdown(video_tables.size_sheet(rows_of(job, measured)))
    return ["## What was run", SETTING.format(task=job.task, **words), models, "### Sizes and costs", SIZES, sizes]


def tell_curves(job: Job, measured: Results, panels: dict[str, str]) -> list[str]:
    """Return the loss of every row that is trained, and the metric after every epoch where it was measured."""
    parts, folder = [], job.workdir / "figures"
    if lines := curve_lines(writer.read(job.workdir / "metrics.jsonl"), measured):
        figures.curves(folder / "curves.png", lines)
        parts.append(page.picture("figures/curves.png", "On the training batches, smoothed."))
    if curves := epoch_curves(measured):
        metric = METRICS[next(iter(measured.values()))["metric"]]
        plots.convergence(folder / "epochs.png", {f"{job.task} ({metric})": curves}, solid=ROWS[OWN][0])
        parts.append(page.picture("figures/epochs.png", "On the test clips, after every epoch."))
    return ["## Learning curves", *parts] if parts else []


def epoch_curves(measured: Results) -> dict[str, np.ndarray]:
    """Return title -> the metric after every epoch, float[1, E], beside the level of the frozen primary.

    >>> dlm = {"title": "DLM", "metric": "map", "curve": [{"map": 1.0}, {"map": 2.0}]}
    >>> frozen = {"title": "frozen", "metric": "map", "curve": [], "scores": {"dynamic": {"test": {"map": 0.5}}}}
    >>> {title: values.tolist() for title, values in epoch_curves({"frozen": frozen, "dlm": dlm}).items()}
    {'DLM': [[1.0, 2.0]], 'frozen': [[0.5, 0.5]]}
    """
    curved = {row["title"]: [point[row["metric"]] for point in row["curve"]] for row in measured.values()}
    curves = {title: np.array([values]) for title, values in curved.items() if values}
    if curves and COMPARED[0] in measured:
        frozen, longest = measured[COMPARED[0]], max(values.shape[1] for values in curves.values())
        level = frozen["scores"]["dynamic"]["test"][frozen["metric"]]
        curves[frozen["title"]] = np.full((1, longest), level)
    return curves


def curve_lines(lines: Any, measured: Results) -> list[dict[str, Any]]:
    """Return records of metrics.jsonl with the rows side by side, as `figures.curves` draws tasks.

    >>> lines = [{"stage": "dlm", "step": 20, "loss": 0.5}, {"stage": "vpt", "step": 20, "loss": 0.7}]
    >>> curve_lines(lines, {"dlm": {"title": "DLM"}})
    [{'stage': 'training', 'step': 20, 'loss/DLM': 0.5}]
    """
    return [
        {"stage": "training", "step": line["step"]}
        | {f"{key}/{measured[line['stage']]['title']}": line[key] for key in ("loss", "accuracy") if key in line}
        for line in lines
        if line["stage"] in measured and "loss" in line
    ]


def answered(measured: Results) -> dict[str, np.ndarray]:
    """Return title -> class numbers of the test clips, of the rows that are compared."""
    rows = [measured[name] for name in COMPARED if name in measured]
    return {row["title"]: records.unpack_numbers(row["answers"]) for row in rows if row["answers"]}


def tell_mistakes(job: Job, measured: Results, panels: dict[str, str]) -> list[str]:
    """Return what the test clips of each class were taken for, where clips have one class."""
    said, lines, parts = answered(measured), [], []
    if not said:
        return []
    classes, label = job.footage.classes, labels_of(job)
    for number, (title, prediction) in enumerate(said.items()):
        matrix = predictions.confusion(label, prediction, len(classes))
        found = predictions.name_mistakes(classes, matrix, MISTAKES)
        lines += [[Cell(text) for text in (title, *mistake)] for mistake in found]
        name = f"figures/confusion_{number}.png"
        figures.confusion(job.workdir / name, classes, matrix, title)
        parts.append(page.picture(name, f"{title}: what the test clips of each class were taken for."))
    table = [markdown(Sheet(("row", "class", "taken for", "clips"), lines, words=3))] if lines else []
    return ["## Mistakes", *table, *parts]


def labels_of(job: Job) -> np.ndarray:
    """Return the class numbers of the test videos."""
    return np.asarray(job.footage.labels("test").take(np.arange(len(job.footage.videos("test"))))["label"])


def tell_examples(job: Job, measured: Results, panels: dict[str, str]) -> list[str]:
    """Return a few clips with their class and what the frozen primary and the mapper say."""
    said = answered(measured)
    if len(said) < 2:
        return []
    (first, second), (before, after) = said, said.values()
    chosen = predictions.choose(before, after, EXAMPLES)
    frames = job.footage.videos("test").take(np.array(chosen))["frames"]
    classes, numbers = np.array(job.footage.classes), (labels_of(job), before, after)
    names = zip(("labels", "before", "after"), (classes[some[chosen]].tolist() for some in numbers), strict=True)
    row = {
        "task": f"{FRAMES} frames of each clip, in order",
        "images": [strip(each) for each in frames],
        **dict(names),
    }
    figures.example_grid(job.workdir / results.EXAMPLES, in_twos(row), first, second, cell=(3.6, 1.25))
    panels[results.EXAMPLES] = webpage.gallery([row], first, second, strips=True)
    return ["## Examples", page.picture(results.EXAMPLES, "Clips that the two rows see differently, then others.")]


def strip(frames: np.ndarray) -> np.ndarray:
    """Return some frames of a clip uint8[L, H, W, 3] side by side, with a white line after each.

    >>> strip(np.zeros((16, 32, 32, 3), np.uint8)).shape
    (64, 396, 3)
    """
    some = uniform(frames[None], FRAMES)[0]
    factor = max(FRAME // frames.shape[1], 1)
    large = some.repeat(factor, axis=1).repeat(factor, axis=2)
    return rearrange(np.pad(large, ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=255), "l h w c -> h (l w) c")


def in_twos(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row of `figures.example_grid` as rows of two images without a name.

    >>> [part["labels"] for part in in_twos({"task": "a", "images": [1, 2, 3], "labels": [4, 5, 6]})]
    [[4, 5], [6]]
    """
    starts = range(0, len(row["images"]), 2)
    return [{key: value[i : i + 2] if key != "task" else "" for key, value in row.items()} for i in starts]


SECTIONS: Mapping[str, Callable[[Job, Results, dict[str, str]], list[str]]] = {
    "Result": tell_scores,
    "Examples": tell_examples,
    "Learning curves": tell_curves,
    "Mistakes": tell_mistakes,
    "What was run": tell_setting,
}
