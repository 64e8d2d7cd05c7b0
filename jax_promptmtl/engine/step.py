"""One training step and one evaluation, as pure functions of a problem."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.outline import outline
from jax_promptmtl.core.problem import Batch, Problem
from jax_promptmtl.engine.parallel import Function, pad, parallelize, replicate

PyTree = Any
Observe = Callable[[PyTree, Batch], PyTree]


@flax.struct.dataclass
class State:
    """The training state, which a checkpoint saves.

    Attributes:
      step: int32[], steps taken.
      params: the trainable tree, `None` where frozen.
      opt: the optimiser's state of the trainable leaves.
    """

    step: Any
    params: PyTree
    opt: PyTree
    __repr__ = outline


def initial(problem: Problem, tx: optax.GradientTransformation) -> State:
    """Return the initial state in fresh buffers, so that a step may donate them."""
    params = jax.tree.map(jnp.array, problem.params)
    return State(jnp.zeros((), jnp.int32), params, tx.init(params))


def train_step(
    state: State,
    frozen: PyTree,
    batch: Batch,
    *,
    problem: Problem,
    tx: optax.GradientTransformation,
    key: jax.Array,
    axis_name: str | None = None,
    observe: Observe | None = None,
) -> tuple[State, dict[str, Any]]:
    """Take one step on the trainable parameters.

    Args:
      state: before the step.
      frozen: read-only parameters.
      batch: leading axis B, or this device's part of it where `axis_name` is given.
      problem: gives `expand` and `loss`.
      tx: from `optim.make`.
      key: the run's key; the step number is folded in.
      axis_name: the `pmap` axis over which the losses and gradients are summed.
      observe: pure function of the per-task gradients, summed over all devices, and the whole batch, with its padding
        (weight 0).

    Returns:
      The next state, and metrics: `loss` [], `grad_norm` [], `sums` (float[T] each) and, with `observe`, `observed`.
    """
    rng = jax.random.fold_in(key, state.step)
    total: Callable[[PyTree], PyTree] = lambda tree: tree  # noqa: E731
    whole = total
    if axis_name is not None:
        rng = jax.random.fold_in(rng, lax.axis_index(axis_name))  # different noise per device
        total = partial(lax.psum, axis_name=axis_name)
        whole = partial(lax.all_gather, axis_name=axis_name, tiled=True)
    per_task, collapse = jax.vjp(problem.expand, state.params)
    value_and_grad = jax.value_and_grad(problem.loss, has_aux=True)
    (loss, sums), per_task_grads = total(value_and_grad(per_task, frozen, batch, rng))
    (grads,) = collapse(per_task_grads)  # the transpose of expand: task gradients add up per slot
    updates, opt = tx.update(grads, state.opt, state.params)
    metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads), "sums": sums}
    if observe is not None:
        metrics["observed"] = observe(per_task_grads, whole(batch))
    return State(state.step + 1, optax.apply_updates(state.params, updates), opt), metrics


def step_of_runs(problem: Problem, tx: optax.GradientTransformation, observe: Observe | None = None) -> Function:
    """Return `train_step` as a function of (state, (key data, frozen), batch), to share across seeds.

    The key is an argument, not a constant, so that runs that differ only in their seed share one compiled program.
    """

    def step(state: State, given: tuple[jax.Array, PyTree], batch: Batch, axis_name: str | None = None) -> Any:
        data, frozen = given
        options = {"tx": tx, "key": jax.random.wrap_key_data(data), "axis_name": axis_name, "observe": observe}
        return train_step(state, frozen, batch, problem=problem, **options)

    return step


def predict_step(
    prepared: PyTree, frozen: PyTree, batch: Batch, *, problem: Problem, axis_name: str | None = None
) -> dict[str, jax.Array]:
    """Return the argmax class `prediction` int32[B], with `label`, `task` and `weight` of the rows.

    With the rows every process can score all examples. Examples do not interact, so nothing is reduced over an axis.
    """
    del axis_name
    prediction = jnp.argmax(problem.predict(prepared, frozen, batch), axis=-1).astype(jnp.int32)
    return {"prediction": prediction} | {key: jnp.asarray(batch[key]) for key in ("label", "task", "weight")}


def evaluator(
    problem: Problem, mode: str = "jit", devices: Sequence[jax.Device] | None = None
) -> Callable[..., dict[str, np.ndarray]]:
    """Compile the evaluation of a problem once, as a function of (params, frozen, batches); see `evaluate`.

    Every process passes its own batches, equally many, and gets the result over all of them.
    """
    prepare = jax.jit(lambda params, frozen: problem.prepare(problem.expand(params), frozen))
    predict = parallelize(partial(predict_step, problem=problem), mode, devices=devices, per_example=True)

    def run(params: PyTree, frozen: PyTree, batches: Iterable[Batch]) -> dict[str, np.ndarray]:
        params, frozen = replicate(params, devices), replicate(frozen, devices)
        prepared = prepare(params, frozen)
        found, size = [], 0
        for batch in batches:
            size = max(size, len(batch["weight"]))
            # One shape for all batches, including the short last one, is one compilation.
            rows = jax.device_get(predict(prepared, frozen, pad(batch, size)))
            real = rows.pop("weight") > 0
            found.append([rows[key][real] for key in ("prediction", "label", "task")])
        if not found:
            raise UserError("There is no example to evaluate; look at the test split of the data.")
        return tally(*map(np.concatenate, zip(*found, strict=True)), num_tasks=len(problem.tasks))

    return run


def tally(prediction: np.ndarray, label: np.ndarray, task: np.ndarray, *, num_tasks: int) -> dict[str, np.ndarray]:
    """Count the correct predictions per task.

    >>> tally(np.array([1, 2]), np.array([1, 0]), np.array([0, 0]), num_tasks=1)["accuracy"].tolist()
    [0.5]
    """
    count = np.bincount(task, minlength=num_tasks)
    correct = np.bincount(task[prediction == label], minlength=num_tasks)
    accuracy = correct / np.maximum(count, 1)
    return {"accuracy": accuracy, "correct": correct, "count": count, "prediction": prediction, "label": label}


def evaluate(
    problem: Problem,
    params: PyTree,
    frozen: PyTree,
    batches: Iterable[Batch],
    *,
    mode: str = "jit",
    devices: Sequence[jax.Device] | None = None,
) -> dict[str, np.ndarray]:
    """Predict every example once; examples of weight 0 are padding and not counted.

    Args:
      problem: gives `expand`, `prepare` (run once) and `predict` (run per batch).
      params: trainable tree.
      frozen: its complement.
      batches: host batches of any number of examples.
      mode: `jit` or `pmap`.
      devices: all by default.

    Returns:
      `accuracy` float[T], `correct` int[T], `count` int[T], and `prediction`, `label` int[all examples] in their order.
    """
    return evaluator(problem, mode, devices)(params, frozen, batches)
