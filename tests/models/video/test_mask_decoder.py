"""The mask decoder against Hugging Face's, its size, and where its queries may look."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.models.video.mask_decoder import MaskDecoder, MaskDecoderConfig, shown
from tests import mask2former
from tests.weights import draw, fast

TINY = MaskDecoderConfig(width=32, heads=4, inner=24, layers=4, queries=6, mask_width=8, classes=3)


def inputs():
    rng = np.random.default_rng(0)
    sizes = ((2, 3), (4, 6), (8, 12))
    maps = [rng.standard_normal((2, *size, TINY.width)).astype(np.float32) for size in sizes]
    return maps, rng.standard_normal((2, 16, 24, TINY.mask_width)).astype(np.float32)


def test_parity_with_transformers():
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerTransformerModule

    params = draw(MaskDecoder(TINY), *inputs())
    classify = params["say"].pop("classify")  # theirs is outside this module
    rows = [("queries_embedder.weight", "place"), ("queries_features.weight", "query"), ("level_embed.weight", "level")]
    for i in range(TINY.layers):
        theirs, ours = f"decoder.layers.{i}", f"blocks_{i}"
        for kind in ("weight", "bias"):
            ours_kind = "kernel" if kind == "weight" else kind
            paths = tuple(f"{ours}/cross/attn/{name}/{ours_kind}" for name in ("query", "key", "value"))
            rows.append((f"{theirs}.cross_attn.in_proj_{kind}", paths))
        rows += mask2former.affine(f"{theirs}.cross_attn.out_proj", f"{ours}/cross/attn/out")
        for name, path in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"), ("out_proj", "out")):
            rows += mask2former.affine(f"{theirs}.self_attn.{name}", f"{ours}/own/attn/{path}")
        rows += mask2former.norm(f"{theirs}.cross_attn_layer_norm", f"{ours}/cross/norm")
        rows += mask2former.norm(f"{theirs}.self_attn_layer_norm", f"{ours}/own/norm")
        rows += mask2former.norm(f"{theirs}.final_layer_norm", f"{ours}/feed/norm")
        rows += mask2former.affine(f"{theirs}.fc1", f"{ours}/feed/fc")
        rows += mask2former.affine(f"{theirs}.fc2", f"{ours}/feed/proj")
    rows += mask2former.norm("decoder.layernorm", "say/norm")
    for i in range(3):
        rows += mask2former.affine(f"decoder.mask_predictor.mask_embedder.{i}.0", f"say/embed/layers_{i}")
    config = mask2former.config(decoder_layers=TINY.layers + 1, dim_feedforward=TINY.inner, num_queries=TINY.queries)
    theirs = mask2former.load(Mask2FormerTransformerModule(TINY.width, config), params, rows)
    maps, features = inputs()
    with torch.no_grad():
        channels_first = [torch.tensor(x).permute(0, 3, 1, 2) for x in (*maps, features)]
        wanted = theirs(channels_first[:-1], channels_first[-1])
    params["say"]["classify"] = classify
    found = fast(MaskDecoder(TINY).apply)({"params": params}, maps, features)
    assert len(found.masks) == TINY.layers + 1
    for k, (masks, hidden) in enumerate(
        zip(wanted.masks_queries_logits, wanted.intermediate_hidden_states, strict=True)
    ):
        np.testing.assert_allclose(found.masks[k], masks, atol=1e-5)
        logits = hidden.numpy() @ classify["kernel"] + classify["bias"]
        np.testing.assert_allclose(found.logits[k], logits.swapaxes(0, 1), atol=1e-5)
    np.testing.assert_allclose(found.queries, hidden.numpy().swapaxes(0, 1), atol=1e-5)
    seen = np.asarray(shown(found.masks[-2], 2, 3))
    assert 0.1 < seen.mean() < 0.9


def test_queries_look_into_their_masks_and_everywhere_if_those_are_empty():
    masks = np.full((1, 2, 4, 4), -1.0)
    masks[0, 0, :2, :2] = 1
    seen = shown(jnp.asarray(masks), 2, 2)
    np.testing.assert_array_equal(seen, [[[True, False, False, False], [True] * 4]])
    grad = jax.grad(lambda x: shown(x, 2, 2).astype(float).sum())(jnp.asarray(masks))
    assert not grad.any()


def test_size_is_that_of_the_published_model():
    maps = [jnp.zeros((1, 2**i, 2, 256)) for i in range(3)]
    model = MaskDecoder(MaskDecoderConfig())
    shapes = jax.eval_shape(model.init, jax.random.key(0), maps, jnp.zeros((1, 8, 8, 256)))["params"]
    assert tree.count(shapes) == 14_469_161  # 14.47 M
