"""Nearest words against brute force, and the prompts of methods as the text tower gets them."""

import jax
import numpy as np
import pytest

from jax_promptmtl.inference import words
from jax_promptmtl.methods.make import make_method
from jax_promptmtl.models.clip.model import ClipConfig
from jax_promptmtl.models.clip.tokenizer import Tokenizer, learn_merges

CONFIG = ClipConfig(16, 8, 4, 64, 2, 1, 16, 99, 64, 2, 1, "quick_gelu")


def test_nearest_words_against_brute_force():
    tokenizer = Tokenizer(learn_merges(["cat dog café", "cat cat"], 30))
    table = np.random.default_rng(0).normal(size=(tokenizer.vocab_size, 8))
    among = words.vocabulary(tokenizer, table)
    assert {"cat", "dog", "café", "a"} <= set(among.words) and not {"ca", "<|endoftext|>"} & set(among.words)
    prompt = 7 * table[tokenizer.vocab["dog</w>"]]
    ((best, second),) = words.nearest(prompt[None], among, 2)
    assert best[0] == "dog" and best[1] == pytest.approx(1, abs=1e-5)
    ids = [tokenizer.encode(word)[0] for word in ("cat", "dog", "café")]
    others = {i: table[i] @ prompt / np.linalg.norm(table[i]) / np.linalg.norm(prompt) for i in ids}
    assert second[1] >= max(value for i, value in others.items() if i != ids[1]) - 1e-6
    assert 0.3 < words.chance(among) < 1


def test_a_random_direction_of_many_dimensions_is_near_no_word():
    axes = words.Vocabulary(tuple("abcd"), np.eye(4, 1000))
    assert words.chance(axes) < 0.1


@pytest.mark.parametrize(
    "method, shape",
    [
        ({"name": "mmap", "sets": ("group", "task"), "length": 2, "rows": 1, "columns": 16}, (2, 4, 64)),
        ({"name": "tokens", "length": {"text": 3}, "depth": {"text": 1}}, (2, 3, 64)),
        ({"name": "tokens", "length": {"image": 3}, "depth": {"image": 1}}, None),
        ({"name": "none"}, None),
    ],
)
def test_prompts_are_those_of_the_first_text_layer(method, shape):
    prompter = make_method(method, {"towers": CONFIG.towers, "embed_dim": 16})
    drawn = [prompter.init(jax.random.key(seed)).get("params", {}) for seed in range(2)]
    found = words.prompts(method, CONFIG, jax.tree.map(lambda *leaves: np.stack(leaves), *drawn))
    assert (None if found is None else found.shape) == shape
    for one, params in zip(found if shape else (), drawn, strict=False):
        np.testing.assert_allclose(one, prompter.apply({"params": params})["text"][0], atol=1e-6)
