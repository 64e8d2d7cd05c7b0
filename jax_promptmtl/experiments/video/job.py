"""What the rows of the video job share: clips, frozen models, kept middle states, and how a row is trained."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import pick
from jax_promptmtl.core.hashes import weights_sha256
from jax_promptmtl.core.outline import outline
from jax_promptmtl.core.problem import Problem
from jax_promptmtl.data.icons import moving_icons
from jax_promptmtl.data.middle_cache import Recipe, open_cache
from jax_promptmtl.data.video_batches import (
    Batch,
    Clips,
    ClipSource,
    Elsewhere,
    Prefixed,
    all_batches,
    cut_prefix,
)
from jax_promptmtl.engine import loop
from jax_promptmtl.experiments.video.training import loop_settings, stream
from jax_promptmtl.methods.make import make_method
from jax_promptmtl.models.video.view import View, pack
from jax_promptmtl.problems import video_mtl
from jax_promptmtl.problems.video_mtl import PRIMARY, Pipeline, method_sizes
from jax_promptmtl.problems.video_tasks import SPECS, icons
from jax_promptmtl.problems.video_tasks.icons import Sight
from jax_promptmtl.problems.video_tasks.spec import VideoTaskSpec

PyTree = Any
PARTS = {"train": "base", "test": "base", "shifted": "shifted", "panned": "panned"}  # part -> variant of the clips


@dataclass(frozen=True)
class Row:
    """One way to change the primary.

    Attributes:
      pipeline: what it computes.
      sources: part -> what a batch is made of.
      tune: patterns of the primary's weights that are trained.
      initial: the method's parameters to start from, drawn when `None`.
      start_layer: see `video_mtl.build`.
      sizes: trained parameters, and those of all models that are used, where they are not those of the pipeline.
    """

    pipeline: Pipeline
    sources: Mapping[str, Sequence[ClipSource]]
    tune: tuple[str, ...] = ()
    initial: PyTree = None
    start_layer: Mapping[str, str] | None = None
    sizes: tuple[int, int] | None = None
    __repr__ = outline


@dataclass(frozen=True)
class Kept:
    """What frozen weights say of clips, which is computed once.

    Attributes:
      name: of the model, or of what it gives.
      middle: layers that run.
      compute: (weights, batch) -> arrays.
      weights: of the model.
      spec: the form in which it sees a clip.
    """

    name: str
    middle: int
    compute: Callable[[PyTree, Batch], Mapping[str, Any]]
    weights: PyTree
    spec: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """Clips, models and kept middle states of one primary; they are made when first asked for.

    Attributes:
      config: of the run.
      workdir: of the run.
      shared: folder of what several runs use.
      weights: task -> parameters of its model.
      parts: of the clips, those of `PARTS` that there are.
      made: what was made; runs that differ in seeds only may share it.
    """

    config: Any
    workdir: pathlib.Path
    shared: pathlib.Path
    weights: Mapping[str, PyTree]
    parts: tuple[str, ...]
    made: dict[tuple, Any] = field(default_factory=dict)
    __repr__ = outline

    @property
    def task(self) -> str:
        """Return the primary task."""
        return self.config.task

    @property
    def spec(self) -> VideoTaskSpec:
        """Return what there is to know of it."""
        return SPECS[self.task]

    def once(self, key: tuple, make: Callable[[], Any]) -> Any:
        """Return what was made under a key, made now if it was not before."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def of(self, task: str, clips: int) -> "Job":
        """Return the job of another primary with so many clips and no auxiliaries, for training only."""
        config = self.config.copy_and_resolve_references().unlock()
        config.task, config.aux, config.cut, config.clips.train = task, (), 0, clips
        weights = {**self.weights, **icons.load(config.models, (task,))}
        return replace(self, config=config.lock(), weights=weights, parts=("train",))

    def clips(self, part: str) -> Clips:
        """Return the clips of a part."""
        drawings, count = self.drawings(part), self.config.clips["train" if part == "train" else "test"]
        make = partial(icons.videos, self.task, count, drawings, variant=PARTS[part], seed=self.seed(part))
        return self.once(("clips", self.task, part, count), make)

    def drawings(self, part: str) -> str:
        """Return which drawings the clips of a part have."""
        return "train" if part == "train" else self.config.clips.evaluate_on

    def seed(self, part: str) -> int:
        """Return what draws the clips of a part; those to test on stay the same."""
        return self.config.clips.seed if part == "train" else self.config.clips.test_seed

    def view(self, name: str, middle: int | None = None, **options: Any) -> View:
        """Return a model as it sees the primary's clips; the primary is cut as the config says."""
        own = name == self.task
        middle = self.config.cut or None if own and middle is None else middle
        options = {"auxiliary": not own, "middle": middle} | options
        sight = Sight(**options)
        return icons.view(name, self.weights, icons.frames_of(self.task), sight)

    def features(self, part: str, task: str) -> ClipSource:
        """Return the features of a part's clips that a task's model reads; two models read the same."""
        trunk, layers = self.weights[SPECS[task].extractor]["trunk"], icons.VIT["layers"]
        what = Kept("features", layers, partial(icons.extract, task), trunk)
        return self.keep(part, what, self.clips(part))

    def states(self, part: str, name: str, middle: int | None = None, **options: Any) -> ClipSource:
        """Return a model's middle states of a part's clips; keys are those of `pack` without a name."""
        given = bool(SPECS[name].extractor)
        view = self.view(name, middle, given=given, **options)
        source, backbone = self.features(part, name) if given else self.clips(part), view.backbone
        compute = partial(lower_half, view, whole=name == self.task)
        return self.keep(part, Kept(name, backbone.middle, compute, backbone.params, view.spec), source)

    def others(self, part: str, aux: Mapping[str, str], sees: str) -> dict[str, ClipSource]:
        """Return the auxiliaries' middle states of the clips that they see; see `video_mtl`."""
        if sees == "aux_data":
            part = "train" if part == "train" else "test"
            jobs = {name: self.of(task, self.config.clips.train) for name, task in aux.items()}
            return {name: job.states(part, job.task, auxiliary=True) for name, job in jobs.items()}
        found = {name: self.states(part, task) for name, task in aux.items()}
        if sees == "other_clip":
            return {name: Elsewhere(source, self.config.seed) for name, source in found.items()}
        return found

    def keep(self, part: str, what: Kept, source: ClipSource) -> ClipSource:
        """Return what frozen weights say of a part's clips, computed once; one compilation serves all parts."""
        sees = tuple(what.spec.items())
        compiled = self.once(("lower", self.task, what.name, what.middle, sees), lambda: jax.jit(what.compute))

        def make() -> ClipSource:
            clips = f"{self.task} {self.drawings(part)} {PARTS[part]} {self.seed(part)} {moving_icons.VERSION}"
            recipe = Recipe(what.name, weights_sha256(what.weights), what.spec, what.middle, "float32", clips)
            size, cache = self.config.evaluation_batch_size, self.config.cache
            options = {"place": cache.place, "folder": cache.folder, "batch_size": size}
            return open_cache(partial(compiled, what.weights), source, recipe, **options)

        return self.once(("kept", self.task, part, len(source), what.name, what.middle, sees), make)

    def row(
        self,
        method: Mapping[str, Any],
        aux: Mapping[str, str],
        *,
        middle: int | None = None,
        aux_input: str = "same_clip",
    ) -> Row:
        """Return the row of a method whose models' middle states are all kept.

        Args:
          method: options, see `make_method`.
          aux: name of an auxiliary -> its task.
          middle: layers in the primary's lower half; those of the config when `None`.
          aux_input: what the auxiliaries see, see `video_mtl`.
        """
        drop_after = self.config.drop_after if middle is None else 0
        primary = self.view(self.task, middle, drop_after=drop_after)
        views = {name: self.view(task) for name, task in aux.items()}
        sizes = method_sizes(primary.backbone, {name: view.backbone for name, view in views.items()})
        made = make_method(method, sizes)
        sources: dict[str, Sequence[ClipSource]] = {}
        for part in self.parts:
            named = {PRIMARY: self.states(part, self.task, middle)} | self.others(part, aux, aux_input)
            kept = [Prefixed(source, f"middle/{name}/") for name, source in named.items()]
            sources[part] = [icons.labels(self.clips(part)), *kept]
        mode, cached = self.config.prompt_mode, (PRIMARY, *aux)
        return Row(Pipeline(primary, views, self.spec.task, made, mode, aux_input, cached), sources)


