"""The rows of the video job: the frozen primary, the paper's baselines, the double-layer mapper, ablation, controls.

A control has what the mapper has except one thing, so that a gain can be told apart from what any trained parameters,
or any second look at the clip, would bring.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from jax_promptmtl.core import locks, tree
from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.core.hashes import weights_sha256
from jax_promptmtl.data import prompt_file
from jax_promptmtl.data.icons import moving_icons
from jax_promptmtl.data.video_batches import ClipSource, Prefixed
from jax_promptmtl.experiments.video.job import Job, Row, rate_of, row_problem, train
from jax_promptmtl.methods.middle import rank_of_size
from jax_promptmtl.models.video.model_file import SUFFIX, has_card, read_model, write_model
from jax_promptmtl.problems import shared_trunk, video_mtl
from jax_promptmtl.problems.video_tasks import SHARING, SPECS, next_task
from jax_promptmtl.reporting import records

PyTree = Any
SHOTS = 20  # clips per class of MVLPT's source task


def frozen(job: Job) -> Row:
    """Return the primary as it is."""
    return job.row({"name": "none"}, {})


def mapper(job: Job, **change: Any) -> Row:
    """Return the double-layer mapper of the config, with options changed."""
    row = job.row(dict(job.config.method) | change, {name: name for name in job.footage.aux})
    if not job.config.init_from_aux_layer:
        return row
    layers = {name: SPECS[view.backbone.name].layer_above(view.backbone) for name, view in row.pipeline.aux.items()}
    paths = {name: path for name, path in layers.items() if path}
    if not paths:
        raise UserError(
            f"init_from_aux_layer copies a transformer's layer, and none of {', '.join(layers)} has such a one; set "
            "it to False."
        )
    return replace(row, start_layer=paths)


def self_aux(job: Job) -> Row:
    """Return the control whose auxiliaries are the primary itself."""
    return job.row(dict(job.config.method), {f"self_{i}": job.footage.primary for i in range(len(job.footage.aux))})


def other_clip(job: Job) -> Row:
    """Return the control whose auxiliaries see another clip of the same data."""
    return job.row(dict(job.config.method), {name: name for name in job.footage.aux}, aux_input="other_clip")


def own_data(job: Job) -> Row:
    """Return the other reading of the paper: auxiliaries see their own data, and a batch has one set of prompts."""
    return job.row(dict(job.config.method), {name: name for name in job.footage.aux}, aux_input="aux_data")


def budget(job: Job) -> int:
    """Return how many prompts the mapper makes."""
    return job.config.method.num_prompts * len(job.footage.aux)


def free_prompts(job: Job) -> Row:
    """Return as many prompts as the mapper makes, at its place, without auxiliaries."""
    return job.row({"name": "middle_prompts", "num_prompts": budget(job)}, {})


def shallow_prompts(job: Job, count: int) -> Row:
    """Return VPT-shallow: prompts before the first layer, and the head."""
    row = job.row({"name": "middle_prompts", "num_prompts": count}, {}, middle=0)
    return replace(row, tune=job.spec.heads)


def transferred_prompts(job: Job) -> Row:
    """Return MVLPT: shallow prompts that start as those trained on a few clips of another task.

    Where that task's model has another width, they go through a fixed random orthogonal map to their old size.
    """
    name = next_task(job.task)
    source = job.of(name, lambda classes: SHOTS * len(classes))
    first = shallow_prompts(source, budget(job))
    found = train(source, row_problem(source, first), first.sources["train"], "mvlpt", stage=f"mvlpt_{name}").params
    row = shallow_prompts(job, budget(job))
    width = row.pipeline.primary.backbone.dim
    return replace(row, initial={"tokens": prompt_file.fit_width(found["method"]["tokens"], width, seed=0)})


def adapter(job: Job) -> Row:
    """Return an adapter of the middle tokens with as many parameters as the mapper."""
    size = tree.count(row_problem(job, mapper(job)).params)
    width = job.view(job.footage.primary).backbone.dim
    return job.row({"name": "middle_adapter", "rank": rank_of_size(size, width)}, {})


def whole(job: Job) -> Row:
    """Return the primary without kept middle states; where models share features, those are kept."""
    primary = job.footage.primary
    given = job.footage.features(primary) is not None
    pipeline = video_mtl.alone(job.view(primary, given=given), job.footage.task)
    sources: dict[str, Sequence[ClipSource]] = {
        part: [job.footage.labels(part), job.features(part, primary)] if given else [job.footage.videos(part)]
        for part in job.parts
    }
    return Row(pipeline, sources)


def full_fine_tuning(job: Job) -> Row:
    """Return the primary with all its weights trained, except the trunk where it reads features."""
    shared = job.footage.features(job.footage.primary) is not None
    return replace(whole(job), tune=("model/.*",) if shared else (".*",))


# --- hard parameter sharing ---


def hard_sharing(job: Job) -> Row:
    """Return the primary out of one transformer that was trained for three tasks together."""
    pick(job.task, SHARING, "task of hard sharing")
    count = job.config.clips.train if "clips" in job.config else 0
    jobs = {name: job.of(name, lambda _: count) for name in SHARING}
    models = {name: other.view(name).backbone for name, other in jobs.items()}
    params = shared_model(job, jobs)
    own = shared_trunk.model_of(job.task, models[job.task], params).params
    footage: Any = job.footage
    weights = {**footage.weights, job.task: own}
    if job.spec.extractor:
        weights = {**footage.weights, job.task: own["model"], job.spec.extractor: {"trunk": own["trunk"]}}
    tests = replace(footage, weights=weights, parts=footage.parts[1:])
    row = whole(replace(job, footage=tests, made={}))
    return replace(row, sizes=(tree.count(params), sum(tree.count(model.params) for model in models.values())))


def shared_model(job: Job, jobs: Mapping[str, Job]) -> PyTree:
    """Return the weights of hard sharing, trained once for its tasks and kept in the job's shared folder."""
    about: dict[str, Any] = {key: job.config[key].to_dict() for key in ("clips", "train")}
    about |= {"rate": rate_of(job.config, "hps"), "version": moving_icons.VERSION}
    about |= {name: weights_sha256(other.view(name).backbone.params) for name, other in jobs.items()}
    name = records.identify(f"hps-seed{job.config.seed}", [job.config.seed, about])
    path = job.shared / f"{name}{SUFFIX}"
    if not has_card(path):  # it is written last
        with locks.hold(path.with_suffix(".claim")):
            if not has_card(path):
                write_model(job.shared, name, train_shared(jobs), {"tasks": list(SHARING)})
    return read_model(path, advice="remove it, and run the command again").params


