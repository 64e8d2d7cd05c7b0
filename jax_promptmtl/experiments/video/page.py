"""What a video job leaves to read: it collects scores, answers and clips, and reporting writes report.md and .html."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from einops import rearrange

from jax_promptmtl.core import tree
from jax_promptmtl.data import predictions
from jax_promptmtl.engine import writer
from jax_promptmtl.experiments.video.job import Job
from jax_promptmtl.models.video.pixels import uniform
from jax_promptmtl.reporting import records, run_page, video_run
from jax_promptmtl.reporting.examples import Examples
from jax_promptmtl.reporting.page import Page
from jax_promptmtl.reporting.run_page import Confusion, Provenance
from jax_promptmtl.reporting.video_run import Setting, VideoRun

Rows = Mapping[str, Mapping[str, Any]]  # of `prompting.measure_row`
COMPARED = ("frozen", "dlm")  # rows whose mistakes and examples are shown
MISTAKES, EXAMPLES, FRAMES = 6, 8, 6  # in the table, clips, frames of each
FRAME = 64  # pixels of a frame's side


def publish(job: Job, measured: Rows) -> None:
    """Write the report of a job, and say where it is.

    Args:
      job: what was run.
      measured: row -> what `prompting.measure_row` returned, and `wall_seconds`.
    """
    run = VideoRun(job.task, job.config.seed, len(job.footage.videos("test")), job.spec.task.metric, measured)
    page = Page(job.workdir)
    page.say(f"# {job.task}: prompts from frozen models of other tasks")
    for title, add in SECTIONS.items():
        page.attempt(title, partial(add, page, job, run))
    files = {f"prompts_{name}.safetensors": f"mean prompts, {row['title']}" for name, row in measured.items()}
    timings = {row["title"]: row["wall_seconds"] for row in measured.values()}
    config = tree.flatten(job.config.to_dict())
    made = Provenance(run_page.typed_command(), config, timings, {**run_page.RUN_FILES, **files})
    print(f"\n{run_page.finish_page(page, made)}")


# --- sections ---


def add_examples(page: Page, job: Job, run: VideoRun) -> None:
    """Add a few clips with their class and the answers of the frozen primary and the mapper, where both were run."""
    said = class_answers(run.rows)
    if len(said) < 2:
        return
    (first, second), (before, after) = said, said.values()
    chosen, classes = predictions.choose(before, after, EXAMPLES), np.array(job.footage.classes)
    frames = job.footage.videos("test").take(np.array(chosen))["frames"]
    names = [classes[some[chosen]].tolist() for some in (labels_of(job), before, after)]
    row = Examples(f"{FRAMES} frames of each clip, in order", [strip(each) for each in frames], *names)
    caption = "Clips that the two rows see differently, then others."
    page.say("## Examples")
    run_page.add_examples(page, [row], (first, second), caption, strips=(3.6, 1.25), across=2)


def add_curves(page: Page, job: Job, run: VideoRun) -> None:
    """Add the learning curves."""
    video_run.add_curves(page, run, writer.read(job.workdir / "metrics.jsonl"))


def add_mistakes(page: Page, job: Job, run: VideoRun) -> None:
    """Add what the test clips of each class were taken for, where clips have one class."""
    said = class_answers(run.rows)
    if not said:
        return
    classes, label = job.footage.classes, labels_of(job)
    matrices = {title: predictions.confusion(label, prediction, len(classes)) for title, prediction in said.items()}
    found = [
        Confusion(title, classes, matrix, predictions.name_mistakes(classes, matrix, MISTAKES))
        for title, matrix in matrices.items()
    ]
    run_page.add_mistakes(page, found, titles="row", examples="clips")


def add_setting(page: Page, job: Job, run: VideoRun) -> None:
    """Add what was run."""
    config, primary = job.config, job.view(job.footage.primary).backbone
    roles = {job.footage.primary: "primary"} | dict.fromkeys(job.footage.aux, "auxiliary")
    setting = Setting(
        middle=primary.middle,
        depth=primary.depth,
        train=len(job.footage.videos("train")),
        epochs=config.train.epochs,
        batch=config.train.batch_size,
        optimizer=config.train.optimizer.name,
        rate=config.train.optimizer.learning_rate,
        rates={run.rows[name]["title"]: rate for name, rate in config.rates.items() if name in run.rows},
        models={name: (role, tree.count(job.view(name).backbone.params)) for name, role in roles.items()},
    )
    video_run.add_setting(page, run, setting)


SECTIONS: Mapping[str, Callable[[Page, Job, VideoRun], None]] = {
    "Result": lambda page, job, run: video_run.add_scores(page, run),
    "Examples": add_examples,
    "Learning curves": add_curves,
    "Mistakes": add_mistakes,
    "What was run": add_setting,
}


def class_answers(measured: Rows) -> dict[str, np.ndarray]:
    """Return title -> class numbers of the test clips, of the rows that are compared."""
    rows = [measured[name] for name in COMPARED if name in measured]
    return {row["title"]: records.unpack_numbers(row["answers"]) for row in rows if row["answers"]}


def labels_of(job: Job) -> np.ndarray:
    """Return the class numbers of the test videos."""
    return np.asarray(job.footage.labels("test").take(np.arange(len(job.footage.videos("test"))))["label"])


def strip(frames: np.ndarray) -> np.ndarray:
    """Return some frames of a clip uint8[L, H, W, 3] side by side, with a white line after each.

    >>> strip(np.zeros((16, 32, 32, 3), np.uint8)).shape
    (64, 396, 3)
    """
    some = uniform(frames[None], FRAMES)[0]
    factor = max(FRAME // frames.shape[1], 1)
    large = some.repeat(factor, axis=1).repeat(factor, axis=2)
    return rearrange(np.pad(large, ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=255), "l h w c -> h (l w) c")
