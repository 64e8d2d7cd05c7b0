import re
from functools import partial

import jax
import numpy as np
import optax
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.engine import optim, step
from jax_promptmtl.engine.parallel import make_mesh, pad, parallelize, place, replicate

LAYOUTS = {"one": ("jit", 1), "jit": ("jit", 8), "pmap": ("pmap", 8), "fsdp": ("fsdp", 4)}


@pytest.fixture(scope="module")
def trained():
    """Memory of the three layouts' results, computed once."""
    return {}


def observe(per_task_grads, batch):
    return {
        "prompt": per_task_grads["method"]["prompt"],
        "weight": batch["weight"].sum(),
        "labels": (batch["label"] * (batch["weight"] > 0)).sum(),
    }


def train(toy, layout, steps=6, size=18):
    mode, count = LAYOUTS[layout]
    devices = jax.devices()[:count]
    problem, config = toy["problem"](), toy["config"]()
    tx = optim.make(config["optimizer"], mask=problem.mask, steps_per_epoch=2, total_steps=steps)
    fn = partial(step.train_step, problem=problem, tx=tx, key=jax.random.key(0), observe=observe)
    fn = parallelize(fn, mode, devices=devices, donate=True)
    state, frozen = place(step.initial(problem, tx), mode, devices), replicate(problem.frozen, devices)
    history = []
    for number in range(steps):
        state, metrics = fn(state, frozen, toy["batch"](number, size))
        history.append(jax.device_get(metrics))
    kept = {leaf.addressable_shards[0].data.size / leaf.size for leaf in jax.tree.leaves(state) if leaf.size > 1}
    assert kept == {0.25 if mode == "fsdp" else 1.0}  # the share of parameters and momentum on a device
    return jax.device_get(state), jax.device_get(frozen), history


def cached(trained, toy, layout):
    if layout not in trained:
        trained[layout] = train(toy, layout)
    return trained[layout]


def assert_close(ours, theirs, tolerance=2e-6):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance), ours, theirs)


@pytest.mark.parametrize("layout", ["jit", "pmap", "fsdp"])
def test_many_devices_equal_one(trained, toy, layout):
    # 18 examples on 8 devices: the padding to 24 must not show either. SGD: a gradient 8 times too large would.
    assert jax.device_count() == 8
    one, many = cached(trained, toy, "one"), cached(trained, toy, layout)
    assert_close(many[0].params, one[0].params)
    assert_close(many[2], one[2])
    assert many[0].step == 6


@pytest.mark.parametrize("layout", LAYOUTS)
def test_frozen_leaves_are_bitwise_unchanged_and_trainable_ones_move(trained, toy, layout):
    state, frozen, _ = cached(trained, toy, layout)
    problem = toy["problem"]()
    assert tree.checksums(frozen) == tree.checksums(problem.frozen)
    before, after = tree.checksums(problem.params), tree.checksums(state.params)
    assert before.keys() == after.keys()
    assert all(before[path] != after[path] for path in before)


def test_the_problem_survives_donation(toy):
    problem = toy["problem"]()
    problem = type(problem)(**{**vars(problem), "params": jax.tree.map(jax.numpy.asarray, problem.params)})
    tx = optim.make(toy["config"]()["optimizer"], mask=problem.mask, steps_per_epoch=1, total_steps=1)
    fn = parallelize(
        partial(step.train_step, problem=problem, tx=tx, key=jax.random.key(0)),
        "jit",
        devices=jax.devices()[:1],
        donate=True,
    )
    fn(replicate(step.initial(problem, tx), jax.devices()[:1]), problem.frozen, toy["batch"](0))
    assert tree.checksums(problem.params) == tree.checksums(toy["problem"]().params)


def sent(text):
    """Return the shapes that the collectives of a compiled program send, one list for each."""
    found = re.findall(r"= (.*?) (?:all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)[\w-]*\(", text)
    return [sorted(re.findall(r"f32\[[\d,]*\]|s32\[[\d,]*\]|pred\[[\d,]*\]", shapes)) for shapes in found]


def test_a_step_sends_one_sum_of_the_per_task_gradients_and_nothing_else(toy):
    problem, config, mesh = toy["problem"](), toy["config"](), make_mesh()
    tx = optim.make(config["optimizer"], mask=problem.mask, steps_per_epoch=2, total_steps=6)
    fn = partial(step.train_step, problem=problem, tx=tx, key=jax.random.key(0))
    parts, copied = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in (("data",), ()))
    given = jax.device_put((step.initial(problem, tx), problem.frozen), copied)
    compiled = jax.jit(fn, out_shardings=copied).lower(*given, jax.device_put(toy["batch"](0, 24), parts)).compile()
    gradients, metrics = ["f32[4,5]", "f32[3,4,3]"], ["f32[]"] + ["f32[3]"] * 3
    assert sent(compiled.as_text()) == [sorted(gradients + metrics)]


