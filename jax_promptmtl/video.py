"""The video job: prompt a frozen primary with what frozen auxiliaries see, next to baselines and controls.

Every row of `config.rows` is one way to change the primary, trained and measured on the same clips. Lower halves run
once per clip and are kept. Rows with prompts are measured twice where the prompts depend on the clip: with prompts of
every clip for itself (dynamic), and with their mean over the training clips (static), which is saved and needs no
auxiliary; where the task has shifted clips, both are measured there too, without training.
"""

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from jax_promptmtl import tree, video_models, video_mtl
from jax_promptmtl.backbones.view import View, pack, weights_sha256
from jax_promptmtl.data import moving_icons, prompt_file
from jax_promptmtl.data.clip_batches import (
    Batch,
    Clips,
    ClipSource,
    Elsewhere,
    Prefixed,
    all_batches,
    cut_prefix,
    training_batches,
)
from jax_promptmtl.data.middle_cache import Recipe, open_cache
from jax_promptmtl.engine import loop
from jax_promptmtl.errors import pick
from jax_promptmtl.methods.middle import rank_of_size
from jax_promptmtl.problem import Problem
from jax_promptmtl.tasks import TASKS
from jax_promptmtl.video_mtl import PRIMARY, Pipeline

PyTree = Any
PARTS = {"train": ("train", "base"), "test": ("test", "base"), "shifted": ("test", "shifted")}


@dataclass(frozen=True)
class Row:
    """One way to change the primary.

    Attributes:
      pipeline: what it computes.
      sources: part -> what a batch is made of.
      tune: patterns of the primary's weights that are trained.
    """

    pipeline: Pipeline
    sources: Mapping[str, list[ClipSource]]
    tune: tuple[str, ...] = ()


class Job:
    """Clips, models and kept middle states of one run; states are made when first asked for.

    Attributes:
      config, workdir: of the run.
      task: of the primary.
      weights: task -> parameters of its model.
      clips: part -> clips of the primary's task.
    """

    def __init__(self, config: Any, workdir: pathlib.Path):
        self.config, self.workdir = config, workdir
        self.task = pick(config.task, video_models.MODELS, "primary task")
        for name in config.aux:
            pick(name, [task for task in video_models.MODELS if task != self.task], "auxiliary task")
        self.weights = video_models.load(config.models, (self.task, *config.aux))
        shifted = (self.task, "shifted") in moving_icons.DOMAINS
        self.clips = {part: self.read(part) for part in PARTS if part != "shifted" or shifted}
        self.kept: dict[tuple[str, str, int], ClipSource] = {}
        self.lowers: dict[tuple[str, int], Callable] = {}

    def read(self, part: str) -> Clips:
        """Return the clips of a part."""
        split, variant = PARTS[part]
        return video_models.clips(self.task, self.config.clips[split], split, variant=variant, seed=self.seed(part))

    def seed(self, part: str) -> int:
        """Return what draws the clips of a part; those to test on stay the same."""
        return self.config.clips.seed if part == "train" else self.config.clips.test_seed

    def view(self, name: str, middle: int | None = None) -> View:
        """Return a model as it sees the primary's clips."""
        frames, auxiliary = video_models.FRAMES[self.task], name != self.task
        return video_models.view(name, self.weights, frames, auxiliary=auxiliary, middle=middle)

    def states(self, part: str, view: View) -> ClipSource:
        """Return the middle states of a part's clips, made now or before; keys are those of `pack` without a name."""
        backbone, settings = view.backbone, self.config.cache
        key = part, backbone.name, backbone.middle
        if key not in self.kept:
            lower = self.lowers.setdefault(key[1:], jax.jit(partial(lower_half, view)))  # one compilation for all parts
            clips = f"{self.task} {PARTS[part]} {self.seed(part)} {moving_icons.VERSION}"
            sha = weights_sha256(backbone.params)
            recipe = Recipe(backbone.name, sha, view.spec, backbone.middle, "float32", clips)
            options = {
                "place": settings.place,
                "folder": settings.folder,
                "batch_size": self.config.evaluation_batch_size,
            }
            self.kept[key] = open_cache(partial(lower, backbone.params), self.clips[part], recipe, **options)
        return self.kept[key]

    def row(self, method: Mapping[str, Any], aux: Mapping[str, View], **options: Any) -> Row:
        """Return the row of a method whose models' middle states are all kept."""
        primary, stand_in = self.view(self.task, options.get("middle")), options.get("stand_in", False)
        made = video_mtl.make_method(method, primary.backbone, {name: view.backbone for name, view in aux.items()})
        sources: dict[str, list[ClipSource]] = {}
        for part, clips in self.clips.items():
            others: dict[str, ClipSource] = {name: self.states(part, view) for name, view in aux.items()}
            if stand_in:
                others = {name: Elsewhere(source, self.config.seed) for name, source in others.items()}
            named = {PRIMARY: self.states(part, primary)} | others
            kept = [Prefixed(source, f"middle/{name}/") for name, source in named.items()]
            sources[part] = [clips if options.get("tune") else video_models.labels(clips), *kept]
        pipeline = Pipeline(primary, aux, TASKS[self.task], made, self.config.prompt_mode, cached=(PRIMARY, *aux))
        return Row(pipeline, sources, options.get("tune", ()))


