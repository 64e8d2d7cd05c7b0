"""The tuning job: measure zero-shot, find the task groups, train the method, evaluate, report."""

import dataclasses
import math
import pathlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError, pick, some
from jax_promptmtl.core.problem import Problem
from jax_promptmtl.data import sampler, suites
from jax_promptmtl.data.preprocess import Preprocess
from jax_promptmtl.data.source import Suite
from jax_promptmtl.data.suites.drawn import fewer, late, untested
from jax_promptmtl.engine import checkpoint, loop, processes
from jax_promptmtl.engine.meter import shares
from jax_promptmtl.experiments.image.job import Job, Outcome
from jax_promptmtl.methods import grouping
from jax_promptmtl.methods.clustering import Groups, Partition, Rule, partition
from jax_promptmtl.models.clip.load import load
from jax_promptmtl.models.clip.model import Backbone
from jax_promptmtl.problems import templates
from jax_promptmtl.reporting import figures
from jax_promptmtl.reporting.card import write_card

BEFORE = "zero-shot"
ZERO_SHOT = {"method": {"name": "none"}, "sharing": {}, "tune": ()}
RANKING = 6  # partitions that grouping.json lists


def run(config: Any, workdir: pathlib.Path, *, dry_run: bool) -> None:
    """Run the job of a config into a work directory; with `dry_run`, only say what it would train."""
    start = time.perf_counter()
    pick(config.stage, ("train", "evaluate"), "stage")
    job = prepare(config, workdir)
    job.seconds["loading"] = time.perf_counter() - start
    refuse(job)
    if dry_run:
        describe(job)
        return
    for name, part in trainings(job).items():
        checkpoint.require_same_config(workdir / "checkpoints" / name, plan(job, part))
    with job.timed("zero-shot"):
        before = measure_before(job)
    groups, learned = find_groups(job)
    outcome = measure(job, groups)
    if processes.first():
        from jax_promptmtl.experiments.image import results  # only now: a dry run does not wait for matplotlib

        results.publish(job, {BEFORE: before, config.title: outcome.counts}, outcome, learned)


def measure_before(job: Job) -> dict[str, np.ndarray]:
    """Return the counts of the backbone as it is."""
    none = job.problem(ZERO_SHOT, whole(job))
    return job.evaluate(none, none.params)


def measure(job: Job, groups: Groups) -> Outcome:
    """Train the method of a config with given task groups, and evaluate it."""
    problem = job.problem(job.config, groups)
    trained = loop.Result(problem.params, 0, None, 0.0, 0.0)
    with job.timed("training"):
        if problem_trains(problem):
            trained = train(job, problem, job.config, "train")
    with job.timed("evaluation"):
        counts = job.evaluate(problem, trained.params)
    if trained.step:
        describe_checkpoint(job, problem, job.config, "train", counts)
    sizes = tree.count(problem.params), trained_size(problem)
    return Outcome(counts, *sizes, trained.step, trained.images_per_second, problem, trained.params)


def prepare(config: Any, workdir: pathlib.Path) -> Job:
    """Load data and backbone, and say what they are."""
    templates.resolve(config.template)  # a mistake is said before data are read
    with processes.in_turn("data"):
        suite = suites.build(config.suite)
    backbone = reads(load(config.backbone.path, config.backbone.activation, config.backbone.tokenizer), suite)
    preprocess = Preprocess(**backbone.preprocess, **config.augment)
    processes.require_same("Data or weights", [suite.name, suite.split_hash, backbone.sha256])
    job = Job(config, workdir, suite, backbone, preprocess, quiet=not processes.first())
    job.say(f"suite {suite.name}: " + "; ".join(describe_task(task) for task in suite.tasks))
    if suite.left_out:
        job.say(f"left out {len(suite.left_out):,} images that cannot be read: {some(suite.left_out)}")
    if suite.unused:
        job.say(f"not used: {late(suite.unused)}")
    for note in filter(None, [*suite.notes, fewer(suite, config.suite.get("shots", 0)), untested(suite)]):
        job.say(f"note: {note}")
    for part in trainings(job).values():
        if note := rounded(job, part):
            job.say(f"note: {note}")
    job.say(f"backbone {backbone.name}: {tree.count(backbone.params):,} parameters, {backbone.config.image_size} px")
    return job


