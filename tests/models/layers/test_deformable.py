"""Deformable attention against loops over its definition and the implementations of transformers; prompts in it."""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.models.layers import deformable
from jax_promptmtl.models.layers.deformable import DeformableAttention, DeformableEncoder, Span
from tests.weights import fast

SHAPES = [(5, 4), (2, 3)]
VALID = [(3, 3), (1, 2)]  # rows and columns that are no padding in the second example
HEADS, POINTS, WIDTH = 2, 3, 8


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def looked_up(grid, x, y):
    """Return one bilinear sample of [h, w, C] at x, y in [0, 1]; what lies outside is zero."""
    height, width = grid.shape[:2]
    column, row = x * width - 0.5, y * height - 0.5
    total = np.zeros(grid.shape[2])
    for r, c in itertools.product((math.floor(row), math.floor(row) + 1), (math.floor(column), math.floor(column) + 1)):
        if 0 <= r < height and 0 <= c < width:
            total += grid[r, c] * (1 - abs(row - r)) * (1 - abs(column - c))
    return total


def sampled(value, shapes, locations, weights):
    """Return `deformable.sample` by its definition, point by point."""
    out, first = np.zeros((*locations.shape[:3], value.shape[-1])), 0
    for k, (height, width) in enumerate(shapes):
        for b, h, q, p in np.ndindex(*locations.shape[:3], locations.shape[4]):
            grid = value[b, h, first : first + height * width].reshape(height, width, -1)
            out[b, h, q] += weights[b, h, q, k, p] * looked_up(grid, *locations[b, h, q, k, p].tolist())
        first += height * width
    return out


@pytest.fixture(scope="module")
def points():
    """Return value, locations (some far outside, some on cells and borders) and weights."""
    rng, value = np.random.default_rng(0), drawn(2, HEADS, 26, 4)
    locations = rng.uniform(-0.4, 1.4, (2, HEADS, 6, 2, POINTS, 2)).astype(np.float32)
    locations[0, 0, 0, 0] = [[0, 0], [1, 1], [0.125, 0.1]]
    locations[0, 0, 1, 0] = [[1e6, 0.5], [-1e6, 0.5], [0.5, 0.5]]
    return value, locations, rng.uniform(0, 1, (2, HEADS, 6, 2, POINTS)).astype(np.float32)


@pytest.fixture(params=["multiplied", "looked_up"])
def one_way(request, monkeypatch):
    """Sample maps of every size in one of the two ways."""
    way = getattr(deformable, request.param)
    monkeypatch.setattr(deformable, "multiplied", way)
    monkeypatch.setattr(deformable, "looked_up", way)


@pytest.mark.usefixtures("one_way")
def test_samples_equal_the_loop(points):
    value, locations, weights = points
    ours = jax.jit(lambda *a: deformable.sample(a[0], SHAPES, *a[1:]))(value, locations, weights)
    np.testing.assert_allclose(ours, sampled(value, SHAPES, locations, weights), atol=1e-5)


def test_small_maps_are_multiplied_and_large_ones_looked_up(monkeypatch):
    ways = []
    for way in ("multiplied", "looked_up"):
        monkeypatch.setattr(deformable, way, lambda cells, *_, way=way: ways.append(way) or cells)
    for side in (4, 5):  # 16 and 25 cells, of 4 channels; 5 points have 4 * 5 * 4 = 80 numbers, one has 16
        for points in (5, 1):
            deformable.sample_map.__wrapped__(
                jnp.zeros((1, 1, side**2, 4)),
                (side, side),
                jnp.zeros((1, 1, 1, points, 2)),
                jnp.zeros((1, 1, 1, points)),
            )
    assert ways == ["multiplied", "multiplied", "multiplied", "looked_up"]


