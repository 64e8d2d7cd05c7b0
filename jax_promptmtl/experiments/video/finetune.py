"""The fine-tuning job: a video model of one data set, trained whole; frozen, it is what prompts are learnt for.

The model follows from the data set's task: VideoMAE for recognition, with AVA's head for spatial detection;
ActionFormer and ASFormer on files of features; TransVOD and DVIS for objects and instances, in stages. Models of frames
start from published weights where `weights` names some; TransVOD and DVIS from those of the stage before, too.
"""

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.files import write_whole
from jax_promptmtl.core.problem import Problem
from jax_promptmtl.data import videos
from jax_promptmtl.data.video_batches import ClipSource, all_batches, training_batches
from jax_promptmtl.data.videos import feature_time
from jax_promptmtl.data.videos.index import VideoSet
from jax_promptmtl.data.videos.left_out import LeftOut
from jax_promptmtl.engine import loop
from jax_promptmtl.experiments.video.training import by_rules, in_form, loop_settings, mixing_of, rules_of, sources_of
from jax_promptmtl.models.video import videomae
from jax_promptmtl.models.video.model_file import write_model
from jax_promptmtl.problems import video_mtl
from jax_promptmtl.problems.video_tasks import SPECS, files
from jax_promptmtl.tasks.mixing import mix
from jax_promptmtl.tasks.task import VideoTask

Array = jax.Array
PyTree = Any
Batch = Mapping[str, Any]


def run(config: Any, workdir: pathlib.Path, *, dry_run: bool) -> None:
    """Train and measure; write the model and its card, and with `dry_run` only print parameters and memory."""
    data = videos.build(config.data)
    for note in [*data.notes, *feature_time.misfits(data, config.feature)]:
        print(f"note: {note}")
    left_out = None if config.data.strict else LeftOut("" if dry_run else workdir / "left_out.jsonl")
    data = in_form(SPECS[data.task], data, config)
    parts = sources_of(data, config, left_out)
    problem, _ = tuning_problem(data, config, parts["train"])
    settings = tuning_settings(config, len(data.parts["train"]))
    counts = ", ".join(f"{len(examples):,} clips to {part}" for part, examples in data.parts.items())
    print(f"{data.name}: {tree.count(problem.params):,} trainable parameters, {counts}, {settings['steps']:,} steps")
    stream = partial(batches, data, parts["train"], config)
    if dry_run:
        used = loop.memory(problem, next(stream(0)), settings)
        print(f"memory of a step of {config.train.batch_size} clips: {used / 2**20:,.0f} MiB")
        return
    params = loop.train(problem, stream, settings, workdir, name=data.name).params
    found = measure(data, config, parts["test"], params)
    print(f"{data.name}: " + ", ".join(f"{name} {value:.1f}" for name, value in found.items()))
    for line in left_out.words() if left_out is not None else ():
        print(line)
    said = {"data": data.name, "kind": data.task, "classes": data.class_names, "test": found}
    weights = tree.merge(params[video_mtl.PRIMARY], problem.frozen[video_mtl.PRIMARY])
    path = write_model(workdir / "models", data.name, weights, said | {"config": config.to_dict()})
    write_whole(workdir / "results.json", json.dumps(found, indent=2) + "\n")
    print(f"The model is {path}, with a card beside it.")


def measure(data: VideoSet, config: Any, tests: Sequence[ClipSource], params: PyTree) -> dict[str, float]:
    """Return what a model scores, in clips of the tests' length."""
    problem, task = tuning_problem(data, config, tests)
    clips = all_batches(tests, batch_size=config.evaluation_batch_size)
    if evaluate := SPECS[data.task].evaluate:
        return evaluate(problem, params, clips, len(data.class_names))
    return video_mtl.evaluate(problem, params, task, clips)


# --- model and task ---


def pipeline_of(data: VideoSet, config: Any, batch: Batch) -> video_mtl.Pipeline:
    """Return the model of a data set with its task, for clips as long as those of a batch."""
    spec = SPECS[data.task]
    sizes = files.sizes_of(spec, len(data.class_names), config, batch)
    params = spec.start(sizes, config.seed, config.weights)
    task = spec.rule(spec.task, rules_of(data, config, sizes))
    return video_mtl.alone(spec.view(sizes, params, files.form_of(config, batch)), task, vary=varied(data, config))


def tuning_problem(data: VideoSet, config: Any, clips: Sequence[ClipSource]) -> tuple[Problem, VideoTask]:
    """Return the problem of training the weights that `tune` names, for clips as long as those given, and its task."""
    batch = next(all_batches(clips, batch_size=1))
    pipeline = pipeline_of(data, config, batch)
    about = {"data": config.data.to_dict(), "weights": config.weights}
    return video_mtl.build(pipeline, example=batch, tune=tuple(config.tune), about=about), pipeline.task


# --- training ---


def varied(data: VideoSet, config: Any) -> Callable[[Batch, Array], Batch] | None:
    """Return what changes a training batch at random within a step: clips and labels mixed, branches left out."""
    mixing, rate, classes = mixing_of(config), config.drop_path, len(data.class_names)
    spec, soft = SPECS[data.task], [name for name, spec in SPECS.items() if spec.soft_labels]
    if mixing.on and not spec.soft_labels:
        only = " and ".join(soft)
        raise UserError(f"Labels are mixed and smoothed for {only} only, not for {data.name!r}; set mixing to 0.")
    if rate and not spec.drop_path:
        raise UserError(f"The model of {data.name!r} has no drop path; set drop_path to 0.")
    if not (mixing.on or rate):
        return None

    def vary(batch: Batch, rng: Array) -> Batch:
        branches, labels = jax.random.split(rng)
        if rate:
            keep = videomae.drop_path(rate, config.model.layers, len(batch["weight"]), branches)
            batch = {**batch, "keep": keep}
        return mix(mixing, classes, batch, labels) if mixing.on else batch

    return vary


def tuning_settings(config: Any, clips: int) -> dict[str, Any]:
    """Return the loop's settings of a training on so many clips."""
    about = {"data": config.data.to_dict(), "sampling": config.sampling.to_dict(), "model": config.model.to_dict()}
    about |= {"mixing": config.mixing.to_dict(), "drop_path": config.drop_path}
    about |= {"views": config.views, "repeats": config.repeats, "points": config.points, "guided": config.guided}
    return loop_settings(config, clips * config.repeats, about)


def batches(data: VideoSet, parts: Sequence[ClipSource], config: Any, start_step: int) -> Iterator[Any]:
    """Return the training batches from a step on."""
    views = {"views": 1 if data.channels else config.views, "repeats": config.repeats}
    found = training_batches(
        parts, batch_size=config.train.batch_size, seed=config.seed, start_step=start_step, **views
    )
    steps = tuning_settings(config, len(data.parts["train"]))["steps"]
    return by_rules(SPECS[data.task], found, start_step, config.guided * steps)
