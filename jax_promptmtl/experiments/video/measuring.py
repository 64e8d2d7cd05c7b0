"""How rows of the video job are measured, and what saved prompts do on their own."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_promptmtl.core.hashes import weights_sha256
from jax_promptmtl.core.problem import Problem
from jax_promptmtl.data import prompt_file
from jax_promptmtl.data.video_batches import all_batches
from jax_promptmtl.experiments.video.job import Job, Row
from jax_promptmtl.problems import video_mtl
from jax_promptmtl.problems.video_tasks import SPECS
from jax_promptmtl.reporting import records

PyTree = Any
Scores = dict[str, dict[str, float]]  # part -> metrics
PROMPTS = "prompts_"  # before the name of a row, of its saved prompts


def evaluators(job: Job, row: Row, problem: Problem) -> Any:
    """Return the function from parameters and names of parts to the metrics of each and the answers, compiled once."""
    size, task = job.config.evaluation_batch_size, job.footage.task
    predict = video_mtl.predictor(problem, task)

    def score(params: PyTree, parts: Any) -> tuple[Scores, dict[str, str | None]]:
        scores, answers = {}, {}
        for part in parts:
            batches = all_batches(row.sources[part], batch_size=size)
            if job.footage.evaluate:
                scores[part] = job.footage.evaluate(problem, params, batches, len(job.footage.classes))
                continue
            found, labels = predict(params, batches)
            scores[part], answers[part] = task.measure(found, labels), answers_of(job.task, found)
        return scores, answers

    return score


def measure_static(job: Job, name: str, row: Row, problem: Problem, params: PyTree) -> Scores:
    """Save the mean prompts of a row, and return what the primary scores with them alone."""
    batches = all_batches(row.sources["train"], batch_size=job.config.evaluation_batch_size)
    prompts = video_mtl.static_prompts(row.pipeline, problem, params, batches)
    backbone, path = row.pipeline.primary.backbone, job.workdir / f"{PROMPTS}{name}"
    sha, aux = weights_sha256(backbone.params), tuple(row.pipeline.aux)
    card = prompt_file.PromptCard(
        job.task, backbone.name, sha, backbone.middle, backbone.dim, aux, job.config.prompt_mode, f"{job.task} train"
    )
    prompt_file.save(path, prompts, card)
    return static_scores(job, path)


def static_scores(job: Job, path: pathlib.Path) -> Scores:
    """Return what the primary scores with saved prompts alone, without training and without auxiliaries.

    Raises:
      UserError: prompts that cannot be read, or of another task, width or middle.
    """
    backbone = job.view(job.footage.primary).backbone
    prompts, _ = prompt_file.load(path, middle=backbone.middle, dim=backbone.dim, task=job.task)
    row = job.row({"name": "middle_prompts", "num_prompts": len(prompts)}, {})
    example = next(all_batches(row.sources["train"], batch_size=1))
    problem = video_mtl.build(row.pipeline, example=example, initial={"tokens": np.asarray(prompts)})
    return evaluators(job, row, problem)(problem.params, job.parts[1:])[0]


def answers_of(task: str, found: Mapping[str, np.ndarray]) -> str | None:
    """Return which class each clip is taken for, as `records.unpack_numbers` reads it; `None` for other tasks."""
    return records.pack_numbers(found["score"].argmax(axis=1)) if SPECS[task].classifies else None