class NoBackbone(UserError):
    """The weights that a config names cannot be loaded."""


def on_trial(config: Any, suite: Suite) -> Job:
    """Return a silent job that is not to run, of data that are there already; see `refuse`.

    Raises:
      NoBackbone: the weights cannot be loaded.
    """
    templates.resolve(config.template)
    config = config.copy_and_resolve_references()
    config.stage = "train"
    try:
        backbone = reads(load(config.backbone.path, config.backbone.activation, config.backbone.tokenizer), suite)
    except UserError as error:
        raise NoBackbone(str(error)) from None
    return Job(config, pathlib.Path(), suite, backbone, Preprocess(**backbone.preprocess, **config.augment), quiet=True)


def reads(backbone: Backbone, suite: Suite) -> Backbone:
    """Return a backbone whose pixels are read as the suite's, which its checkpoints then tell."""
    return dataclasses.replace(backbone, preprocess=backbone.preprocess | suite.reading.options)


def describe_task(task: Any) -> str:
    """Return the name and sizes of a task."""
    return f"{task.name} {len(task.class_names)} classes, {len(task.train)} train, {len(task.test)} test"


def whole(job: Job) -> Groups:
    """Return one group of all tasks."""
    return (tuple(range(len(job.tasks))),)


def problem_trains(problem: Problem) -> bool:
    """Return whether there is anything to train."""
    return tree.count(problem.params) > 0


