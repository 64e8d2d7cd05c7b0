"""The video job: prompt a frozen primary with what frozen auxiliaries see, next to baselines and controls.

Every row of `config.rows` is one way to change the primary, trained and measured on the same clips. Lower halves run
once per clip and are kept. Rows with prompts are measured twice where the prompts depend on the clip: with prompts of
every clip for itself (dynamic), and with their mean over the training clips (static), which is saved and needs no
auxiliary; where the task has other data (shifted or panned clips), both are measured there too, without training.
"""

import json
import pathlib
import time
from typing import Any

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import pick
from jax_promptmtl.core.files import write_whole
from jax_promptmtl.engine import writer
from jax_promptmtl.experiments.video import cost, page, transfer
from jax_promptmtl.experiments.video.file_footage import open_files
from jax_promptmtl.experiments.video.footage import Footage
from jax_promptmtl.experiments.video.icon_footage import open_icons
from jax_promptmtl.experiments.video.job import Job, Row, choose_place, row_problem, train
from jax_promptmtl.experiments.video.measuring import evaluators, measure_static
from jax_promptmtl.experiments.video.rows import MAPPED, ROWS, legal
from jax_promptmtl.reporting.video_run import console_scores


def run(config: Any, workdir: pathlib.Path, *, dry_run: bool) -> None:
    """Train and measure all rows, print a table, and write results.json, the prompts and the report."""
    for name in config.rows:
        pick(pick(name, ROWS, "row"), legal(config.task), f"row of {config.task}")
    if dry_run and "clips" in config:  # sizes do not depend on the clips
        config = config.copy_and_resolve_references().unlock()
        config.clips.train = config.clips.test = config.evaluation_batch_size = 1
    job = open_job(config, workdir, workdir / "shared", sizes_only=dry_run)
    if dry_run:
        for line in cost.describe(job):
            print(line, flush=True)
        return
    if config.get("prompts"):
        transfer.run(job, pathlib.Path(config.prompts).expanduser())
        return
    for name in (job.footage.primary, *job.footage.aux):
        print(f"{name}: {tree.count(job.view(name).backbone.params):,} frozen parameters")
    results = {}
    for name in config.rows:
        start = time.perf_counter()
        results[name] = measure_row(job, name)
        results[name]["wall_seconds"] = time.perf_counter() - start
        print(console_scores(results, job.spec.task.metric), flush=True)
        write_whole(workdir / "results.json", json.dumps(results, indent=2) + "\n")
    page.publish(job, results)


def open_job(config: Any, workdir: pathlib.Path, shared: pathlib.Path, *, sizes_only: bool = False) -> Job:
    """Read the videos and the models of a job: files of a data set where the config has `data`, else moving icons.

    Raises:
      UserError: data or a model that cannot be read, an unknown task.
    """
    if "data" in config:
        footage: Footage = open_files(config, "" if sizes_only else workdir / "left_out.jsonl", drawn=sizes_only)
        return choose_place(Job(config, workdir, shared, footage, ""))
    return Job(config, workdir, shared, open_icons(config), config.cache.place)


def measure_row(job: Job, name: str) -> dict[str, Any]:
    """Train a row and measure it.

    Returns:
      `title`; `trainable` parameters, those of the `primary` and of all models that are `loaded`; `metric`; `scores`,
      {dynamic or static: {part: metrics}}; `answers` on the test clips with dynamic prompts, see
      `measuring.answers_of`; `curve`, of the rows in `config.curves` the metrics of the test clips after every epoch;
      `prompt_rms`, the size of the prompts beside that of the tokens in the last steps of training; `steps` and
      `step_seconds`.
    """
    title, make = ROWS[name]
    row = make(job)
    problem = row_problem(job, row)
    trainable, loaded = row.sizes or (tree.count(problem.params), models_of(job, row))
    print(f"{title}: {trainable:,} trainable parameters", flush=True)
    score = evaluators(job, row, problem)
    each_epoch = (lambda params: score(params, ["test"])[0]["test"]) if name in job.config.curves else None
    result = train(job, problem, row.sources.get("train", []), name, measure=each_epoch)
    dynamic, answers = score(result.params, job.parts[1:])
    found = {"dynamic": dynamic}
    if name in MAPPED:
        found["static"] = measure_static(job, name, row, problem, result.params)
    speed, lines = (
        result.images_per_second,
        [line for line in writer.read(job.workdir / "metrics.jsonl") if line["stage"] == name],
    )
    sizes = [line[key] for line in lines if (key := f"prompt_rms/{job.task}") in line]
    return {
        "title": title,
        "trainable": trainable,
        "primary": tree.count(job.view(job.footage.primary).backbone.params),
        "loaded": loaded,
        "metric": job.spec.task.metric,
        "scores": found,
        "answers": answers.get("test"),
        "curve": [line["evaluation"] for line in lines if "evaluation" in line],
        "prompt_rms": sizes[-1] if sizes else None,
        "steps": result.step,
        "step_seconds": job.config.train.batch_size / speed if speed else None,
    }


def models_of(job: Job, row: Row) -> int:
    """Return the parameters of all models that a row uses, once each."""
    return job.footage.loaded((job.footage.primary, *row.aux))
