"""The MLP ablation's prompts and counts; values and gradients through a CLIP are in test_parity.py."""

import jax
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.methods import METHODS
from jax_promptmtl.methods.mlp import ProjectedPrompts

VIT_B16 = {"text": (12, 512), "image": (12, 768)}
TINY = {"text": (3, 8), "image": (4, 12)}


@pytest.mark.parametrize(("length", "bias", "total"), [(4, True, 3_959_808), (8, False, 3_956_736)])
def test_counts_at_vit_b16_are_the_papers(length, bias, total):
    method = ProjectedPrompts(VIT_B16, length, source_width=256, depth=12, bias=bias)
    params = jax.eval_shape(method.init, jax.random.key(0))["params"]
    assert tree.count(params) == total
    assert set(params) == {"source", "text", "image"}


@pytest.mark.parametrize("bias", [True, False])
def test_both_towers_get_maps_of_one_source_per_layer(bias):
    prompts, variables = jax.jit(ProjectedPrompts(TINY, 2, 5, 3, bias).init_with_output)(jax.random.key(0))
    params = variables["params"]
    for tower, width in (("text", 8), ("image", 12)):
        assert sorted(prompts[tower]) == [0, 1, 2]
        assert set(params[tower]) == ({"kernel", "bias"} if bias else {"kernel"})
        for k in range(3):
            expected = np.asarray(params["source"]["tokens"][k]) @ np.asarray(params[tower]["kernel"][k])
            expected = expected + (np.asarray(params[tower]["bias"][k]) if bias else 0)
            assert prompts[tower][k].shape == (2, width)
            np.testing.assert_allclose(prompts[tower][k], expected, rtol=1e-5, atol=1e-6)


def test_a_depth_beyond_the_shallower_tower_is_an_error():
    with pytest.raises(UserError, match="depth 4 does not fit the text tower; give 1 to 3 layers"):
        ProjectedPrompts(TINY, 2, 5, 4).init(jax.random.key(0))


def test_it_is_the_method_named_mlp():
    assert METHODS["mlp"] is ProjectedPrompts
