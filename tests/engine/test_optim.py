import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.engine import optim


def config(**changes):
    values = {"name": "sgd", "learning_rate": 0.0035, "weight_decay": 5e-4, "momentum": 0.9, "clip": None}
    return values | {"schedule": "dassl_cosine", "warmup": 0.1, "b2": 0.98, "matrix_rms": 0.2} | changes


def run(tx, params, gradients):
    state = tx.init(params)
    for gradient in gradients:
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def test_dassl_table_is_that_of_torch():
    # specs: measured with torch, E=5, lr 0.0035
    measured = [1e-5, 0.0035, 0.0031658, 0.0022908, 0.0012092]
    np.testing.assert_allclose(optim.dassl_table(0.0035, 5), measured, atol=5e-8)


def test_dassl_schedule_holds_for_an_epoch_and_beyond_the_end():
    rate = optim.schedule(config(), steps_per_epoch=97, total_steps=5 * 97)
    table = optim.dassl_table(0.0035, 5)
    for step, epoch in ((0, 0), (96, 0), (97, 1), (2 * 97 - 1, 1), (2 * 97, 2), (5 * 97 - 1, 4), (5 * 97 + 50, 4)):
        assert float(rate(step)) == np.float32(table[epoch])
        assert float(jax.jit(rate)(step)) == np.float32(table[epoch])