def open_job(config: Any, workdir: pathlib.Path, shared: pathlib.Path) -> Job:
    """Read the models of a job.

    Raises:
      UserError: an unknown task, or a model that cannot be read.
    """
    task = pick(config.task, SPECS, "primary task")
    for name in config.aux:
        pick(name, [other for other in SPECS if other != task], "auxiliary task")
    weights = icons.load(config.models, (task, *config.aux))
    pick(config.clips.evaluate_on, ("test", "tune"), "clips.evaluate_on")
    return Job(config, workdir, shared, weights, parts_of(task, config.clips.evaluate_on))


def parts_of(task: str, evaluate_on: str = "test") -> tuple[str, ...]:
    """Return the parts of a task's clips; rates are searched for without the variants.

    >>> parts_of("segmentation"), parts_of("segmentation", "tune")
    (('train', 'test', 'shifted', 'panned'), ('train', 'test'))
    """
    variants = [part for part in PARTS if (task, PARTS[part]) in moving_icons.DOMAINS]
    return tuple(variants if evaluate_on == "test" else ("train", "test"))


def lower_half(view: View, weights: PyTree, batch: Batch, *, whole: bool) -> dict[str, Any]:
    """Return the middle state of a model as flat arrays; of an auxiliary not what only its upper half would need."""
    state = view.backbone.lower(weights, view.adapt(batch))
    return strip(pack(state if whole else state._replace(carry=()), ""))


