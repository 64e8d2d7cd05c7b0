"""The training loop: drives any problem, and resumes without losing work.

The order is fixed: restore -> batch = data(step) -> step -> log -> evaluate -> checkpoint. The checkpoint comes last:
once it exists, everything logged before it is on disk, and anything logged after it is reproducible.
"""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, cast

import jax
import numpy as np

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import Preempted, UserError
from jax_promptmtl.core.locks import lock
from jax_promptmtl.core.outline import outline
from jax_promptmtl.core.problem import Batch, Problem
from jax_promptmtl.engine import optim, processes
from jax_promptmtl.engine.checkpoint import Checkpoints, plain
from jax_promptmtl.engine.diagnosis import Diverged, explain
from jax_promptmtl.engine.meter import Clock, Speed, shares, summarize
from jax_promptmtl.engine.parallel import parallelize, place, replicate, whole
from jax_promptmtl.engine.preemption import Stop, listen
from jax_promptmtl.engine.step import Observe, evaluator, initial, step_of_runs
from jax_promptmtl.engine.writer import Writer, progress

PyTree = Any
Measure = Callable[[PyTree], dict[str, float]]
Observed = Callable[[int, dict[str, np.ndarray]], None]
Every = Literal["log_every", "checkpoint_every", "evaluate_every"]
RUN_AHEAD = 2  # steps in flight on the device; more would only keep their batches in memory


class TrainingConfig(TypedDict):
    """The config keys that the loop reads.

    Attributes:
      seed: of all randomness.
      steps: optimiser steps of the whole run.
      steps_per_epoch: steps of one pass over the data.
      log_every: steps between two logged losses.
      checkpoint_every: steps between two checkpoints.
      evaluate_every: steps between two evaluations; 0 evaluates at the end only.
      parallel: see `parallelize`.
      optimizer: see `optim.make`.
    """

    seed: int
    steps: int
    steps_per_epoch: int
    log_every: int
    checkpoint_every: int
    evaluate_every: int
    parallel: str
    optimizer: optim.OptimizerConfig


@dataclass(frozen=True)
class Hooks:
    """Optional callbacks of a training.

    Attributes:
      examples: (steps done) -> names of the examples in the next batch, for messages.
      observe: see `train_step`; returns a dict of arrays.
      on_observed: called with (step, dict of float64 arrays) for every step in order; a resumed run calls it for the
        earlier steps as well, from what was written.
      evaluation: returns a fresh iterator of evaluation batches, whose accuracies are measured.
      measure: (params) -> metrics, in place of accuracies.
    """

    examples: Callable[[int], Sequence[str]] | None = None
    observe: Observe | None = None
    on_observed: Observed | None = None
    evaluation: Callable[[], Iterable[Batch]] | None = None
    measure: Measure | None = None


NO_HOOKS = Hooks()


@dataclass(frozen=True)
class Result:
    """The outcome of a training.

    Attributes:
      params: the trained tree on the host, `None` where frozen.
      step: steps done.
      evaluation: the last one: `accuracy`, the mean over tasks, and `accuracy/<task>`, or what `measure` returned;
        `None` without either.
      seconds: wall time of this process alone, not of earlier ones of a resumed run.
      images_per_second: training speed without compilation, evaluation and checkpoints; 0 if nothing was measured.
      spent: seconds in `steps`, waiting for `data`, in `compilation` (the first step), `evaluation` and
        `checkpoints`.
    """

    params: PyTree
    step: int
    evaluation: dict[str, float] | None
    seconds: float
    images_per_second: float
    spent: dict[str, float] = field(default_factory=dict)
    __repr__ = outline


def train(
    problem: Problem,
    batches: Callable[[int], Iterator[Batch]],
    config: Mapping[str, Any],
    workdir: str | os.PathLike[str],
    *,
    name: str,
    hooks: Hooks = NO_HOOKS,
) -> Result:
    """Train a problem to the end, resuming from its newest checkpoint.

    Args:
      problem: what to train.
      batches: (steps done) -> iterator of the following batches; a pure function of its argument and the seed.
      config: the keys of `TrainingConfig`; the rest is only stored with the checkpoints.
      workdir: gets `metrics.jsonl`, `tensorboard/<name>/`, `checkpoints/<name>/` and `observed/<name>.jsonl`.
      name: of this training, unique within the workdir.
      hooks: optional callbacks.

    Raises:
      UserError: nothing to train, no data, a damaged or foreign checkpoint, or a workdir in use.
      Diverged: the loss or its gradient is not finite; the message names step, tasks and examples.
      Preempted: a signal came; a checkpoint was saved.
    """
    if tree.count(problem.params) == 0:
        raise UserError(f"The training {name!r} has no trainable parameter; choose a method or give `tune` a pattern.")
    workdir = pathlib.Path(workdir)
    with contextlib.ExitStack() as stack:
        if processes.first():
            stack.enter_context(lock(workdir / "checkpoints" / f"{name}.lock"))
        processes.require_same("Config or data", plain({"config": config, "about": problem.about}))
        stop = stack.enter_context(listen())
        checkpoints = Checkpoints(workdir / "checkpoints" / name, config=config, about=problem.about)
        stack.callback(checkpoints.close)
        training = _Training(problem, batches, config, name, checkpoints, stop, hooks)
        training.restore(workdir, stack)
        return training.run()


