"""The pixel decoder against Hugging Face's, its size, and prompts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.models.video.pixel_decoder import PixelDecoder, PixelDecoderConfig
from tests import mask2former
from tests.weights import draw, fast

TINY = PixelDecoderConfig(width=32, heads=4, inner=24, layers=2, mask_width=8)
CHANNELS = (7, 6, 5, 3)  # of the maps of strides 32, 16, 8 and 4


def maps():
    rng = np.random.default_rng(0)
    sizes = ((2, 3), (4, 6), (8, 12), (16, 24))
    return [rng.standard_normal((2, *size, c)).astype(np.float32) for size, c in zip(sizes, CHANNELS, strict=True)]


def test_parity_with_transformers():
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerPixelDecoder

    params, rows = draw(PixelDecoder(TINY), maps()), [("level_embed", "level")]
    for i in range(3):
        rows += mask2former.affine(f"input_projections.{i}.0", f"project_{i}")
        rows += mask2former.norm(f"input_projections.{i}.1", f"project_norm_{i}")
    names = {"sampling_offsets": "offsets", "attention_weights": "weights", "value_proj": "value", "output_proj": "out"}
    for i in range(TINY.layers):
        theirs, ours = f"encoder.layers.{i}", f"encoder/blocks_{i}"
        for name, path in names.items():
            rows += mask2former.affine(f"{theirs}.self_attn.{name}", f"{ours}/attn/{path}")
        rows += mask2former.norm(f"{theirs}.self_attn_layer_norm", f"{ours}/ln_1")
        rows += mask2former.norm(f"{theirs}.final_layer_norm", f"{ours}/ln_2")
        rows += mask2former.affine(f"{theirs}.fc1", f"{ours}/fc") + mask2former.affine(f"{theirs}.fc2", f"{ours}/proj")
    rows += mask2former.affine("mask_projection", "features")
    for theirs, ours in (("adapter_1", "lateral"), ("layer_1", "smooth")):
        rows += [(f"{theirs}.0.weight", f"{ours}/kernel"), *mask2former.norm(f"{theirs}.1", f"{ours}_norm")]
    config = mask2former.config(encoder_layers=TINY.layers, encoder_feedforward_dim=TINY.inner)
    theirs = mask2former.load(Mask2FormerPixelDecoder(config, CHANNELS[::-1]), params, rows)
    with torch.no_grad():
        wanted = theirs([torch.tensor(x).permute(0, 3, 1, 2) for x in maps()[::-1]], return_dict=True)
    levels, features = fast(PixelDecoder(TINY).apply)({"params": params}, maps())
    for level, their_level in zip(levels, wanted.multi_scale_features, strict=True):
        np.testing.assert_allclose(level, their_level.permute(0, 2, 3, 1), atol=1e-5)
    np.testing.assert_allclose(features, wanted.mask_features.permute(0, 2, 3, 1), atol=1e-5)
    assert np.ptp(features) > 1


def test_size_is_that_of_the_published_model():
    inputs = [jnp.zeros((1, 4 * 2**i, 4, c)) for i, c in enumerate((2048, 1024, 512, 256))]
    shapes = jax.eval_shape(PixelDecoder(PixelDecoderConfig()).init, jax.random.key(0), inputs)["params"]
    assert tree.count(shapes) == 6_035_904  # 6.04 M
