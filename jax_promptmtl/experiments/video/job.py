"""What the rows of the video job share: clips, frozen models, kept middle states, and how a row is trained."""

import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import pick
from jax_promptmtl.core.hashes import weights_sha256
from jax_promptmtl.core.outline import outline
from jax_promptmtl.core.problem import Problem
from jax_promptmtl.data.middle_cache import PLACES, Recipe, bytes_per_clip, free_memory, layout_of, open_cache
from jax_promptmtl.data.video_batches import (
    Batch,
    ClipSource,
    Elsewhere,
    Prefixed,
    all_batches,
    cut_prefix,
)
from jax_promptmtl.engine import loop
from jax_promptmtl.experiments.video.footage import Footage, Kept, other_data
from jax_promptmtl.experiments.video.training import by_rules, loop_settings, stream
from jax_promptmtl.methods.make import make_method
from jax_promptmtl.models.video.view import View, pack
from jax_promptmtl.problems import video_mtl
from jax_promptmtl.problems.video_mtl import PRIMARY, Pipeline, method_sizes
from jax_promptmtl.problems.video_tasks.spec import Sight, VideoTaskSpec

PyTree = Any


@dataclass(frozen=True)
class Row:
    """One way to change the primary.

    Attributes:
      pipeline: what it computes.
      sources: part -> what a batch is made of.
      aux: the models that it sees.
      tune: patterns of the primary's weights that are trained.
      initial: the method's parameters to start from, drawn when `None`.
      start_layer: see `video_mtl.build`.
      sizes: trained parameters, and those of all models that are used, where they are not those of the pipeline.
    """

    pipeline: Pipeline
    sources: Mapping[str, Sequence[ClipSource]]
    aux: tuple[str, ...] = ()
    tune: tuple[str, ...] = ()
    initial: PyTree = None
    start_layer: Mapping[str, str] | None = None
    sizes: tuple[int, int] | None = None
    __repr__ = outline