def train_shared(jobs: Mapping[str, Job]) -> PyTree:
    """Train one transformer with a head per task."""
    views = {name: job.view(name) for name, job in jobs.items()}
    private = (f"({'|'.join(SPECS[name].own for name in jobs)})/.*",)
    problem = shared_trunk.build(views, {name: SPECS[name].task for name in jobs}, private=private, about={})
    sources = [Prefixed(job.footage.videos("train"), f"{name}/") for name, job in jobs.items()]
    return train(next(iter(jobs.values())), problem, sources, "hps").params


ROWS: dict[str, tuple[str, Callable[[Job], Row]]] = {
    "frozen": ("frozen primary", frozen),
    "full_ft": ("full fine-tuning", full_fine_tuning),
    "vpt": ("VPT-shallow and head", lambda job: shallow_prompts(job, budget(job))),
    "hps": ("hard parameter sharing", hard_sharing),
    "mvlpt": ("MVLPT", transferred_prompts),
    "mid_prompt": ("middle prompts, no auxiliary", free_prompts),
    "self_aux": ("self-auxiliary", self_aux),
    "other_clip": ("auxiliaries see other clips", other_clip),
    "own_data": ("auxiliaries see their own data", own_data),
    "adapter": ("adapter of equal size", adapter),
    "single_layer": ("DLM, single layer", partial(mapper, single_layer=True)),
    "dlm": ("DLM", mapper),
}
MAPPED = ("self_aux", "other_clip", "own_data", "single_layer", "dlm")  # whose prompts are made from clips


def used(task: str, row: str, aux: Sequence[str]) -> tuple[str, ...]:
    """Return the tasks whose frozen models a row uses beside the primary.

    >>> used("recognition", "mvlpt", ["segmentation"]), used("recognition", "dlm", ["segmentation"])
    (('spatial_action',), ('segmentation',))
    """
    if row in MAPPED:
        return () if row == "self_aux" else tuple(aux)
    return {"hps": SHARING, "mvlpt": (next_task(task),)}.get(row, ())


def legal(task: str) -> tuple[str, ...]:
    """Return the rows that a task can have.

    >>> set(ROWS) - set(legal("segmentation"))
    {'hps'}
    """
    return tuple(name for name in ROWS if name != "hps" or task in SHARING)