def test_metrics_are_exact_sums(trained, toy):
    problem, batch = toy["problem"](), toy["batch"](0)
    logits = np.asarray(problem.predict(problem.expand(problem.params), problem.frozen, batch), np.float64)
    each = np.log(np.exp(logits).sum(-1)) - logits[np.arange(18), batch["label"]]
    for layout in LAYOUTS:
        metrics = cached(trained, toy, layout)[2][0]
        for task in range(3):
            mine = batch["task"] == task
            assert metrics["sums"]["count"][task] == mine.sum()
            assert metrics["sums"]["correct"][task] == (logits.argmax(-1) == batch["label"])[mine].sum()
            np.testing.assert_allclose(metrics["sums"]["loss"][task], each[mine].sum(), rtol=1e-5)
        np.testing.assert_allclose(metrics["loss"], each.mean(), rtol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_observed_gradients_are_those_of_each_task_alone(trained, toy, layout):
    problem, batch = toy["problem"](), toy["batch"](0)
    observed = cached(trained, toy, layout)[2][0]["observed"]
    np.testing.assert_allclose(observed["weight"], 1, rtol=1e-6)
    for task in range(3):
        alone = {**batch, "weight": batch["weight"] * (batch["task"] == task)}

        def loss(prompt, alone=alone):
            per_task = {"method": {"prompt": prompt}, "backbone": problem.params["backbone"]}
            return problem.loss(per_task, problem.frozen, alone, None)[0]

        expected = jax.grad(loss)(problem.params["method"]["prompt"][np.array([0, 1, 1])])
        np.testing.assert_allclose(observed["prompt"][task], expected[task], atol=1e-6)
        assert np.abs(expected[task]).max() > 1e-3


def test_the_gradient_norm_is_that_of_the_shared_parameters(trained, toy):
    problem, batch = toy["problem"](), toy["batch"](0)
    loss = lambda params: problem.loss(problem.expand(params), problem.frozen, batch, None)[0]  # noqa: E731
    expected = optax.tree.norm(jax.grad(loss)(problem.params))
    np.testing.assert_allclose(cached(trained, toy, "pmap")[2][0]["grad_norm"], expected, rtol=1e-5)


def test_pad_repeats_the_last_example_without_weight(toy):
    batch = toy["batch"](0, 5)
    longer = pad(batch, 8)
    assert {key: len(value) for key, value in longer.items()} == dict.fromkeys(batch, 8)
    np.testing.assert_array_equal(longer["image"][5:], np.repeat(batch["image"][4:], 3, axis=0))
    np.testing.assert_array_equal(longer["weight"], np.float32([0.2] * 5 + [0] * 3))
    np.testing.assert_array_equal(batch["weight"], np.float32([0.2] * 5))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_evaluation_counts_every_example_once(toy, layout):
    mode, count = LAYOUTS[layout]
    problem = toy["problem"]()
    batches = [toy["batch"](number, size) for number, size in enumerate((10, 10, 7))]
    batches[1]["weight"][3:5] = 0
    result = step.evaluate(problem, problem.params, problem.frozen, batches, mode=mode, devices=jax.devices()[:count])
    whole = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    whole = {key: np.delete(value, [13, 14], axis=0) for key, value in whole.items()}
    guess = np.argmax(problem.predict(problem.expand(problem.params), problem.frozen, whole), axis=-1)
    np.testing.assert_array_equal(result["prediction"], guess)
    for task in range(3):
        mine = whole["task"] == task
        assert result["count"][task] == mine.sum()
        assert result["correct"][task] == (guess == whole["label"])[mine].sum()
        assert result["accuracy"][task] == (guess == whole["label"])[mine].mean()
    assert result["count"].sum() == 25


def test_an_empty_evaluation_is_an_error(toy):
    problem = toy["problem"]()
    with pytest.raises(UserError, match="no example"):
        step.evaluate(problem, problem.params, problem.frozen, [])


def test_an_unknown_mode_is_an_error():
    with pytest.raises(UserError, match=r"Unknown parallel mode 'pmpa'.*Did you mean 'pmap'"):
        parallelize(lambda *_: None, "pmpa")
