"""Where the class token looks, against the tower written out in numpy, block by block."""

import jax
import numpy as np
import pytest

from jax_promptmtl.inference import attention
from jax_promptmtl.models.clip.model import CLIP, ClipConfig
from tests.models.layers.test_transformer import HEADS, LAYERS, WIDTH, block, layer_norm, linear

CONFIG = ClipConfig(8, 8, 4, WIDTH, LAYERS, HEADS, 5, 9, 8, 1, 1, "quick_gelu")
PATCHES = 4


@pytest.fixture(scope="module")
def weights():
    """Return parameters that are all drawn, so that none is 0 or 1."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(CLIP(CONFIG).init, jax.random.key(0), np.zeros((1, 8, 8, 3)), np.zeros((1, 3), int))
    return jax.tree.map(lambda leaf: rng.normal(0, 0.4, leaf.shape).astype(np.float32), shapes["params"])


def expected(weights, image, prompts):
    """Return the class token's attention to the patches of one image, float[2, 2]; prompts: layer -> float[P, D]."""
    tower = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), weights["image"])
    tiles = image.reshape(2, 4, 2, 4, 3).swapaxes(1, 2).reshape(PATCHES, -1)
    patches = tiles @ tower["patch"]["kernel"].reshape(-1, WIDTH)
    x = layer_norm(np.concatenate([tower["cls"][None], patches]) + tower["position"], tower["ln_pre"])
    first, slot, rest = x[:1], x[:0], x[1:]
    for k in range(LAYERS):
        if k in prompts:
            slot = layer_norm(prompts[k], tower["ln_pre"]) if k == 0 else prompts[k]
        x, w = np.concatenate([first, slot, rest]), tower["transformer"][f"blocks_{k}"]
        if k + 1 < LAYERS:
            y = block(x, w, "quick_gelu", causal=False)
            first, slot, rest = y[:1], y[1:-PATCHES], y[-PATCHES:]
    normal, size, heads = layer_norm(x, w["ln_1"]), WIDTH // HEADS, []
    query, key = linear(normal[0], w["attn"]["query"]), linear(normal, w["attn"]["key"])
    for part in (slice(head * size, (head + 1) * size) for head in range(HEADS)):
        raised = np.exp(key[:, part] @ query[part] / np.sqrt(size))
        heads.append(raised / raised.sum())
    return np.mean(heads, axis=0)[-PATCHES:].reshape(2, 2)


@pytest.mark.parametrize("layers", [(), (0,), (1,), (0, 1, 2), (2,)])
def test_attention_is_that_of_the_tower_written_out(weights, layers):
    rng = np.random.default_rng(1)
    image = rng.normal(size=(3, 8, 8, 3)).astype(np.float32)
    prompts = {k: rng.normal(size=(2, 3, WIDTH)).astype(np.float32) for k in layers}  # of two tasks
    task = np.array([1, 0, 1])
    found = attention.attention(CONFIG, weights, prompts, image, task)
    own = [{k: tokens[t] for k, tokens in prompts.items()} for t in task]
    assert found.shape == (3, 2, 2)
    for one, picture, some in zip(found, image, own, strict=True):
        np.testing.assert_allclose(one, expected(weights, picture, some), atol=2e-5)


def test_prompts_without_rows_are_those_of_every_image(weights):
    rng = np.random.default_rng(2)
    image, tokens = rng.normal(size=(2, 8, 8, 3)).astype(np.float32), rng.normal(size=(3, WIDTH)).astype(np.float32)
    found = attention.attention(CONFIG, weights, {2: tokens}, image)
    np.testing.assert_allclose(found[1], expected(weights, image[1], {2: tokens}), atol=2e-5)
