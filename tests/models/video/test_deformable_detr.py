"""The decoder of Deformable DETR against that of transformers, and its pieces in closed form."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video import deformable_detr
from jax_promptmtl.models.video.deformable_detr import DeformableDetr, DetectorConfig
from jax_promptmtl.models.video.resnet import ResNetConfig
from tests.weights import draw, fast

SMALL = ResNetConfig(depths=(1, 1), width=2, strides=(2, 2), dilated=(1,), stem=3, pool=False)
TINY = DetectorConfig(
    SMALL, width=8, heads=2, points=3, encoders=1, decoders=2, inner=16, queries=5, classes=3, groups=4
)
SHAPE = (4, 6)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def params():
    return draw(DeformableDetr(TINY), jnp.zeros((1, 8, 12, 3)), jnp.ones((1, *SHAPE), bool))


def leaf_of(params, name):
    """Return our leaf of the name that the decoder of transformers has for it."""
    maps = {"sampling_offsets": "offsets", "attention_weights": "weights", "value_proj": "value", "output_proj": "out"}
    dense = {f"{a}_proj": b for a, b in zip("qkvo", ("query", "key", "value", "out"), strict=True)}
    names = {f"encoder_attn.{a}": f"cross_attn/{b}" for a, b in maps.items()} | {"mlp.fc1": "fc", "mlp.fc2": "proj"}
    names |= {f"self_attn.{a}": f"self_attn/{b}" for a, b in dense.items()}
    names |= {"self_attn_layer_norm": "ln_1", "encoder_attn_layer_norm": "ln_2", "final_layer_norm": "ln_3"}
    names |= {f"layers.{j}": f"fc_{j}" for j in range(3)}
    part, number, *middle, kind = name.split(".")
    leaf = params[f"{'decoder' if part == 'layers' else 'place'}_{number}"]
    for step in names[".".join(middle)].split("/"):
        leaf = leaf[step]
    return leaf["bias"] if kind == "bias" else leaf.get("scale", leaf.get("kernel"))


@pytest.mark.parametrize("refine", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_decoder_equals_that_of_transformers(params, refine):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    module = pytest.importorskip("transformers.models.deformable_detr.modeling_deformable_detr")
    sizes = {"d_model": 8, "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 16}
    config = transformers.DeformableDetrConfig(
        **sizes, num_feature_levels=1, decoder_n_points=3, backbone_config=transformers.ResNetConfig()
    )
    theirs = module.DeformableDetrDecoder(config).eval()
    if refine:
        heads = (module.DeformableDetrMLPPredictionHead(8, 8, 4, 3) for _ in range(2))
        theirs.bbox_embed = torch.nn.ModuleList(heads)
    theirs.load_state_dict({name: torch.tensor(np.array(leaf_of(params, name).T)) for name in theirs.state_dict()})
    model, cells, mask = DeformableDetr(replace(TINY, refine=refine)), drawn(2, 24, 8, seed=1), np.ones((2, 4, 6), bool)
    mask[1, 3:], mask[1, :, 4:] = False, False
    mask = mask.reshape(2, 24)
    begun = model.apply({"params": params}, 2, method="begin")
    found = fast(lambda *a: model.apply({"params": params}, *a, SHAPE, method="decode"))(begun, cells, mask)
    with torch.no_grad():
        out = theirs(
            inputs_embeds=torch.tensor(np.array(begun.content)),
            object_queries_position_embeddings=torch.tensor(np.array(params["query"][None, :, :8].repeat(2, 0))),
            reference_points=torch.tensor(np.array(begun.reference)),
            encoder_hidden_states=torch.tensor(cells), encoder_attention_mask=torch.tensor(mask),
            spatial_shapes=torch.tensor([SHAPE]), spatial_shapes_list=[SHAPE], level_start_index=torch.tensor([0]),
            valid_ratios=torch.tensor([[[1.0, 1.0]], [[4 / 6, 3 / 4]]]),
        )  # fmt: skip
    np.testing.assert_allclose(found.content, out.last_hidden_state, atol=1e-5)
    np.testing.assert_allclose(found.reference, out.intermediate_reference_points[:, -1], atol=1e-5)
    if refine:
        np.testing.assert_allclose(jnp.stack(found.boxes, 1), out.intermediate_reference_points, atol=1e-5)


def test_boxes_from_points_and_boxes():
    change = jnp.array([1.0, -1.0, 0.5, -0.5])

    def logit(p):
        return np.log(p / (1 - p))

    for reference in ([0.2, 0.9], [0.2, 0.9, 0.3, 0.4]):
        place = np.array([*map(logit, reference), 0.0, 0.0])[:4] + change
        expected = 1 / (1 + np.exp(-place))
        np.testing.assert_allclose(deformable_detr.refined(change, jnp.array(reference)), expected, atol=1e-6)
    edge = deformable_detr.refined(jnp.zeros(4), jnp.array([0.0, 1.0, 0.5, 0.5]))
    np.testing.assert_allclose(edge, [1e-5, 1 - 1e-5, 0.5, 0.5], atol=2e-6)


def test_a_new_detector_says_that_hardly_anything_is_there():
    frames, mask = drawn(1, 8, 12, 3), np.ones((1, *SHAPE), bool)
    found, _ = fast(DeformableDetr(TINY).init_with_output)(jax.random.key(0), frames, mask)
    chance = jax.nn.sigmoid(jnp.stack(found.logits))
    assert float(chance.mean()) < 0.05
    point = jax.nn.sigmoid(jnp.float32(-2.0))
    np.testing.assert_allclose(found.boxes[0][..., 2:], point, atol=1e-6)
    np.testing.assert_allclose(found.boxes[1], found.boxes[0], atol=1e-5)  # the later layers change nothing yet


@pytest.mark.slow
def test_gradients_do_not_pass_from_layer_to_layer_through_the_boxes(params):
    model, frames, mask = DeformableDetr(TINY), drawn(1, 8, 12, 3), jnp.ones((1, *SHAPE), bool)

    def last(params):
        return model.apply({"params": params}, frames, mask).boxes[-1].sum()

    gradient = fast(jax.grad(last))(params)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient["place_0"]))
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient["place_1"]))


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="cannot be built"):
        DetectorConfig(heads=7)