@dataclass(frozen=True)
class Job:
    """Videos, models and kept middle states of one primary; they are made when first asked for.

    Attributes:
      config: of the run.
      workdir: of the run.
      shared: folder of what several runs use.
      footage: videos and models.
      place: where middle states are kept: memory or disk; "" computes them anew in every step.
      made: what was made; runs that differ in seeds only may share it.
    """

    config: Any
    workdir: pathlib.Path
    shared: pathlib.Path
    footage: Footage
    place: str
    made: dict[tuple, Any] = field(default_factory=dict)
    __repr__ = outline

    @property
    def task(self) -> str:
        """Return the primary task."""
        return self.spec.name

    @property
    def spec(self) -> VideoTaskSpec:
        """Return what there is to know of it."""
        return self.footage.spec

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the parts of the videos."""
        return self.footage.parts

    def once(self, key: tuple, make: Callable[[], Any]) -> Any:
        """Return what was made under a key, made now if it was not before."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def of(self, task: str, count: Callable[[tuple[str, ...]], int]) -> "Job":
        """Return the job of another primary without auxiliaries, for training only; see `Footage.of`."""
        footage = self.footage.of(task, count)
        config = self.config.copy_and_resolve_references().unlock()
        config.task, config.aux, config.cut, config.clips.train = task, (), 0, count(footage.classes)
        return replace(self, config=config.lock(), footage=footage)

    def view(self, model: str, middle: int | None = None, **options: Any) -> View:
        """Return a model as it sees the primary's videos; the primary is cut as the config says."""
        own = model == self.footage.primary
        middle = self.config.cut or None if own and middle is None else middle
        return self.footage.view(model, replace(Sight(auxiliary=not own, middle=middle), **options))

    def features(self, part: str, model: str) -> ClipSource:
        """Return the features of a part's videos that a model reads, where models share them."""
        what = self.footage.features(model)
        assert what is not None
        return self.keep(part, what, self.footage.videos(part))

    def states(self, part: str, model: str, middle: int | None = None, **options: Any) -> ClipSource:
        """Return a model's middle states of a part's videos; keys are those of `pack` without a name."""
        given = self.footage.features(model) is not None
        view = self.view(model, middle, given=given, **options)
        source, backbone = self.features(part, model) if given else self.footage.videos(part), view.backbone
        compute = partial(lower_half, view, whole=model == self.footage.primary)
        return self.keep(part, Kept(model, backbone.middle, compute, backbone.params, view.spec), source)

    def others(self, part: str, aux: Mapping[str, str], sees: str) -> dict[str, ClipSource]:
        """Return the auxiliaries' middle states of the videos that they see; see `video_mtl`."""
        if sees == "aux_data":
            part = "train" if part == "train" else "test"
            jobs = {name: self.of(model, lambda _: self.config.clips.train) for name, model in aux.items()}
            return {name: job.states(part, job.task, auxiliary=True) for name, job in jobs.items()}
        found = {name: self.states(part, model) for name, model in aux.items()}
        if sees == "other_clip":
            return {name: Elsewhere(source, self.config.seed) for name, source in found.items()}
        return found

    def keep(self, part: str, what: Kept, source: ClipSource) -> ClipSource:
        """Return what frozen weights say of a part's clips, computed once; one compilation serves all parts."""
        sees = tuple(what.spec.items())
        compiled = self.once(("lower", self.task, what.name, what.middle, sees), lambda: jax.jit(what.compute))

        def make() -> ClipSource:
            videos = self.footage.identity(part)
            recipe = Recipe(what.name, weights_sha256(what.weights), what.spec, what.middle, "float32", videos)
            size = self.config.evaluation_batch_size
            options = {"place": self.place, "folder": self.config.cache.folder, "batch_size": size}
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
        """Return the row of a method whose models' middle states are kept, where there is a place for them.

        Args:
          method: options, see `make_method`.
          aux: name of an auxiliary -> model.
          middle: layers in the primary's lower half; those of the config when `None`.
          aux_input: what the auxiliaries see, see `video_mtl`.
        """
        drop_after = self.config.drop_after if middle is None else 0
        primary = self.view(self.footage.primary, middle, drop_after=drop_after)
        views = {name: self.view(model) for name, model in aux.items()}
        sizes = method_sizes(primary.backbone, {name: view.backbone for name, view in views.items()})
        made, cached = make_method(method, sizes), (PRIMARY, *aux) if self.place else ()
        sources = {part: self.row_sources(part, aux, middle, aux_input) for part in self.parts}
        task, mode = self.footage.task, self.config.prompt_mode
        return Row(Pipeline(primary, views, task, made, mode, aux_input, cached), sources, tuple(aux.values()))

    def row_sources(self, part: str, aux: Mapping[str, str], middle: int | None, sees: str) -> Sequence[ClipSource]:
        """Return what a batch of a part is made of: labels and middle states, or videos where nothing is kept."""
        if not self.place:
            videos = self.footage.videos(part)
            if sees == "aux_data":
                raise other_data("A row whose auxiliaries see their own data")
            other = [Prefixed(Elsewhere(videos, self.config.seed), "other/")] if sees == "other_clip" else []
            return [videos, *other]
        named = {PRIMARY: self.states(part, self.footage.primary, middle)} | self.others(part, aux, sees)
        kept = [Prefixed(source, f"middle/{name}/") for name, source in named.items()]
        return [self.footage.labels(part), *kept]


def choose_place(job: Job) -> Job:
    """Return a job that keeps its middle states where the config says; `auto` takes memory if half of it is enough.

    Random views of training videos are as many videos more; in `auto` their states are computed in every step.
    """
    place = pick(job.config.cache.place, (*PLACES, "off", "auto"), "cache.place")
    if place == "auto":
        fits = job.footage.views == 1 and cache_bytes(job) < free_memory() / 2
        place = "memory" if fits else "off"
    return replace(job, place="" if place == "off" else place)


def cache_bytes(job: Job) -> int:
    """Return the size of all models' middle states of all parts."""
    example = next(iter(job.parts))
    source, total = job.footage.videos(example), 0
    for model in (job.footage.primary, *job.footage.aux):
        view = job.view(model)
        lower = partial(lower_half, view, view.backbone.params, whole=model == job.footage.primary)
        total += bytes_per_clip(layout_of(lower, source)) * sum(len(job.footage.videos(part)) for part in job.parts)
    return total


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
    seen = [job.footage.videos(part)] if row.tune and job.place else []  # for which weights the lower half reads
    example = next(all_batches([*sources, *seen], batch_size=1))
    about = {
        "backbone": {"name": job.task, "sha256": weights_sha256(job.footage.parameters(job.footage.primary))},
        "aux": list(row.pipeline.aux),
        **job.footage.about(),
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
    batches, hooks = partial(job_stream, job, sources), loop.Hooks(measure=measure)
    return loop.train(problem, batches, settings, job.workdir, name=stage or row, hooks=hooks)


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


def job_stream(job: Job, sources: Sequence[ClipSource], start_step: int) -> Iterator[Any]:
    """Return the training batches from a step on."""
    batches = stream(sources, job.config, start_step, views=job.footage.views)
    return by_rules(job.spec, batches, start_step, 0) if "data" in job.config else batches