def lower_half(view: View, weights: PyTree, batch: Batch) -> dict[str, Any]:
    """Return the middle state of a model as flat arrays."""
    return strip(pack(view.backbone.lower(weights, view.adapt(batch)), ""))


def strip(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return packed arrays without the model's name.

    >>> strip({"middle//tokens": 1})
    {'tokens': 1}
    """
    return cut_prefix(arrays, "middle//")


# --- the rows ---


def frozen(job: Job) -> Row:
    """Return the primary as it is."""
    return job.row({"name": "none"}, {})


def mapper(job: Job, **change: Any) -> Row:
    """Return the double-layer mapper of the config, with options changed."""
    aux = {name: job.view(name) for name in job.config.aux}
    return job.row(dict(job.config.method) | change, aux)


def self_aux(job: Job) -> Row:
    """Return the control whose auxiliaries are the primary itself."""
    aux = {f"self_{i}": job.view(job.task) for i in range(len(job.config.aux))}
    return job.row(dict(job.config.method), aux)


def other_clip(job: Job) -> Row:
    """Return the control whose auxiliaries see another clip of the same data."""
    aux = {name: job.view(name) for name in job.config.aux}
    return job.row(dict(job.config.method), aux, stand_in=True)


def free_prompts(job: Job, middle: int | None = None, tune: tuple[str, ...] = ()) -> Row:
    """Return as many prompts as the mapper makes, without auxiliaries, before the middle or another layer."""
    count = job.config.method.num_prompts * len(job.config.aux)
    return job.row({"name": "middle_prompts", "num_prompts": count}, {}, middle=middle, tune=tune)


def adapter(job: Job) -> Row:
    """Return an adapter of the middle tokens with as many parameters as the mapper."""
    size = tree.count(problem_of(job, mapper(job)).params)
    return job.row({"name": "middle_adapter", "rank": rank_of_size(size, job.view(job.task).backbone.dim)}, {})


def full_fine_tuning(job: Job) -> Row:
    """Return the primary with all its weights trained; its lower half runs in every step."""
    row = frozen(job)
    tune = ("model/.*",) if job.task in video_models.ON_FEATURES else (".*",)
    return Row(replace(row.pipeline, cached=()), {part: [clips] for part, clips in job.clips.items()}, tune)


HEADS = {  # what VPT trains beside its prompts
    "recognition": ("pool/head/.*",),
    "spatial_action": ("roi/head/.*",),
    "temporal_action": ("model/(classify|regress)/.*",),
    "segmentation": ("model/(encoder|decoders_.*)/head/.*",),
}
ROWS: dict[str, tuple[str, Callable[[Job], Row]]] = {
    "frozen": ("frozen primary", frozen),
    "full_ft": ("full fine-tuning", full_fine_tuning),
    "vpt": ("VPT-shallow and head", lambda job: free_prompts(job, 0, HEADS[job.task])),
    "mid_prompt": ("middle prompts, no auxiliary", free_prompts),
    "self_aux": ("self-auxiliary", self_aux),
    "other_clip": ("auxiliaries see other clips", other_clip),
    "adapter": ("adapter of equal size", adapter),
    "single_layer": ("DLM, single layer", partial(mapper, single_layer=True)),
    "dlm": ("DLM", mapper),
}
PER_CLIP = ("self_aux", "other_clip", "single_layer", "dlm")  # whose prompts depend on the clip


# --- the run ---


def run(config: Any, workdir: pathlib.Path, *, dry_run: bool) -> None:
    """Train and measure all rows, print a table, and write results.json and the prompts."""
    for name in config.rows:
        pick(name, ROWS, "row")
    job = Job(config, workdir)
    for name in (job.task, *config.aux):
        print(f"{name}: {tree.count(job.view(name).backbone.params):,} frozen parameters")
    if dry_run:
        return describe(job)
    results = {}
    for name in config.rows:
        results[name] = measure_row(job, name)
        print(table(results, TASKS[job.task].metric), flush=True)
        (workdir / "results.json").write_text(json.dumps(results, indent=2) + "\n")


def describe(job: Job) -> None:
    """Print what every row would train."""
    for name in job.config.rows:
        print(f"{ROWS[name][0]}: {tree.count(problem_of(job, ROWS[name][1](job)).params):,} trainable parameters")


def problem_of(job: Job, row: Row) -> Problem:
    """Return the problem of a row."""
    example = next(all_batches(row.sources["train"], batch_size=1))
    about = {
        "backbone": {"name": job.task, "sha256": weights_sha256(job.weights[job.task])},
        "aux": list(row.pipeline.aux),
    }
    return video_mtl.build(row.pipeline, example=example, tune=row.tune, seed=job.config.seed, about=about)


def measure_row(job: Job, name: str) -> dict[str, Any]:
    """Train a row and return its title, its parameters and what it scores."""
    title, make = ROWS[name]
    row = make(job)
    problem = problem_of(job, row)
    print(f"{title}: {tree.count(problem.params):,} trainable parameters", flush=True)
    params = problem.params
    if tree.count(params):
        result = loop.train(problem, partial(stream, row, job.config), plan(job, name), job.workdir, name=name)
        params = result.params
    found = {"dynamic": scores(job, row, problem, params)}
    if name in PER_CLIP:
        found["static"] = measure_static(job, name, row, problem, params)
    return {"title": title, "trainable": tree.count(params), "metric": TASKS[job.task].metric, "scores": found}


def scores(job: Job, row: Row, problem: Problem, params: PyTree) -> dict[str, dict[str, float]]:
    """Return part -> metrics, of the parts that test."""
    size, measure = job.config.evaluation_batch_size, video_mtl.evaluator(problem, TASKS[job.task])
    parts = {part: all_batches(row.sources[part], batch_size=size) for part in row.sources if part != "train"}
    return {part: measure(params, batches) for part, batches in parts.items()}


def measure_static(job: Job, name: str, row: Row, problem: Problem, params: PyTree) -> dict[str, dict[str, float]]:
    """Save the mean prompts of a row, and return what the primary scores with them alone."""
    batches = all_batches(row.sources["train"], batch_size=job.config.evaluation_batch_size)
    prompts = video_mtl.static_prompts(row.pipeline, problem, params, batches)
    backbone, path = row.pipeline.primary.backbone, job.workdir / f"prompts_{name}"
    sha, aux = weights_sha256(backbone.params), tuple(row.pipeline.aux)
    card = prompt_file.PromptCard(
        job.task, backbone.name, sha, backbone.middle, backbone.dim, aux, job.config.prompt_mode, f"{job.task} train"
    )
    prompt_file.save(path, prompts, card)
    return transfer(job, path)


def transfer(job: Job, path: pathlib.Path) -> dict[str, dict[str, float]]:
    """Return what the primary scores with saved prompts, without training and without auxiliaries."""
    backbone = job.view(job.task).backbone
    prompts, _ = prompt_file.load(path, middle=backbone.middle, dim=backbone.dim, task=job.task)
    row = job.row({"name": "middle_prompts", "num_prompts": len(prompts)}, {})
    example = next(all_batches(row.sources["train"], batch_size=1))
    problem = video_mtl.build(row.pipeline, example=example, initial={"tokens": np.asarray(prompts)})
    return scores(job, row, problem, problem.params)


def plan(job: Job, name: str) -> dict[str, Any]:
    """Return the loop's settings of a row."""
    config = job.config
    steps = max(config.clips.train // config.train.batch_size, 1)
    run = {"seed": config.seed, "parallel": config.parallel, "evaluate_every": 0}
    about = {"row": name, "task": config.task, "method": dict(config.method), "prompt_mode": config.prompt_mode}
    optimizer = dict(config.train.optimizer)
    if name in config.rates:
        optimizer["learning_rate"] = config.rates[name]
    whole = {"steps_per_epoch": steps, "steps": steps * config.train.epochs, "optimizer": optimizer}
    return dict(config.train) | run | about | whole


def stream(row: Row, config: Any, start_step: int) -> Iterator[Batch]:
    """Return the training batches of a row from a step on."""
    size = config.train.batch_size
    return training_batches(row.sources["train"], batch_size=size, seed=config.seed, start_step=start_step)


def table(results: Mapping[str, Mapping[str, Any]], metric: str) -> str:
    """Return the results as aligned text: a row each, columns for parts and kinds of prompts."""
    columns = [(part, kind) for part in ("test", "shifted") for kind in ("dynamic", "static")]
    head = f"{metric:<30}{'trainable':>12}" + "".join(f"{f'{part} {kind}':>18}" for part, kind in columns)
    lines = [head]
    for row in results.values():
        cells = [row["scores"].get(kind, {}).get(part, {}).get(metric) for part, kind in columns]
        text = "".join(f"{'-' if cell is None else f'{cell:.1f}':>18}" for cell in cells)
        lines.append(f"{row['title']:<30}{row['trainable']:>12,}{text}")
    return "\n".join(lines)