@pytest.mark.parametrize("cells", [0, 0.25])
def test_both_ways_have_the_same_slopes_even_on_cells_and_borders(cells):
    places = np.stack(np.meshgrid(np.arange(-2.0, 6.0), np.arange(-2.0, 7.0)), axis=-1).reshape(1, 1, -1, 1, 2) + cells
    places = jnp.clip(jnp.asarray(places, jnp.float32), -1, np.array([4, 5]))
    value, weights, toward = drawn(1, 1, 20, 4), np.ones(places.shape[:-1], np.float32), drawn(1, 1, 72, 4, seed=1)
    both = [
        jax.vjp(lambda *a, way=way: way(a[0], (5, 4), *a[1:]), value, places, weights)
        for way in (deformable.multiplied, deformable.looked_up)
    ]
    for one, other in zip(*(back(jnp.asarray(toward)) for _, back in both), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.usefixtures("one_way")
def test_samples_and_gradients_equal_those_of_transformers(points):
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("transformers.models.deformable_detr.modeling_deformable_detr")
    toward = drawn(2, HEADS, 6, 4, seed=1)
    points = (points[0], np.clip(points[1], -2, 2) + 0.013, points[2])  # off the cells, where slopes are two
    ours, back = jax.vjp(lambda *a: deformable.sample(a[0], SHAPES, *a[1:]), *map(jnp.asarray, points))
    tensors = [torch.tensor(array, requires_grad=True) for array in points]
    value, locations, weights = tensors
    theirs = module.MultiScaleDeformableAttention()(
        value.permute(0, 2, 1, 3), torch.tensor(SHAPES), SHAPES, torch.tensor([0, 20]),
        locations.permute(0, 2, 1, 3, 4, 5), weights.permute(0, 2, 1, 3, 4), 64,
    ).reshape(2, 6, HEADS, 4).permute(0, 2, 1, 3)  # fmt: skip
    theirs.backward(torch.tensor(toward))
    np.testing.assert_allclose(ours, theirs.detach(), atol=1e-5)
    for gradient, tensor in zip(back(jnp.asarray(toward)), tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad, atol=1e-4)


# --- the encoder ------------------------------------------------------------------------------------------------------

ENCODER = DeformableEncoder(layers=2, heads=HEADS, levels=2, points=POINTS, inner=16)


@pytest.fixture(scope="module")
def scene():
    """Return random parameters, cells, positions, and a mask whose second example is padded right and below."""
    x, position = drawn(2, 26, WIDTH), drawn(2, 26, WIDTH, seed=1)
    inside = [
        (np.indices(shape) < np.array(valid)[:, None, None]).all(0) for shape, valid in zip(SHAPES, VALID, strict=True)
    ]
    mask = np.stack([np.ones(26, bool), np.concatenate([grid.ravel() for grid in inside])])
    cells = (jnp.asarray(x), jnp.asarray(position), jnp.asarray(mask))
    shapes = jax.eval_shape(lambda key: ENCODER.init(key, *cells, SHAPES), jax.random.key(0))["params"]
    rng, leaves = np.random.default_rng(2), tree.flatten(shapes)
    leaves = {path: 0.5 * rng.standard_normal(leaf.shape) + path.endswith("scale") for path, leaf in leaves.items()}
    return tree.unflatten({path: leaf.astype(np.float32) for path, leaf in leaves.items()}), cells


@fast
def encode(params, cells, prompts=None):
    return ENCODER.apply({"params": params}, *cells, SHAPES, prompts)


def test_the_encoder_equals_that_of_transformers(scene):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    module = pytest.importorskip("transformers.models.deformable_detr.modeling_deformable_detr")
    params, (x, position, mask) = scene
    sizes = {"d_model": WIDTH, "encoder_layers": 2, "encoder_attention_heads": HEADS, "encoder_ffn_dim": 16}
    backbone = transformers.ResNetConfig(out_features=["stage4"])
    config = transformers.DeformableDetrConfig(
        **sizes, num_feature_levels=2, encoder_n_points=POINTS, backbone_config=backbone
    )
    theirs = module.DeformableDetrEncoder(config).eval()
    names = {"self_attn.sampling_offsets": "attn/offsets", "self_attn.attention_weights": "attn/weights"}
    names |= {"self_attn.value_proj": "attn/value", "self_attn.output_proj": "attn/out", "mlp.fc1": "fc"}
    names |= {"mlp.fc2": "proj", "self_attn_layer_norm": "ln_1", "final_layer_norm": "ln_2"}
    state = {}
    for name in theirs.state_dict():
        _, number, *middle, kind = name.split(".")
        leaf = params[f"blocks_{number}"]
        for part in names[".".join(middle)].split("/"):
            leaf = leaf[part]
        leaf = leaf["bias"] if kind == "bias" else leaf.get("scale", leaf.get("kernel"))
        state[name] = torch.tensor(np.array(leaf.T))
    theirs.load_state_dict(state)
    ratios = deformable.valid_ratios(mask, SHAPES)
    np.testing.assert_allclose(ratios[1], [[3 / 4, 3 / 5], [2 / 3, 1 / 2]], atol=1e-6)
    x, position, mask, ratios = (torch.tensor(np.array(array)) for array in (x, position, mask, ratios))
    with torch.no_grad():
        out = theirs(
            inputs_embeds=x, attention_mask=mask, spatial_position_embeddings=position, valid_ratios=ratios,
            spatial_shapes=torch.tensor(SHAPES), spatial_shapes_list=SHAPES, level_start_index=torch.tensor([0, 20]),
        ).last_hidden_state.numpy()  # fmt: skip
    np.testing.assert_allclose(encode(*scene), out, atol=1e-5)
    assert np.ptp(out) > 1


def test_positions_equal_those_of_transformers():
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("transformers.models.deformable_detr.modeling_deformable_detr")
    mask = np.ones((2, 5, 4), bool)
    mask[1, 3:], mask[1, :, 2:] = False, False
    theirs = module.DeformableDetrSinePositionEmbedding(4, normalize=True)
    expected = theirs(torch.Size([2, 1, 5, 4]), "cpu", torch.float32, torch.tensor(mask)).permute(0, 2, 3, 1)
    ours = deformable.sine_position(jnp.asarray(mask), 8)
    np.testing.assert_allclose(ours[mask], expected.numpy()[mask], atol=1e-5)


# --- prompts ----------------------------------------------------------------------------------------------------------


def test_attention_with_prompts_by_its_definition():
    model = DeformableAttention(HEADS, levels=2, points=POINTS)
    cells, prompts = drawn(1, 26, WIDTH), drawn(1, 3, WIDTH, seed=2)
    query, reference = drawn(1, 29, WIDTH, seed=3), np.random.default_rng(4).uniform(0, 1, (1, 29, 2, 2))
    call = (query, reference.astype(np.float32), cells, SHAPES, None, prompts)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *call))["params"]
    params = jax.tree.map(lambda leaf: 0.3 * drawn(*leaf.shape, seed=5), shapes)
    ours = fast(lambda params: model.apply({"params": params}, *call))(params)[0]

    def affine(name, z):
        return z @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])

    per_head = (HEADS, 2, POINTS)
    offsets, logits = affine("offsets", query[0]).reshape(29, *per_head, 2), affine("weights", query[0])
    value, shown = (affine("value", z[0]).reshape(-1, HEADS, 4) for z in (cells, prompts))
    own = np.concatenate([value, shown])
    rows = np.zeros((29, HEADS, 4))
    for q, h in np.ndindex(29, HEADS):
        entries, seen, first = [], [], 0
        for k, (height, width) in enumerate(SHAPES):
            grid = value[first : first + height * width, h].reshape(height, width, 4)
            for p in range(POINTS):
                x, y = reference[0, q, k] + offsets[q, h, k, p] / [width, height]
                entries.append(logits[q].reshape(per_head)[h, k, p])
                seen.append(looked_up(grid, x, y))
            first += height * width
        entries += [own[q, h] @ shown[n, h] / 2.0 - math.log(3) for n in range(3)]  # 2 is the root of 4 channels
        seen += [shown[n, h] for n in range(3)]
        weights = np.exp(np.array(entries) - max(entries))
        rows[q, h] = weights / weights.sum() @ np.array(seen)
    np.testing.assert_allclose(ours, affine("out", rows.reshape(29, WIDTH)), atol=1e-4)