def plan(job: Job, part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the loop's config of a section: its `train` entries, steps from epochs, and what identifies the run."""
    options = dict(part["train"])
    options["batch_size"] = batch_size(job, part)
    images = sum(len(task.train) for task in job.suite.tasks)
    steps_per_epoch = max(images // options["batch_size"], 1)  # a last short batch is dropped
    identity = {key: part[key] for key in ("method", "sharing", "tune")}
    run = {"seed": job.config.seed, "parallel": job.config.parallel, "evaluate_every": 0}
    steps = {"steps_per_epoch": steps_per_epoch, "steps": options["epochs"] * steps_per_epoch}
    return options | identity | run | steps | {"augment": dict(job.config.augment)}


def batch_size(job: Job, part: Mapping[str, Any]) -> int:
    """Return the images of a batch: as the config says, or the nearest number that tasks divide where all are in it.

    A number that the processes do not divide is refused later, unless it has to be another one anyhow.
    """
    wanted, tasks = part["train"]["batch_size"], len(job.tasks)
    if wanted < 1:
        raise UserError(f"{section(job, part)}.batch_size is {wanted}; use at least 1.")
    if part["train"]["sampler"] != "stratified" or wanted % tasks == 0:
        return wanted
    unit = math.lcm(tasks, processes.part()["process_count"])
    return max(1, round(wanted / unit)) * unit


def section(job: Job, part: Mapping[str, Any]) -> str:
    """Return what messages call the training of a part of the config."""
    return "config.train" if part is job.config else "config.grouping.train"


def rounded(job: Job, part: Mapping[str, Any]) -> str:
    """Return in words that batches have another size than the config says; "" where they do not."""
    size, wanted = batch_size(job, part), part["train"]["batch_size"]
    if size == wanted:
        return ""
    key = f"{section(job, part)}.batch_size"
    return f"{key} is {size} and not {wanted}, so that a batch has as many images of each of the {len(job.tasks)} tasks"


def train(job: Job, problem: Problem, part: Mapping[str, Any], name: str, **observers: Any) -> loop.Result:
    """Train a problem as its section says, or evaluate-only: restore what an earlier run trained to the end."""
    settings = plan(job, part)
    if job.config.stage == "evaluate":
        require_finished(job.workdir, name, settings["steps"])
    suite = job.inputs(problem, "train")
    stream = partial(training_batches, job, suite, settings)
    names = partial(sampler.example_names, suite, order=data_order(job, settings))
    trained = loop.train(problem, stream, settings, job.workdir, name=name, hooks=loop.Hooks(names, **observers))
    describe_checkpoint(job, problem, part, name)
    job.say("time: " + ", ".join(f"{kind} {share:.0%}" for kind, share in shares(trained.spent).items()))
    return trained


def describe_checkpoint(job: Job, problem: Problem, part: Mapping[str, Any], name: str, counts: Any = None) -> None:
    """Write the model card of a training."""
    if processes.first():
        what = {"train": job.config.title}.get(name, "Prompts that group the tasks, trained for all of them")
        about = {"about": problem.about, "params": problem.params, "config": plan(job, part), "counts": counts}
        write_card(job.workdir / "checkpoints" / name, title=f"{what}: {job.suite.name}", use=name == "train", **about)


def training_batches(
    job: Job, suite: Suite, settings: Mapping[str, Any], start_step: int
) -> Iterator[dict[str, np.ndarray]]:
    """Return the training batches of a plan from a step on."""
    order = data_order(job, settings)
    return sampler.batches(suite, job.preprocess, order, start_step=start_step, workers=job.config.workers)


def data_order(job: Job, settings: Mapping[str, Any]) -> sampler.Order:
    """Return what fixes which images are in this process's part of a step's batch."""
    kind, reduction = settings["sampler"], settings["reduction"]
    return sampler.Order(settings["batch_size"], job.config.seed, kind, reduction, **processes.part())


def refuse(job: Job) -> None:
    """Refuse, before anything is computed, what cannot work: a method, or the evaluation of what was not trained."""
    if job.config.grouping.source == "given":
        check_groups(job.config.grouping.groups, job.tasks)
    if learns_groups(job):
        require_snapshots(job.config.grouping)
    templates.require_apart(job.backbone, job.suite.tasks, templates.resolve(job.config.template))
    try:
        options = {"batch_size": job.config.evaluation_batch_size, **processes.part()}
        sampler.evaluation_batches(job.suite, job.preprocess, **options)
    except UserError as error:
        raise UserError(f"config.evaluation_batch_size: {error}") from None
    for name, part in trainings(job).items():
        problem = job.problem(part, whole(job))
        if problem_trains(problem):
            require_training(job, part)
            if job.config.stage == "evaluate":
                require_finished(job.workdir, name, plan(job, part)["steps"])


def require_training(job: Job, part: Mapping[str, Any]) -> None:
    """Refuse what a training would refuse when it asks for its first batch."""
    for task in job.suite.tasks:
        if not len(task.train):
            raise UserError(
                f"Task {task.name!r} has no images to train; give some, or only evaluate, with config.method.name=none "
                "and config.grouping.source=one, such as configs/clip.py:zero_shot."
            )
    settings = plan(job, part)
    try:
        sampler.batches(job.suite, job.preprocess, data_order(job, settings))
    except UserError as error:
        raise UserError(f"{section(job, part)}: {error}") from None


def require_snapshots(options: Any) -> None:
    """Refuse a grouping whose training ends with its warm-up, so that no gradients would be left to compare."""
    if options.train.epochs <= options.warmup_epochs:
        raise UserError(
            f"config.grouping.train.epochs is {options.train.epochs}, and gradients count after "
            f"{options.warmup_epochs:g} epochs; train longer, or lower config.grouping.warmup_epochs."
        )


def trainings(job: Job) -> dict[str, Any]:
    """Return name -> section of the config, of what a run trains."""
    return {"global": job.config.grouping, "train": job.config} if learns_groups(job) else {"train": job.config}


def require_finished(workdir: pathlib.Path, name: str, steps: int) -> None:
    """Refuse to evaluate what was never trained to its end."""
    reached = [int(path.name) for path in (workdir / "checkpoints" / name).glob("*") if path.name.isdigit()]
    if steps not in reached:
        other = f", only one that reached {max(reached):,}" if reached else ""
        raise UserError(
            f"{workdir} holds no finished training {name!r} of {steps} steps{other}; run with --config.stage=train, or "
            "with the options of the training."
        )


def learns_groups(job: Job) -> bool:
    """Return whether the task groups come from a training of their own."""
    source = pick(job.config.grouping.source, ("learn", "random", "one", "given"), "grouping source")
    return source in ("learn", "random") and len(job.tasks) > 1


def find_groups(job: Job) -> tuple[Groups, dict[str, Any] | None]:
    """Return the task groups that the config asks for, and the content of grouping.json where they were learned."""
    source = job.config.grouping.source
    if source == "given":
        return check_groups(job.config.grouping.groups, job.tasks), None
    if not learns_groups(job):
        return whole(job), None
    with job.timed("task grouping"):
        similarity, found, content = learn_groups(job)
        if processes.first():
            grouping.save(job.workdir / "grouping.json", content)
            draw_groups(job, similarity, found)
    job.say("groups: " + spell(found.groups, job.tasks))
    groups = drawn_groups(job.config, found.groups)
    if source == "random":
        job.say("random groups instead: " + spell(groups, job.tasks))
    return groups, content


def drawn_groups(config: Any, learned: Groups) -> Groups:
    """Return the learned groups, or random ones of the same sizes where the config wants those."""
    return grouping.random_groups(learned, config.seed) if config.grouping.source == "random" else learned


def spell(groups: Groups, tasks: Sequence[str]) -> str:
    """Return groups as text.

    >>> spell(((0, 2), (1,)), ("ink", "oil", "wax"))
    'ink + wax; oil'
    """
    return "; ".join(" + ".join(tasks[task] for task in group) for group in groups)


def check_groups(named: Iterable[Iterable[str]], tasks: tuple[str, ...]) -> Groups:
    """Return groups given by task names as task numbers."""
    named = [list(group) for group in named]
    if sorted(name for group in named for name in group) != sorted(tasks):
        raise UserError(f"config.grouping.groups is {named}; it must hold each of the tasks {', '.join(tasks)} once.")
    return tuple(tuple(tasks.index(name) for name in group) for group in named)


def learn_groups(job: Job) -> tuple[grouping.Similarity, Partition, dict[str, Any]]:
    """Train the global prompts, take gradient snapshots, search the best partition (eq. 8).

    Returns:
      The snapshots, what was found, and the content of grouping.json.
    """
    options = job.config.grouping
    settings = plan(job, options)
    similarity = grouping.Similarity(
        job.tasks, settings["steps_per_epoch"], round(options.warmup_epochs * settings["steps_per_epoch"])
    )
    observers = {"observe": grouping.observe, "on_observed": similarity.add_observed}
    train(job, job.problem(options, whole(job), task_gradients=True), options, "global", **observers)
    rule = Rule(options.objective, options.num_groups or None, options.singletons)
    found = partition(similarity.matrix(options.similarity), rule, top=RANKING)
    share = grouping.stability(similarity, found.groups, options.similarity, rule)
    return similarity, found, grouping.report(similarity, found, kind=options.similarity, stable=share, rule=rule)


def draw_groups(job: Job, similarity: grouping.Similarity, found: Partition) -> None:
    """Draw what the grouping saw."""

    folder = job.workdir / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    matrices = {"dot product (eq. 8)": similarity.matrix("dot"), "cosine": similarity.matrix("cosine")}
    figures.heat_map(folder / "similarity.png", job.tasks, matrices, found.groups)
    figures.similarity_curves(folder / "similarity_epochs.png", job.tasks, *similarity.per_epoch(), found.groups)
    figures.partition_bars(folder / "partitions.png", job.tasks, found.ranking, job.config.grouping.objective)


def describe(job: Job) -> None:
    """Print parameters, batch shapes and the compiled step's memory; train nothing."""
    source = job.config.grouping.source
    groups = check_groups(job.config.grouping.groups, job.tasks) if source == "given" else whole(job)
    problem = job.problem(job.config, groups)
    trainable, total = tree.count(problem.params), trained_size(problem)
    print(
        f"trainable: {trainable:,} of {total:,} parameters"
        + ("" if source != "learn" else ", with one group of all tasks")
    )
    for path, leaf in tree.flatten(problem.params).items():
        if leaf is not None:
            print(f"  {path}: {'x'.join(map(str, leaf.shape))}")
    if problem_trains(problem):
        settings = plan(job, job.config)
        batch = next(training_batches(job, job.suite, settings, 0))
        before = f", after {plan(job, job.config.grouping)['steps']:,} to group the tasks" if learns_groups(job) else ""
        print(f"steps: {settings['steps']:,}, {settings['steps_per_epoch']:,} per epoch{before}")
        print(f"memory of a step: {loop.memory(problem, batch, settings) / 2**20:,.0f} MiB")


def trained_size(problem: Problem) -> int:
    """Return the number of all parameters, trainable and frozen."""
    return tree.count(problem.params) + sum(tree.count(problem.frozen[part]) for part in problem.params)
