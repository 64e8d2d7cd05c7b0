"""Task-specific parameters, equal numbers of every task, sum of task means: one run is as many separate runs."""

import dataclasses
from functools import partial
from itertools import islice

import jax
import numpy as np
import pytest

from jax_promptmtl.data import sampler
from jax_promptmtl.data.preprocess import Preprocess
from jax_promptmtl.engine import optim, step
from tests.tiny import FAST

STEPS = 3
METHODS = {
    "CoOp": (dict(name="tokens", length={"text": 3}, depth={"text": 1}), {"text": "task"}),
    "MaPLe": (dict(name="maple", length=2, depth=2), {"text": "task", "linear": "task"}),
}
COMMON = dict(schedule="constant", momentum=0.9, clip=None)
OPTIMISERS = {
    "sgd": COMMON | dict(name="sgd", learning_rate=0.05, weight_decay=5e-4),
    "adamw": COMMON | dict(name="adamw", learning_rate=1e-2, weight_decay=0.01, b2=0.999),
}


def train(problem, params, batches, optimiser):
    """Return the method's parameters after the batches."""
    tx = optim.make(optimiser, mask=problem.mask, steps_per_epoch=1, total_steps=STEPS)
    state = step.State(np.int32(0), params, tx.init(params))
    fn = jax.jit(partial(step.train_step, problem=problem, tx=tx, key=jax.random.key(0)), compiler_options=FAST)
    for batch in batches:
        state, _ = fn(state, problem.frozen, batch)
    return state.params["method"]


@pytest.mark.parametrize(("method", "optimiser"), [("CoOp", "sgd"), ("MaPLe", "adamw")])
def test_one_run_is_a_run_per_task(method, optimiser, build, suite):
    preprocess = Preprocess(8, scale=(0.5, 1.0))
    order = sampler.Order(4, 0, "stratified", "sum_of_task_means")
    suite = dataclasses.replace(suite, tasks=suite.tasks[:2])
    batches = list(islice(sampler.batches(suite, preprocess, order), STEPS))
    together = build(*METHODS[method], tasks=suite.tasks)
    trained = train(together, together.params, batches, OPTIMISERS[optimiser])
    for number, task in enumerate(suite.tasks):
        alone = build(*METHODS[method], tasks=[task])
        mine = jax.tree.map(lambda leaf, t=number: leaf[t : t + 1], together.params)
        rows = [batch["task"] == number for batch in batches]
        assert all(row.sum() == 2 for row in rows)
        cut = [{key: value[row] for key, value in batch.items()} for batch, row in zip(batches, rows, strict=True)]
        cut = [batch | {"task": np.zeros(2, np.int32), "weight": np.full(2, 1 / 2, np.float32)} for batch in cut]
        expected = train(alone, mine, cut, OPTIMISERS[optimiser])
        ours = jax.tree.map(lambda leaf, t=number: leaf[t : t + 1], trained)
        moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), expected, mine["method"])
        assert min(jax.tree.leaves(moved)) > 1e-4
        # AdamW divides by the size of the gradient, so that rounding weighs more where that is small.
        atol = {"sgd": 2e-6, "adamw": 2e-4}[optimiser]
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=atol), ours, expected)
