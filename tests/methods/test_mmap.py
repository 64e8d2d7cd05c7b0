"""MmAP's prompts against numpy's Kronecker product, its parameter counts, and the facts behind its initialisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.methods import METHODS
from jax_promptmtl.methods.mmap import KroneckerPrompts
from jax_promptmtl.models.layers.transformer import LayerNorm, Pass, Transformer

VIT_B16 = {"text": (12, 512), "image": (12, 768)}
TINY = {"text": (2, 8), "image": (3, 12)}
SETS = ("group", "task")


def shapes(towers=VIT_B16, sets=SETS, length=14, rows=14, columns=128, **options):
    """Return the parameters' shapes; nothing is computed."""
    method = KroneckerPrompts(towers, sets, length, rows, columns, **options)
    return jax.eval_shape(method.init, jax.random.key(0))["params"]


@pytest.mark.parametrize(("length", "total"), [(14, 129_744), (16, 148_176)])
def test_the_presets_have_the_counts_of_the_spec(length, total):
    # paper_budget and wide: four tasks in two groups, so two group slots and four task slots.
    params = shapes(length=length, rows=length, columns=128)
    assert {name: leaf.shape for name, leaf in tree.flatten(params["task"]).items()} == {
        "source": (12, length, 128),
        "text": (12, 1, 4),
        "image": (12, 1, 6),
    }
    assert 2 * tree.count(params["group"]) + 4 * tree.count(params["task"]) == total


@pytest.mark.parametrize("layers", [9, 12])
@pytest.mark.parametrize(("b", "m", "n"), [(7, 7, 256), (11, 1, 8), (12, 12, 128), (18, 6, 256), (16, 8, 256)])
def test_one_set_counts_as_eq_6_and_7_imply(layers, b, m, n):
    params = shapes({"text": (layers, 512), "image": (layers, 768)}, ("global",), b, m, n)
    assert tree.count(params) * m * n == layers * ((m * n) ** 2 + 1280 * b)  # K (m n + 1280 b / (m n))


@pytest.mark.parametrize(("n", "tower", "width"), [(96, "text", 512), (512, "image", 768)])
def test_columns_that_do_not_divide_a_width_are_an_error(n, tower, width):
    with pytest.raises(UserError, match=rf"columns {n} must divide the {tower} width {width}; give "):
        shapes(columns=n)


def test_rows_that_do_not_divide_the_length_are_an_error():
    with pytest.raises(UserError, match=r"rows 4 must divide the prompt length 14\."):
        shapes(rows=4)


def test_it_is_the_method_named_mmap():
    assert METHODS["mmap"] is KroneckerPrompts


@pytest.mark.parametrize("order", ["scale_source", "source_scale"])
def test_prompts_are_numpys_kronecker_products_set_after_set(order):
    method = KroneckerPrompts(TINY, SETS, length=4, rows=2, columns=4, order=order)
    prompts, variables = jax.jit(method.init_with_output)(jax.random.key(0))
    params = variables["params"]
    assert {tower: sorted(layers) for tower, layers in prompts.items()} == {"text": [0, 1], "image": [0, 1, 2]}
    for tower, layers in prompts.items():
        for k, tokens in layers.items():
            scales = [np.asarray(params[name][tower][k]) for name in SETS]  # M_x,k, eq. 6-7
            sources = [np.asarray(params[name]["source"][k]) for name in SETS]  # P_s,k: both towers read the same
            pairs = zip(scales, sources, strict=True)
            products = [np.kron(m, p) if order == "scale_source" else np.kron(p, m) for m, p in pairs]
            np.testing.assert_array_equal(tokens, np.concatenate(products))


def test_sets_start_with_different_numbers():
    params = jax.jit(KroneckerPrompts(TINY, SETS, 4, 2, 4).init)(jax.random.key(0))["params"]
    for leaf in ("source", "text", "image"):
        assert not np.allclose(params["group"][leaf], params["task"][leaf])


def test_initial_deviations_are_those_of_the_options():
    params = jax.jit(KroneckerPrompts(VIT_B16, SETS, 16, 16, 128).init)(jax.random.key(1))["params"]["task"]
    np.testing.assert_allclose(np.std(params["source"]), 0.02, rtol=0.03)
    np.testing.assert_allclose(np.std(np.concatenate([params["text"], params["image"]], axis=2)), 1, rtol=0.3)
    small = jax.jit(KroneckerPrompts(VIT_B16, SETS, 16, 1, 8, 0.5, 0.1).init)(jax.random.key(1))["params"]["task"]
    np.testing.assert_allclose(np.std(small["source"]), 0.5, rtol=0.2)
    np.testing.assert_allclose(np.std(small["image"]), 0.1, rtol=0.05)


def test_small_scaling_matrices_sink_the_prompts_below_layer_norms_epsilon():
    # A prompt acts only through LN(P). With O(1) matrices its variance 4e-4 is far above epsilon 1e-5 and LN
    # normalises it; with 0.02 it is 1.6e-7, LN hardly lifts it, and its keys and values stay those of no prompt.
    norm = LayerNorm(use_bias=False, use_scale=False)

    def spread(scale_std):
        method = KroneckerPrompts(VIT_B16, ("set",), 16, 1, 8, scale_std=scale_std)
        prompts = jax.jit(method.init_with_output)(jax.random.key(0))[0]["image"]
        tokens = jnp.concatenate(list(prompts.values()))
        return float(tokens.var()), float(norm.apply({}, tokens).std())

    (small, below), (large, above) = spread(0.02), spread(1.0)
    np.testing.assert_allclose([small, large], [1.6e-7, 4e-4], rtol=0.5)
    assert below < 0.2 and above > 0.9


@pytest.fixture(scope="module")
def row_spread():
    """Return scaling matrices [K, b/m, D/n] -> the largest difference of their rows' gradients, and the largest."""
    width, source = 12, np.random.default_rng(0).normal(size=(2, 2, 4)).astype(np.float32)
    tower = Transformer(2, 3, "quick_gelu")
    x = np.random.default_rng(1).normal(size=(2, 5, width)).astype(np.float32)
    shapes = jax.eval_shape(lambda: tower.init(jax.random.key(0), x, None, Pass(at=1)))
    rng = np.random.default_rng(3)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), shapes)

    def loss(scale):
        prompts = {k: jnp.kron(scale[k], source[k]) for k in range(2)}
        return (jnp.sin(tower.apply(params, x, prompts, Pass(at=1))[:, 0]) * x[:, 1]).sum()

    gradient = jax.jit(jax.grad(loss))

    def spread(scale):
        rows = np.asarray(gradient(scale))
        return np.ptp(rows, axis=1).max(), np.abs(rows).max()

    return spread


def test_constant_scaling_matrices_tie_the_rows_of_the_image_prompts_for_ever(row_spread):
    # b = 6 > m = 2: equal rows of M get equal gradients because unmasked attention cannot tell the tokens apart.
    tied, size = row_spread(np.ones((2, 3, 3), np.float32))
    assert size > 1e-2 and tied < 1e-5 * size
    free, size = row_spread(np.random.default_rng(2).normal(size=(2, 3, 3)).astype(np.float32))
    assert free > 0.1 * size