def test_cosine_rises_linearly_and_ends_at_zero():
    rate = optim.schedule(config(schedule="cosine", learning_rate=1.0), steps_per_epoch=1, total_steps=100)
    np.testing.assert_allclose([rate(0), rate(4), rate(9), rate(10)], [0.1, 0.5, 1.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(rate(55), 0.5, rtol=1e-6)
    np.testing.assert_allclose(rate(99), (1 + math.cos(math.pi * 89 / 90)) / 2, rtol=1e-4)
    assert float(rate(100)) == pytest.approx(0, abs=1e-7)


def test_sgd_follows_torch():
    rng = np.random.default_rng(0)
    weight = start = rng.normal(size=(2, 3))
    gradients = rng.normal(size=(15, 2, 3))
    momentum = np.zeros_like(weight)
    for step, gradient in enumerate(gradients):  # torch.optim.SGD, dampening 0, no Nesterov, one Dassl epoch = 3 steps
        rate = optim.dassl_table(0.0035, 5)[step // 3]
        momentum = 0.9 * momentum + (gradient + 5e-4 * weight)
        weight = weight - rate * momentum
    tx = optim.make(config(), mask={"w": True}, steps_per_epoch=3, total_steps=15)
    ours, _ = run(tx, {"w": jnp.float32(start)}, [{"w": jnp.float32(g)} for g in gradients])
    np.testing.assert_allclose(ours["w"], weight, rtol=2e-6)
    assert np.abs(weight - start).max() > 0.01


def test_adamw_decays_matrices_only():
    tx = optim.make(config(name="adamw", weight_decay=0.1, schedule="constant"), **plan({"w": True, "bias": True}))
    params = {"w": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    moved, _ = run(tx, params, [jax.tree.map(jnp.zeros_like, params)])
    np.testing.assert_allclose(moved["w"], 1 - 0.0035 * 0.1, rtol=1e-6)
    np.testing.assert_array_equal(moved["bias"], 1)


def test_muon_orthogonalises_the_block_kernels_and_leaves_the_rest_to_adamw():
    params = {
        "transformer": {"blocks_0": {"mlp": {"kernel": jnp.ones((8, 4)), "bias": jnp.zeros(4)}}},
        "embedding": jnp.ones((8, 4)),
        "frozen": None,
    }
    mask = {"transformer": {"blocks_0": {"mlp": {"kernel": True, "bias": True}}}, "embedding": True, "frozen": False}
    rng = np.random.default_rng(0)
    gradient = jax.tree.map(lambda leaf: jnp.float32(rng.normal(size=leaf.shape)), params)
    settings = config(name="muon", learning_rate=1.0, weight_decay=0.0, schedule="constant")
    moved, _ = run(optim.make(settings, **plan(mask)), params, [gradient])
    delta = jax.tree.map(lambda new, old: np.asarray(old - new, np.float64), moved, params)
    singular = np.linalg.svd(delta["transformer"]["blocks_0"]["mlp"]["kernel"], compute_uv=False)
    # five Newton-Schulz steps bring every singular value near 1; times 0.2 * sqrt(8)
    assert np.all(np.abs(singular / (0.2 * math.sqrt(8)) - 1) < 0.4)
    # the first step of Adam with Nesterov's momentum: b1 * (1 - b1) / (1 - b1^2) + 1 times the gradient's sign
    first = 0.9 * 0.1 / (1 - 0.9**2) + 1
    np.testing.assert_allclose(delta["embedding"], first * np.sign(gradient["embedding"]), rtol=1e-4)
    bias = gradient["transformer"]["blocks_0"]["mlp"]["bias"]
    np.testing.assert_allclose(delta["transformer"]["blocks_0"]["mlp"]["bias"], first * np.sign(bias), rtol=1e-4)
    assert moved["frozen"] is None


def test_clip_bounds_the_global_norm():
    tx = optim.make(
        config(clip=1.0, weight_decay=0.0, momentum=0.0, schedule="constant"), **plan({"a": True, "b": True})
    )
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    moved, _ = run(tx, params, [{"a": jnp.float32([3.0]), "b": jnp.float32([4.0])}])
    np.testing.assert_allclose([moved["a"][0], moved["b"][0]], [-0.0035 * 0.6, -0.0035 * 0.8], rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_frozen_leaves_have_no_optimiser_state(name):
    params = {"w": jnp.ones((2, 2)), "frozen": None}
    state = optim.make(config(name=name), **plan({"w": True, "frozen": False})).init(params)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    assert any("'w'" in path for path in paths)
    assert not any("'frozen'" in path for path in paths)


def test_layers_below_learn_more_slowly_as_with_torch_parameter_groups():
    """AdamW in numpy with a rate per group, decay ** (L + 1 - i), which shrinks the weights of a group with it."""
    shapes = {
        "trunk/patch/kernel": 0,
        "trunk/transformer/blocks_0/mlp/fc/kernel": 1,
        "trunk/transformer/blocks_1/mlp/fc/kernel": 2,
        "trunk/transformer/blocks_2/mlp/fc/kernel": 3,  # frozen
        "pool/fc_norm/scale": 4,
        "pool/head/kernel": 4,
    }
    rng, frozen, decay, rate, shrink = (
        np.random.default_rng(0),
        "trunk/transformer/blocks_2/mlp/fc/kernel",
        0.65,
        0.1,
        0.05,
    )
    start = {path: rng.normal(size=(3,) if "norm" in path else (3, 2)) for path in shapes}
    gradients = [{path: rng.normal(size=value.shape) for path, value in start.items()} for _ in range(3)]
    wanted = {}
    for path, layer in shapes.items():
        value, first, second = start[path], 0.0, 0.0
        for step, gradient in enumerate((g[path] for g in gradients), 1):
            first, second = 0.9 * first + 0.1 * gradient, 0.98 * second + 0.02 * gradient**2
            ours = rate * decay ** (3 + 1 - layer)
            value = value * (1 - ours * shrink * (value.ndim > 1))
            value = value - ours * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.98**step)) + 1e-8)
        wanted[path] = value
    given = [
        tree.unflatten({k: None if k == frozen else jnp.float32(v) for k, v in g.items()}) for g in (start, *gradients)
    ]
    settings = config(name="adamw", learning_rate=rate, weight_decay=shrink, schedule="constant", layer_decay=decay)
    mask = tree.unflatten({path: path != frozen for path in shapes})
    found = tree.flatten(run(optim.make(settings, **plan(mask)), given[0], given[1:])[0])
    assert found.pop(frozen) is None
    for path, value in found.items():
        np.testing.assert_allclose(value, wanted[path], rtol=1e-5, atol=1e-6, err_msg=path)


def test_factors_are_rates_of_their_own_as_in_torch_parameter_groups():
    """Constant gradients, whose AdamW update is one rate after another, beside the decay of the same rate."""
    factors = ((".*resnet/.*", 0.1), (".*/offsets/.*", 0.5))
    tops = {"a/kernel": 1.0, "resnet/b/kernel": 0.1, "a/offsets/kernel": 0.5, "resnet/offsets/kernel": 0.05}
    params = tree.unflatten({f"primary/{path}": jnp.full((2, 2), 3.0) for path in tops})
    gradient = jax.tree.map(jnp.ones_like, params)
    settings = config(name="adamw", learning_rate=0.1, weight_decay=0.05, schedule="constant", factors=factors)
    found = tree.flatten(
        run(optim.make(settings, **plan(jax.tree.map(lambda _: True, params))), params, [gradient] * 3)[0]
    )
    for path, factor in tops.items():
        rate, value = 0.1 * factor, 3.0
        for _ in range(3):
            value = value - rate * (1 + 0.05 * value)
        np.testing.assert_allclose(found[f"primary/{path}"], value, rtol=1e-5, err_msg=path)
    with pytest.raises(UserError, match=r"'.\*trunk.\*' in optimizer.factors matches no weight; .* 'w'"):
        optim.make(config(factors=((".*trunk.*", 0.1),)), **plan({"w": True}))


def test_the_rate_drops_to_a_tenth_after_each_share_of_the_steps():
    rate = optim.schedule(
        config(schedule="drops", learning_rate=2.0, drops=(4 / 7, 6 / 7)), steps_per_epoch=10, total_steps=70
    )
    np.testing.assert_allclose(
        [rate(step) for step in (0, 39, 40, 59, 60, 69)], [2, 2, 0.2, 0.2, 0.02, 0.02], rtol=1e-6
    )
    assert float(
        optim.schedule(config(schedule="drops", drops=()), steps_per_epoch=10, total_steps=70)(69)
    ) == np.float32(0.0035)


@pytest.mark.parametrize(("decay", "message"), [(0.65, "has no blocks"), (0.0, "above 0"), (1.5, "above 0")])
def test_a_decay_that_cannot_be_is_an_error(decay, message):
    with pytest.raises(UserError, match=message):
        optim.make(config(layer_decay=decay), **plan({"w": True}))


@pytest.mark.parametrize("change", [{"name": "sdg"}, {"schedule": "cosin"}])
def test_a_wrong_name_suggests_the_right_one(change):
    with pytest.raises(UserError, match=r"Did you mean '(sgd|cosine)'"):
        optim.make(config(**change), **plan({"w": True}))


def test_no_step_is_an_error():
    with pytest.raises(UserError, match="0 steps"):
        optim.make(config(), mask={"w": True}, steps_per_epoch=3, total_steps=0)


def plan(mask):
    return {"mask": mask, "steps_per_epoch": 3, "total_steps": 15}
