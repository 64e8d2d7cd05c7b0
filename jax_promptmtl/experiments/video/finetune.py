"""The fine-tuning job: a video model of one data set, trained whole; frozen, it is what prompts are learnt for.

The model follows from the data set's task: VideoMAE for recognition, with AVA's head for spatial detection;
ActionFormer and ASFormer on files of features; TransVOD and DVIS for objects and instances, in stages. Models of frames
start from published weights where `weights` names some; TransVOD and DVIS from those of the stage before, too.
"""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.problem import Problem
from jax_promptmtl.data import videos
from jax_promptmtl.data.video_batches import ClipSource, all_batches, training_batches
from jax_promptmtl.data.videos import feature_time
from jax_promptmtl.data.videos.index import VideoSet
from jax_promptmtl.data.videos.key_frames import by_frame
from jax_promptmtl.data.videos.sampling import Sampling, Sources, sources
from jax_promptmtl.engine import loop
from jax_promptmtl.experiments.video import object_models
from jax_promptmtl.experiments.video.object_models import normalised
from jax_promptmtl.methods.none import NoPrompts
from jax_promptmtl.models.video import actionformer, asformer, convert_videomae, roi_head, video_models, videomae
from jax_promptmtl.models.video.view import View
from jax_promptmtl.problems import video_mtl
from jax_promptmtl.tasks import TASKS, recognition, segmentation, spatial
from jax_promptmtl.tasks.mixing import Mixing, mix
from jax_promptmtl.tasks.task import VideoTask

Array = jax.Array
PyTree = Any
Batch = Mapping[str, Any]