def strip(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return packed arrays without the model's name.

    >>> strip({"middle//tokens": 1})
    {'tokens': 1}
    """
    return cut_prefix(arrays, "middle//")


# --- training ---


def row_problem(job: Job, row: Row) -> Problem:
    """Return the problem of a row."""
    part, sources = next(iter(row.sources.items()))
    seen = [job.clips(part)] if row.tune else []  # to see which weights the lower half reads
    example = next(all_batches([*sources, *seen], batch_size=1))
    about = {
        "backbone": {"name": job.task, "sha256": weights_sha256(job.weights[job.task])},
        "aux": list(row.pipeline.aux),
    }
    start = {"initial": row.initial, "start_layer": row.start_layer, "seed": job.config.seed}
    return video_mtl.build(row.pipeline, example=example, tune=row.tune, about=about, **start)


def train(
    job: Job,
    problem: Problem,
    sources: Sequence[ClipSource],
    row: str,
    *,
    stage: str = "",
    measure: Callable[[PyTree], dict[str, float]] | None = None,
) -> loop.Result:
    """Train the problem of a row, if it has anything to train.

    Args:
      job: reads `config.train`, and `config.rates` for the row's learning rate.
      problem: what to train.
      sources: what a batch is made of.
      row: its name.
      stage: what the training is called, if not as the row.
      measure: of the parameters, after every epoch; not if `None`.
    """
    if not tree.count(problem.params):
        return loop.Result(problem.params, 0, None, 0.0, 0.0)
    settings = row_settings(job, row, len(sources[0]))
    if measure is not None:
        settings["evaluate_every"] = settings["steps_per_epoch"]
    batches = partial(stream, sources, job.config)
    return loop.train(problem, batches, settings, job.workdir, name=stage or row, measure=measure)


def row_settings(job: Job, name: str, clips: int) -> dict[str, Any]:
    """Return the loop's settings of a row that is trained on so many clips."""
    config = job.config
    about = {"row": name, "task": config.task, "method": dict(config.method), "prompt_mode": config.prompt_mode}
    optimizer = dict(config.train.optimizer) | {"learning_rate": rate_of(config, name)}
    return loop_settings(config, clips, about) | {"optimizer": optimizer}


def rate_of(config: Any, row: str) -> float:
    """Return the learning rate of a row."""
    if row in config.rates:
        return config.rates[row]
    return config.train.optimizer.learning_rate