def test_prompts_that_are_all_alike_weigh_like_one(scene):
    prompt = jnp.asarray(drawn(2, 1, WIDTH, seed=2))
    np.testing.assert_allclose(encode(*scene, jnp.repeat(prompt, 50, axis=1)), encode(*scene, prompt), atol=1e-5)
    assert np.abs(encode(*scene, prompt) - encode(*scene)).max() > 1e-3


def test_no_prompts_change_nothing_and_the_order_of_some_neither(scene):
    plain = encode(*scene)
    np.testing.assert_array_equal(encode(*scene, jnp.zeros((2, 0, WIDTH))), plain)
    prompts = jnp.asarray(drawn(2, 3, WIDTH, seed=2))
    out = encode(*scene, prompts)
    np.testing.assert_allclose(encode(*scene, prompts[:, ::-1]), out, atol=1e-5)
    assert (np.abs(out - plain).max(axis=-1) > 1e-3)[np.asarray(scene[1][2])].all()


def test_padding_has_no_influence(scene):
    params, (x, position, mask) = scene
    prompts, hidden = jnp.asarray(drawn(2, 3, WIDTH, seed=2)), ~mask[..., None]
    junk = (jnp.where(hidden, 50.0, x), jnp.where(hidden, -9.0, position), mask)
    np.testing.assert_allclose(encode(params, junk, prompts)[mask], encode(*scene, prompts)[mask], atol=1e-5)

    def crop(tokens):
        cuts = zip(deformable.grids(tokens, SHAPES), VALID, strict=True)
        return jnp.concatenate([grid[1:, :h, :w].reshape(1, h * w, WIDTH) for grid, (h, w) in cuts], axis=1)

    whole = jnp.ones((1, 11), bool)
    cropped = fast(lambda *a: ENCODER.apply({"params": params}, *a, whole, VALID, prompts[1:]))(crop(x), crop(position))
    np.testing.assert_allclose(crop(encode(*scene, prompts)), cropped, atol=1e-5)


def test_the_blocks_can_be_run_in_two_parts(scene):
    params, (x, position, mask) = scene
    prompts = jnp.asarray(drawn(2, 3, WIDTH, seed=2))

    @partial(fast, static_argnums=(2, 3, 4))
    def part(x, prompts=None, start=0, stop=None, leave=None):
        return ENCODER.apply({"params": params}, x, position, mask, SHAPES, prompts, Span(start, stop, leave))

    np.testing.assert_allclose(part(part(x, None, 0, 1), None, 1), encode(*scene), atol=1e-6)
    once = part(x, prompts, 0, None, 1)
    np.testing.assert_allclose(part(part(x, prompts, 0, 1), None, 1), once, atol=1e-6)
    assert np.abs(once - encode(*scene, prompts)).max() > 1e-3