def memory(problem: Problem, batch: Batch, config: Mapping[str, Any]) -> int:
    """Return the bytes of a compiled training step on one device: arguments, results and temporaries.

    Args:
      problem: what to train.
      batch: any batch of the right shapes.
      config: as for `train`.
    """
    plan = {"steps_per_epoch": config["steps_per_epoch"], "total_steps": config["steps"]}
    tx = optim.make(config["optimizer"], mask=problem.mask, **plan)
    given = (jax.random.key_data(jax.random.key(config["seed"])), problem.frozen)
    step = jax.jit(step_of_runs(problem, tx), donate_argnums=0)
    compiled = step.lower(initial(problem, tx), given, batch).compile()
    used: Any = compiled.memory_analysis()
    result: int = (
        used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes - used.alias_size_in_bytes
    )
    return result


class _Training:
    """The state of one call of `train`."""

    def __init__(
        self,
        problem: Problem,
        batches: Callable[[int], Iterator[Batch]],
        config: Mapping[str, Any],
        name: str,
        checkpoints: Checkpoints,
        stop: Stop,
        hooks: Hooks,
    ):
        self.problem, self.batches, self.name = problem, batches, name
        self.config = cast(TrainingConfig, config)
        self.checkpoints, self.stop, self.hooks = checkpoints, stop, hooks
        plan = {"steps_per_epoch": config["steps_per_epoch"], "total_steps": config["steps"]}
        self.rate = optim.schedule(config["optimizer"], **plan)
        tx = optim.make(config["optimizer"], mask=problem.mask, **plan)
        self.advance = parallelize(step_of_runs(problem, tx, hooks.observe), config["parallel"], donate=True)
        self.evaluate = evaluator(problem, config["parallel"])
        self.state = initial(problem, tx)
        self.frozen = replicate(problem.frozen)
        self.key = replicate(jax.random.key_data(jax.random.key(config["seed"])))
        self.step = 0
        self.pending: list[dict[str, Any]] = []  # metrics of the latest steps, still on the device
        self.window: list[dict[str, Any]] = []  # metrics on the host, since the last log
        self.evaluated: dict[str, float] | None = None
        self.speed = Speed()

    def restore(self, workdir: pathlib.Path, stack: contextlib.ExitStack) -> None:
        """Load the newest intact checkpoint, reopen the logs, which `stack` closes, and replay the observations."""
        found = self.checkpoints.restore(self.state)
        processes.require_same("The checkpoint", found and found[1])
        if found:
            self.state, meta = found
            self.step, self.evaluated, self.window = meta["step"], meta["metrics"], meta["progress"]["window"]
        self.state = place(self.state, self.config["parallel"])
        self.writer = Writer(workdir, self.name, step=self.step, evaluated=self.evaluated is not None)
        stack.callback(self.writer.close)
        self.require_observations(workdir, (found[1]["progress"] if found else {}).get("observed"))
        if self.hooks.on_observed is not None:
            for record in self.writer.observations:
                observed = {key: np.asarray(value) for key, value in record["observed"].items()}
                self.hooks.on_observed(record["step"], observed)
            processes.require_same("What is read from observed/", self.writer.observations)

    def require_observations(self, workdir: pathlib.Path, saved: dict[str, int] | None) -> None:
        """Refuse to resume unless the observations on disk are those of the checkpoint; old ones do not record them."""
        if self.hooks.on_observed is not None and saved is not None and saved != self.writer.tally():
            folder = workdir / "checkpoints" / self.name
            raise UserError(
                f"{workdir}/observed/{self.name}.jsonl is not what this training wrote; bring it back from a copy, or "
                f"delete {str(folder)!r} to train {self.name!r} again."
            )

    def run(self) -> Result:
        self.clock, total = Clock(), self.config["steps"]
        if self.step and self.evaluation_is_due():
            self.finish_step()  # a signal interrupted the evaluation before this checkpoint
        data = self.batches(self.step) if self.step < total else iter(())
        with progress(self.name, step=self.step, total=total) as self.bar:
            while self.step < total:
                self.take_step(data)
                if self.due("log_every"):
                    self.log()
                self.finish_step()
        params, spent = jax.device_get(whole(self.state.params)), self.clock.spent()
        speed = self.speed.images / self.speed.seconds if self.speed.seconds else 0.0
        return Result(params, self.step, self.evaluated, sum(spent.values()), speed, spent)

    def due(self, key: Every) -> bool:
        """Return whether a periodic action falls on this step; all are due at the last one."""
        every = self.config[key]
        return self.step == self.config["steps"] or (every > 0 and self.step % every == 0)

    def take_step(self, data: Iterator[Batch]) -> None:
        try:
            with self.clock.spending("data"):
                batch = next(data, None)
        except Exception:
            if self.step and self.stop.signal:
                self.finish_step()  # the workers that decode images received the signal too and died
            raise
        if batch is None:
            raise UserError(f"The data of {self.name!r} ended after {self.step} of {self.config['steps']} steps.")
        self.pending.append(self.advance_by(batch) if self.speed.running else self.advance_first(batch))
        self.step += 1
        if len(self.pending) > RUN_AHEAD:
            jax.block_until_ready(self.pending[-1 - RUN_AHEAD]["loss"])
        self.evaluated = None
        self.bar.update()

    def advance_by(self, batch: Batch) -> dict[str, Any]:
        self.speed.images += int(np.count_nonzero(batch["weight"])) * jax.process_count()
        self.state, metrics = self.advance(self.state, (self.key, self.frozen), batch)
        result: dict[str, Any] = metrics
        return result

    def advance_first(self, batch: Batch) -> dict[str, Any]:
        """Take the first step, which compiles, and start timing after it."""
        with self.clock.spending("compilation"):
            self.state, metrics = self.advance(self.state, (self.key, self.frozen), batch)
            jax.block_until_ready(metrics)
        self.speed.run()
        result: dict[str, Any] = metrics
        return result

    def fetch(self) -> None:
        """Transfer the pending metrics; the only place where the host blocks on the device."""
        first = self.step - len(self.pending) + 1
        for step, metrics in enumerate(jax.device_get(self.pending), first):
            self.require_finite(step, metrics)
            if "observed" in metrics:
                observed = {key: np.asarray(value, np.float64) for key, value in metrics["observed"].items()}
                self.writer.observed(step, observed)
                if self.hooks.on_observed:
                    self.hooks.on_observed(step, observed)
            self.window.append({key: np.asarray(metrics[key]).tolist() for key in ("loss", "grad_norm")})
            self.window[-1]["sums"] = {key: value.tolist() for key, value in metrics["sums"].items()}
        self.pending = []

    def require_finite(self, step: int, metrics: dict[str, Any]) -> None:
        for key in ("loss", "grad_norm"):
            if not np.isfinite(metrics[key]):
                batch = next(self.batches(step - 1))  # recomputed: a pure function of the step
                names = self.hooks.examples(step - 1) if self.hooks.examples else None
                raise Diverged(
                    f"{key} is {metrics[key]} at step {step} of {self.name!r} ("
                    f"{explain(batch, metrics['sums']['loss'], self.problem.tasks, names)}); lower "
                    f"optimizer.learning_rate or look at these examples; {self.checkpoints.newest()}."
                )

    def log(self) -> None:
        self.fetch()
        speed = self.speed.lap()
        values = summarize(self.window, self.problem.tasks)
        values["learning_rate"] = float(self.rate(self.step - 1))
        clock = {f"time/{kind}": share for kind, share in shares(self.clock.spent()).items()}
        self.writer.scalars(self.step, values, images_per_second=speed, **clock)
        shown = {key: f"{values[key]:.3f}" for key in ("loss", "accuracy") if key in values}
        self.bar.set_postfix(shown | {"images/s": f"{speed:.1f}"})
        self.window = []

    def evaluation_is_due(self) -> bool:
        wanted = self.hooks.evaluation is not None or self.hooks.measure is not None
        return wanted and self.evaluated is None and self.due("evaluate_every")

    def finish_step(self) -> None:
        """Evaluate and save if due, or if the run was asked to stop."""
        stopping = self.stop.asked()
        if stopping or self.evaluation_is_due() or self.due("checkpoint_every"):
            self.fetch()
            self.speed.pause()
            if self.evaluation_is_due():
                with self.clock.spending("evaluation"):
                    self.evaluated = self.evaluate_all()
            with self.clock.spending("checkpoints"):
                self.checkpoints.save(
                    self.state,
                    metrics=self.evaluated,
                    progress={"window": self.window, "observed": self.writer.tally()},
                )
            self.speed.run()
            stopping = self.stop.signal is not None
        if stopping:
            raise Preempted(
                f"{self.stop.signal} stopped {self.name!r} after step {self.step} of {self.config['steps']}; "
                "a checkpoint is saved, run the same command to go on."
            )

    def evaluate_all(self) -> dict[str, float] | None:
        """Return the metrics, or `None` if a signal interrupted the evaluation."""
        if self.hooks.evaluation is None:
            assert self.hooks.measure is not None
            values = self.hooks.measure(self.state.params)
            self.writer.evaluation(self.step, values)
            return values
        counts = self.evaluate(self.state.params, self.frozen, self.until_stopped(self.hooks.evaluation()))
        if self.stop.signal:
            return None
        values = {"accuracy": float(np.mean(counts["accuracy"]))}
        values |= {f"accuracy/{task}": float(a) for task, a in zip(self.problem.tasks, counts["accuracy"], strict=True)}
        self.writer.evaluation(self.step, values)
        return values

    def until_stopped(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            yield batch
            if self.stop.asked():
                return
