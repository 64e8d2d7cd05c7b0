"""Train a small model of one video task on the moving icons; frozen, it is a primary or an auxiliary of others.

spatial_action starts from the trunk of recognition; temporal_action and segmentation are trained on its features, which
are computed once. So recognition comes first. video_instance starts from the ResNet of video_object, of which it keeps
the lower stages as they are, and is trained as DVIS's makers do it: the segmenter of single frames, then the tracker.
"""

import pathlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import pick
from jax_promptmtl.core.hashes import weights_sha256
from jax_promptmtl.core.problem import Problem
from jax_promptmtl.data.icons import moving_icons
from jax_promptmtl.data.middle_cache import Recipe, open_cache
from jax_promptmtl.data.video_batches import Batch, ClipSource, all_batches
from jax_promptmtl.engine import loop
from jax_promptmtl.experiments.video.training import loop_settings, stream
from jax_promptmtl.models.video.model_file import write_model
from jax_promptmtl.problems import video_mtl
from jax_promptmtl.problems.video_tasks import SPECS, icons
from jax_promptmtl.problems.video_tasks.spec import Sight, TrainingStage

PyTree = Any


def stages(task: str) -> tuple[TrainingStage, ...]:
    """Return the trainings of a task's model, one after the other."""
    return SPECS[task].stages or (TrainingStage(task),)


def run(config: Any, workdir: pathlib.Path, *, dry_run: bool) -> None:
    """Train and write `<config.models>/<task>.safetensors` and its card; with `dry_run`, say what would be trained."""
    task, spec = config.task, SPECS[pick(config.task, SPECS, "video model")]
    others = icons.load(config.models, (spec.base,)) if spec.base else {}
    drawn = icons.initial(task, config.seed)
    weights = {**others, task: spec.inherit(drawn, others[spec.base]) if spec.base else drawn}
    print(f"{task}: {tree.count(weights[task]):,} parameters, {config.clips.train:,} clips")
    if dry_run:
        return
    sources = {part: [videos_of(task, weights, config, part)] for part in ("train", "test")}
    cost = {"steps": 0, "minutes": 0.0, "cpu_minutes": 0.0}
    for stage in stages(task):
        before = time.process_time()
        problem = stage_problem(task, weights, sources["train"], stage, config.train.frames)
        about, epochs = {"task": task}, config.train[stage.epochs]
        settings = loop_settings(config, config.clips.train, about, epochs=epochs)
        result = loop.train(problem, partial(stream, sources["train"], config), settings, workdir, name=stage.name)
        cost["steps"] += result.step
        cost["minutes"] += result.seconds / 60
        cost["cpu_minutes"] += (time.process_time() - before) / 60
        trained = tree.merge(result.params[video_mtl.PRIMARY], problem.frozen[video_mtl.PRIMARY])
        weights = weights | {task: trained["model"] if spec.extractor else trained}
    tests = all_batches(sources["test"], batch_size=config.train.batch_size)
    problem = stage_problem(task, weights, sources["test"], stages(task)[-1])
    found = video_mtl.evaluate(problem, problem.params, spec.task, tests)
    print(f"{task}: " + ", ".join(f"{name} {value:.1f}" for name, value in found.items()))
    write_model(config.models, task, weights[task], card(config, weights, found, cost))


def card(config: Any, weights: PyTree, found: Mapping[str, float], cost: Mapping[str, float]) -> dict[str, Any]:
    """Return what is to be known of a trained model."""
    task, seed = config.task, config.clips.seed
    content: dict[str, Any] = {
        "command": f"python -m jax_promptmtl.main --config=configs/video.py:{task}",
        "data": f"moving icons {moving_icons.VERSION} of {task}, drawn from the installed icon fonts with seed {seed}",
        "split": f"{config.clips.train} clips of the train drawings, {config.clips.test} of the test drawings",
        "test": dict(found),
        "training": {key: round(value, 1) for key, value in cost.items()},
        "config": {key: value for key, value in config.to_dict().items() if key != "models"},  # a place, no setting
    }
    if SPECS[task].extractor:
        content["features"] = weights_sha256(weights[SPECS[task].extractor])
    return content


def videos_of(task: str, weights: Any, config: Any, part: str) -> ClipSource:
    """Return the videos of a part; where the model is trained on features, these and the labels, kept in memory."""
    spec, seen = SPECS[task], config.train.frames if part == "train" else icons.SEEN["primary"]
    drawn = icons.Drawn(task, config.clips[part], part, config.clips.seed, seen)
    if not spec.extractor:
        return drawn
    trunk = weights[spec.extractor]["trunk"]

    def compute(trunk: PyTree, batch: Batch) -> dict[str, Any]:
        return icons.extract(task, trunk, batch) | {key: batch[key] for key in spec.task.labels}

    recipe = Recipe("features", weights_sha256(trunk), {}, icons.VIT["layers"], "float32", part)
    lower = partial(jax.jit(compute), trunk)
    return open_cache(lower, drawn, recipe, place="memory", batch_size=config.train.batch_size)


def stage_problem(
    task: str, weights: Any, sources: Sequence[ClipSource], stage: TrainingStage, seen: int = 0
) -> Problem:
    """Return the problem of a training of a task's model, which sees so many frames; 0: see `icons.SEEN`."""
    spec = SPECS[task]
    sight = Sight(given=bool(spec.extractor), seen=seen, stage=stage.stage)
    goal = spec.task if stage.loss is None else replace(spec.task, loss=stage.loss)
    pipeline = video_mtl.alone(icons.view(task, weights, icons.frames_of(task), sight), goal)
    return video_mtl.build(pipeline, example=next(all_batches(sources, batch_size=1)), tune=stage.tune)
