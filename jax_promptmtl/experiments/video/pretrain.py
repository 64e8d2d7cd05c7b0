"""Train a small model of one video task on the moving icons; frozen, it is a primary or an auxiliary of others.

spatial_action starts from the trunk of recognition; temporal_action and segmentation are trained on its features, which
are computed once. So recognition comes first. video_instance starts from the ResNet of video_object, of which it keeps
the lower stages as they are, and is trained as DVIS's makers do it: the segmenter of single frames, then the tracker.
"""

import pathlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax

from jax_promptmtl.core import tree
from jax_promptmtl.core.hashes import weights_sha256
from jax_promptmtl.core.problem import Problem
from jax_promptmtl.data.icons import moving_icons
from jax_promptmtl.data.middle_cache import Recipe, open_cache
from jax_promptmtl.data.video_batches import Batch, ClipSource, all_batches, training_batches
from jax_promptmtl.engine import loop
from jax_promptmtl.methods.none import NoPrompts
from jax_promptmtl.models.video import roi_head, video_models
from jax_promptmtl.problems import video_mtl
from jax_promptmtl.tasks import TASKS, instance

PyTree = Any
BASES = {  # what must be there before
    "spatial_action": "recognition",
    "temporal_action": "recognition",
    "segmentation": "recognition",
    "video_instance": "video_object",
}


@dataclass(frozen=True)
class Stage:
    """One training of a model.

    Attributes:
      name: of the training.
      tune: patterns of the weights that are trained.
      kind: of a DVIS, minvis or online.
      loss: of the outputs, that of the task when `None`.
    """

    name: str
    tune: tuple[str, ...] = (".*",)
    kind: str = "online"
    loss: Callable[..., Any] | None = None


def stages(task: str) -> tuple[Stage, ...]:
    """Return the trainings of a task's model, one after the other."""
    if task != "video_instance":
        return (Stage(task, ("model/.*",) if task in video_models.ON_FEATURES else (".*",)),)
    segmenter = ("(pixels|decoder)/.*", "backbone/block_[23]_.*")
    return (
        Stage("segmenter", segmenter, "minvis", partial(instance.loss, stage="minvis")),
        Stage("tracker", ("tracker/.*",), "online", partial(instance.loss, stage="online")),
    )


def run(config: Any, workdir: pathlib.Path, *, dry_run: bool) -> None:
    """Train and write `<config.models>/<task>.safetensors` and its card; with `dry_run`, say what would be trained."""
    task = config.task
    others = video_models.load(config.models, (BASES[task],)) if task in BASES else {}
    weights = {**others, task: start(task, others, config.seed)}
    print(f"{task}: {tree.count(weights[task]):,} parameters, {config.clips.train:,} clips")
    if dry_run:
        return
    sources = {part: [read(task, weights, config, part)] for part in ("train", "test")}
    cost = {"steps": 0, "minutes": 0.0, "cpu_minutes": 0.0}
    for stage in stages(task):
        problem, before = problem_of(task, weights, sources["train"], stage, config.train.frames), time.process_time()
        batches = partial(stream, sources["train"], config)
        result = loop.train(problem, batches, plan(config, stage), workdir, name=stage.name)
        cost["steps"] += result.step
        cost["minutes"] += result.seconds / 60
        cost["cpu_minutes"] += (time.process_time() - before) / 60
        trained = tree.merge(result.params[video_mtl.PRIMARY], problem.frozen[video_mtl.PRIMARY])
        weights = weights | {task: trained["model"] if task in video_models.ON_FEATURES else trained}
    tests = all_batches(sources["test"], batch_size=config.train.batch_size)
    problem = problem_of(task, weights, sources["test"], stages(task)[-1])
    found = video_mtl.evaluate(problem, problem.params, TASKS[task], tests)
    print(f"{task}: " + ", ".join(f"{name} {value:.1f}" for name, value in found.items()))
    video_models.save(config.models, task, weights[task], card(config, weights, found, cost))


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
    if task in video_models.ON_FEATURES:
        content["features"] = weights_sha256(weights[video_models.EXTRACTOR])
    return content


def start(task: str, others: Any, seed: int) -> PyTree:
    """Return the parameters to start from."""
    drawn = video_models.initial(task, seed)
    if task == "spatial_action":
        return roi_head.from_classifier(others[video_models.EXTRACTOR], drawn["roi"]["head"])
    if task == "video_instance":
        return {**drawn, "backbone": drawn["backbone"] | others[BASES[task]]["detector"]["resnet"]}
    return drawn


def read(task: str, weights: Any, config: Any, part: str) -> ClipSource:
    """Return the clips of a part; where the model is trained on features, these and the labels, kept in memory."""
    seen = config.train.frames if part == "train" else video_models.SEEN["primary"]
    clips = video_models.Drawn(task, config.clips[part], part, config.clips.seed, seen)
    if task not in video_models.ON_FEATURES:
        return clips
    trunk = weights[video_models.EXTRACTOR]["trunk"]

    def compute(trunk: PyTree, batch: Batch) -> dict[str, Any]:
        return video_models.extract(trunk, batch) | {key: batch[key] for key in TASKS[task].labels}

    recipe = Recipe("features", weights_sha256(trunk), {}, video_models.VIT.layers, "float32", part)
    lower = partial(jax.jit(compute), trunk)
    return open_cache(lower, clips, recipe, place="memory", batch_size=config.train.batch_size)


def problem_of(task: str, weights: Any, sources: list[ClipSource], stage: Stage, seen: int = 0) -> Problem:
    """Return the problem of a training of a task's model, which sees so many frames; 0: see `video_models.SEEN`."""
    frames, given = video_models.FRAMES[task], task in video_models.ON_FEATURES
    view = video_models.view(task, weights, frames, given=given, seen=seen, stage=stage.kind)
    backbone = view.backbone
    method = NoPrompts(towers={video_mtl.PRIMARY: (backbone.depth, backbone.dim)})
    goal = TASKS[task] if stage.loss is None else replace(TASKS[task], loss=stage.loss)
    pipeline = video_mtl.Pipeline(view, {}, goal, method)
    example = next(all_batches(sources, batch_size=1))
    return video_mtl.build(pipeline, example=example, tune=stage.tune)


def plan(config: Any, stage: Stage) -> dict[str, Any]:
    """Return the loop's settings of a training."""
    steps = max(config.clips.train // config.train.batch_size, 1)
    epochs = config.train.tracker_epochs if stage.name == "tracker" else config.train.epochs
    run = {"seed": config.seed, "parallel": config.parallel, "evaluate_every": 0, "task": config.task}
    return dict(config.train) | run | {"steps_per_epoch": steps, "steps": steps * epochs}


def stream(sources: list[ClipSource], config: Any, start_step: int) -> Any:
    """Return the training batches from a step on."""
    return training_batches(sources, batch_size=config.train.batch_size, seed=config.seed, start_step=start_step)
