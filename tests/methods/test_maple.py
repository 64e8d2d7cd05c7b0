"""MaPLe's prompts and counts; values and gradients through a CLIP are in test_parity.py."""

import jax
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.methods import METHODS
from jax_promptmtl.methods.maple import CoupledPrompts

VIT_B16 = {"text": (12, 512), "image": (12, 768)}
TINY = {"text": (3, 8), "image": (3, 12)}


@pytest.mark.parametrize(
    ("length", "depth", "total"), [(2, 9, 3_555_072), (2, 12, 4_740_096), (2, 3, 1_185_024), (16, 12, 4_826_112)]
)
def test_counts_at_vit_b16(length, depth, total):
    params = jax.eval_shape(CoupledPrompts(VIT_B16, length, depth).init, jax.random.key(0))["params"]
    assert tree.count(params) == total == depth * (512 * length + 393_984)
    assert set(params) == {"text", "linear"}


def test_image_prompts_are_maps_of_the_text_prompts_of_the_first_layers():
    prompts, variables = jax.jit(CoupledPrompts(TINY, 4, 2).init_with_output)(jax.random.key(0))
    params = variables["params"]
    assert {tower: sorted(layers) for tower, layers in prompts.items()} == {"text": [0, 1], "image": [0, 1]}
    for k in range(2):
        text = np.asarray(params["text"]["tokens"][k], np.float64)
        np.testing.assert_array_equal(prompts["text"][k], params["text"]["tokens"][k])
        image = text @ np.asarray(params["linear"]["kernel"][k]) + np.asarray(params["linear"]["bias"][k])
        np.testing.assert_allclose(prompts["image"][k], image, rtol=1e-5, atol=1e-6)


def test_initial_values_are_those_of_torch():
    params = jax.jit(CoupledPrompts(VIT_B16, 8, 2).init)(jax.random.key(0))["params"]
    np.testing.assert_allclose(np.std(params["text"]["tokens"]), 0.02, rtol=0.03)
    for leaf in ("kernel", "bias"):  # U(-1/sqrt(512), 1/sqrt(512)) has the standard deviation 1/sqrt(3 * 512)
        values = np.asarray(params["linear"][leaf])
        assert 0.99 * 512**-0.5 < np.abs(values).max() <= 512**-0.5
        np.testing.assert_allclose(values.std(), (3 * 512) ** -0.5, rtol=0.03)
    assert not np.allclose(*params["linear"]["kernel"])


@pytest.mark.parametrize("depth", [0, 4])
def test_a_depth_that_the_towers_do_not_have_is_an_error(depth):
    with pytest.raises(UserError, match=rf"depth {depth} does not fit the \w+ tower; give 1 to 3 layers"):
        CoupledPrompts(TINY, 2, depth).init(jax.random.key(0))


def test_it_is_the_method_named_maple():
    assert METHODS["maple"] is CoupledPrompts
