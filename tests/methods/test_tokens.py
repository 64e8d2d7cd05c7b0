"""Free tokens: which layers and towers get them, counts at ViT-B/16, and the method without prompts."""

import jax
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.methods import METHODS
from jax_promptmtl.methods.none import NoPrompts
from jax_promptmtl.methods.tokens import TokenPrompts

VIT_B16 = {"text": (12, 512), "image": (12, 768)}
COUNTS = {
    "CoOp, 16 words": ({"text": 16}, {"text": 1}, 8_192),
    "VPT shallow, 8": ({"image": 8}, {"image": 1}, 6_144),
    "VPT deep, 8": ({"image": 8}, {"image": 12}, 73_728),
    "VPT deep, 18: the paper's .17M": ({"image": 18}, {"image": 12}, 165_888),
    "IVLP, 2 in 9 layers: 1280 b J": ({"text": 2, "image": 2}, {"text": 9, "image": 9}, 23_040),
    "IVLP, 16 in 12 layers": ({"text": 16, "image": 16}, {"text": 12, "image": 12}, 245_760),
    "deep text only": ({"text": 4}, {"text": 12}, 24_576),
    "different depths": ({"text": 4, "image": 8}, {"text": 1, "image": 12}, 75_776),
}


@pytest.mark.parametrize("case", COUNTS)
def test_counts_at_vit_b16(case):
    length, depth, total = COUNTS[case]
    params = jax.eval_shape(TokenPrompts(VIT_B16, length, depth).init, jax.random.key(0))["params"]
    assert tree.count(params) == total
    assert set(params) == set(length)


def test_the_first_layers_get_their_own_rows_of_the_parameter():
    method = TokenPrompts({"text": (3, 4), "image": (4, 6)}, {"text": 2, "image": 5}, {"text": 1, "image": 3})
    params = method.init(jax.random.key(0))["params"]
    prompts = method.apply({"params": params})
    assert {tower: sorted(layers) for tower, layers in prompts.items()} == {"text": [0], "image": [0, 1, 2]}
    for tower, layers in prompts.items():
        for k, tokens in layers.items():
            np.testing.assert_array_equal(tokens, params[tower]["tokens"][k])
    assert prompts["text"][0].shape == (2, 4) and prompts["image"][2].shape == (5, 6)


@pytest.mark.parametrize("std", [0.02, 0.5])
def test_the_initial_deviation_is_the_option(std):
    method = TokenPrompts(VIT_B16, {"image": 8}, {"image": 12}, std)
    np.testing.assert_allclose(np.std(method.init(jax.random.key(0))["params"]["image"]["tokens"]), std, rtol=0.02)


def test_the_towers_start_with_different_numbers():
    method = TokenPrompts({"text": (1, 4), "image": (1, 4)}, {"text": 2, "image": 2}, {"text": 1, "image": 1})
    params = method.init(jax.random.key(0))["params"]
    assert not np.allclose(params["text"]["tokens"], params["image"]["tokens"])


def test_no_prompts_has_neither_prompts_nor_parameters():
    prompts, variables = NoPrompts(VIT_B16).init_with_output(jax.random.key(0))
    assert prompts == {} and not variables


def test_the_table_names_the_classes():
    assert METHODS["tokens"] is TokenPrompts and METHODS["none"] is NoPrompts