def run(config: Any, workdir: pathlib.Path, *, dry_run: bool) -> None:
    """Train and measure; write the model and its card, and with `dry_run` only print parameters and memory."""
    data = data_of(config)
    parts = parts_of(data, config)
    problem = problem_of(data, config, parts["train"])
    settings = plan(config, len(data.parts["train"]))
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
    card = {
        "data": data.name,
        "kind": data.task,
        "classes": data.class_names,
        "test": found,
        "config": config.to_dict(),
    }
    weights = tree.merge(params[video_mtl.PRIMARY], problem.frozen[video_mtl.PRIMARY])
    video_models.save(workdir / "models", data.name, weights, card)
    (workdir / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    print(f"The model is {workdir / 'models' / data.name}.safetensors, with a card beside it.")


def data_of(config: Any) -> VideoSet:
    """Return the data set in the form that is trained on, after saying what was left out of it and what is peculiar."""
    data = videos.build(config.data)
    for note in [*data.notes, *feature_time.misfits(data, config.feature)]:
        print(f"note: {note}")
    if data.task == "temporal_action":
        return feature_time.on_one_clock(data, config.feature.rate)
    return by_frame(data) if data.task == "video_object" else data


def parts_of(data: VideoSet, config: Any) -> Sources:
    """Return the sources of a data set's parts."""
    seconds = config.feature.stride / config.feature.rate
    options = {"every": config.every, "multiple": config.multiple, "window": config.feature.most, "step": seconds}
    return sources(data, Sampling(**config.sampling), views=config.views, seed=config.seed, **options)


def measure(data: VideoSet, config: Any, tests: Sequence[ClipSource], params: PyTree) -> dict[str, float]:
    """Return what a model scores, in clips of the tests' length."""
    problem = problem_of(data, config, tests)
    clips = all_batches(tests, batch_size=config.evaluation_batch_size)
    if data.task == "video_instance":
        return object_models.measure(problem, params, clips, len(data.class_names))
    return video_mtl.evaluate(problem, params, task_of(data, config), clips)


# --- models ---


def trunk_config(classes: int, config: Any) -> videomae.VideoMaeConfig:
    """Return the sizes of the vision transformer."""
    sampling = config.sampling
    return videomae.VideoMaeConfig(frames=sampling.frames, image_size=sampling.size, classes=classes, **config.model)


def classifier(classes: int, config: Any, batch: Batch) -> View:
    """Return a VideoMAE, whose head is new."""
    sizes, params = vision(classes, config)
    model = videomae.handle("recognition", sizes, params)
    whole = replace(model, lower=lambda params, inputs: model.lower(params, *inputs))
    return View(whole, lambda batch: (normalised(batch["frames"]), batch.get("keep")))


def vision(classes: int, config: Any) -> tuple[videomae.VideoMaeConfig, PyTree]:
    """Return the sizes and the parameters of a VideoMAE: trunk and last norm of published weights, or all drawn."""
    sizes = trunk_config(classes, config)
    clip = jnp.zeros((1, sizes.frames, sizes.image_size, sizes.image_size, sizes.channels))
    params = jax.jit(videomae.VideoClassifier(sizes).init)(jax.random.key(config.seed), clip)["params"]
    if not config.weights:
        return sizes, params
    found, given, _ = convert_videomae.load(config.weights, heads=sizes.heads)
    same: dict[str, Any] = {
        "classes": classes,
        "frames": sizes.frames,
        "image_size": sizes.image_size,
        "remat": sizes.remat,
    }
    if replace(found, **same) != sizes:
        raise UserError(f"The weights {config.weights!r} have the sizes {found}; set config.model to them.")
    pool = params["pool"] | {"fc_norm": given["pool"]["fc_norm"]} if "pool" in given else params["pool"]
    return sizes, {"trunk": given["trunk"], "pool": pool}


def box_classifier(classes: int, config: Any, batch: Batch) -> View:
    """Return a VideoMAE with AVA's head on given boxes."""
    sizes, params = vision(classes, config)
    kernel = params["pool"]["head"]["kernel"]
    head = {"kernel": kernel * 0.1, "bias": jnp.full(classes, -4.6)}  # most actions of most boxes are absent
    weights = roi_head.from_classifier(params, head)

    def adapt(batch: Batch) -> Any:
        kept = {key: batch[key] for key in ("keep",) if key in batch}
        return {"video": normalised(batch["frames"]), "boxes": batch["box"]} | kept

    return View(roi_head.handle("spatial_action", sizes, weights), adapt)


def detector(classes: int, config: Any, batch: Batch) -> View:
    """Return an ActionFormer; a feature stands for the middle of its window of frames."""
    length, channels = batch["features"].shape[1:]
    sizes = actionformer.ActionFormerConfig(inputs=channels, classes=classes, **config.model)
    params = drawn(actionformer.ActionFormer(sizes), batch, config.seed)
    times = {
        "step": config.feature.stride / config.feature.rate,
        "start": config.feature.window / 2 / config.feature.rate,
    }
    return View(actionformer.handle("temporal_action", sizes, params, length, **times), features)


def labeller(classes: int, config: Any, batch: Batch) -> View:
    """Return an ASFormer."""
    sizes = asformer.AsFormerConfig(inputs=batch["features"].shape[-1], classes=classes, **config.model)
    return View(asformer.handle("segmentation", sizes, drawn(asformer.AsFormer(sizes), batch, config.seed)), features)


def drawn(model: Any, batch: Batch, seed: int) -> PyTree:
    """Draw the parameters of a model of features."""
    return jax.jit(model.init)(jax.random.key(seed), *(jnp.asarray(batch[key][:1]) for key in ("features", "mask")))[
        "params"
    ]


def features(batch: Batch) -> dict[str, Array]:
    """Return what a model of features sees."""
    return {"features": batch["features"], "mask": batch["mask"]}


MODELS: Mapping[str, Callable[[int, Any, Batch], View]] = {
    "recognition": classifier,
    "segmentation": labeller,
    "spatial_action": box_classifier,
    "temporal_action": detector,
    "video_instance": object_models.segmenter,
    "video_object": object_models.detector,
}


# --- task and training ---


def task_of(data: VideoSet, config: Any) -> VideoTask:
    """Return the task of a data set with the recipe's loss and the rules of its own evaluation."""
    task = TASKS[data.task]
    if data.task == "recognition":
        views = config.sampling.clips * config.sampling.crops
        soft: dict[str, Any] = {"loss": recognition.soft_loss} if mixing_of(config).on else {}
        return replace(task, measure=partial(recognition.measure_views, views=views), **soft)
    if data.task == "spatial_action":
        return replace(task, measure=partial(spatial.measure, scored=data.scored))
    if data.task == "video_object":
        return object_models.detection(task, config)
    if data.task == "video_instance":
        return object_models.instances(task, config)
    if data.task == "segmentation":
        measure = partial(measure_frames, every=config.every, background=data.background)
        return replace(task, labels=("label", "full"), measure=measure)
    return task


def measure_frames(
    predictions: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], *, every: int, background: tuple[int, ...]
) -> dict[str, float]:
    """Return the measures of segmentation over all frames, each prediction standing for `every` of them.

    >>> found, true = {"label": np.array([[1, 2]])}, {"full": np.array([[1, 1, 2, -1]])}
    >>> measure_frames(found, true, every=2, background=())["accuracy"]
    100.0
    """
    spread = {"label": np.repeat(predictions["label"], every, axis=1)}
    return segmentation.measure(spread, {"label": labels["full"]}, background)


def problem_of(data: VideoSet, config: Any, clips: Sequence[ClipSource]) -> Problem:
    """Return the problem of training the weights that `tune` names, for clips as long as those given."""
    batch = next(all_batches(clips, batch_size=1))
    view = MODELS[data.task](len(data.class_names), config, batch)
    method = NoPrompts(towers={video_mtl.PRIMARY: (view.backbone.depth, view.backbone.dim)})
    pipeline = video_mtl.Pipeline(view, {}, task_of(data, config), method, vary=varied(data, config))
    about = {"data": config.data.to_dict(), "weights": config.weights}
    return video_mtl.build(pipeline, example=batch, tune=tuple(config.tune), about=about)


def mixing_of(config: Any) -> Mixing:
    """Return how labels become soft."""
    return Mixing(**config.mixing)


def varied(data: VideoSet, config: Any) -> Callable[[Batch, Array], Batch] | None:
    """Return what changes a training batch at random within a step: clips and labels mixed, branches left out."""
    mixing, rate, classes = mixing_of(config), config.drop_path, len(data.class_names)
    if mixing.on and data.task != "recognition":
        raise UserError(f"Labels are mixed and smoothed for recognition only, not for {data.name!r}; set mixing to 0.")
    if rate and data.task not in ("recognition", "spatial_action"):
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


def plan(config: Any, clips: int) -> dict[str, Any]:
    """Return the loop's settings."""
    steps = max(clips * config.repeats // config.train.batch_size, 1)
    run = {"seed": config.seed, "parallel": config.parallel, "evaluate_every": 0}
    about = {"data": config.data.to_dict(), "sampling": config.sampling.to_dict(), "model": config.model.to_dict()}
    about |= {"mixing": config.mixing.to_dict(), "drop_path": config.drop_path}
    about |= {"views": config.views, "repeats": config.repeats, "points": config.points, "guided": config.guided}
    return dict(config.train) | run | about | {"steps_per_epoch": steps, "steps": steps * config.train.epochs}


def batches(data: VideoSet, parts: Sequence[ClipSource], config: Any, start_step: int) -> Any:
    """Return the training batches from a step on."""
    views = {"views": 1 if data.channels else config.views, "repeats": config.repeats}
    found = training_batches(
        parts, batch_size=config.train.batch_size, seed=config.seed, start_step=start_step, **views
    )
    if data.task != "video_instance":
        return found
    steps = plan(config, len(data.parts["train"]))["steps"]
    return object_models.guide(found, start_step, config.guided * steps)
