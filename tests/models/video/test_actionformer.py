"""ActionFormer against the same net written out in torch, its size, padding, prompts and points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video import actionformer
from jax_promptmtl.models.video.actionformer import ActionFormer, ActionFormerConfig
from jax_promptmtl.models.video.middle import Cut

TINY = ActionFormerConfig(inputs=6, width=8, heads=2, window=5, stem=1, branch=3, classes=3)
LENGTHS = (24, 13)


def batch(lengths=LENGTHS, padded=24, junk=0.0):
    """Return features of the given lengths in a padded batch, with `junk` in the padding."""
    rng = np.random.default_rng(0)
    features = np.full((len(lengths), padded, TINY.inputs), junk, np.float32)
    mask = np.zeros(features.shape[:2], bool)
    for row, length in enumerate(lengths):
        features[row, :length] = rng.standard_normal((length, TINY.inputs))
        mask[row, :length] = True
    return {"features": features, "mask": mask}


@pytest.fixture(scope="module")
def params():
    """Return random parameters, the factors per channel large enough to matter."""
    init = jax.jit(ActionFormer(TINY).init)(jax.random.key(0), **batch())["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: leaf + 0.3 * rng.standard_normal(leaf.shape).astype(np.float32), init)


# --- parity -----------------------------------------------------------------------------------------------------------


def reference(params, features):
    """Return logits [N, C] and offsets [N, 2] of one video float[L, inputs], in torch, straight from the equations."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    w = jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf)), params)

    def conv(m, x, stride=1, groups=1):  # [L, D] -> [L / stride, D]
        kernel = m["kernel"].permute(2, 1, 0)
        return functional.conv1d(x.T[None], kernel, m.get("bias"), stride, 1, groups=groups)[0].T

    def norm(m, x):
        return functional.layer_norm(x, x.shape[-1:], m["scale"], m["bias"], 1e-5)

    def affine(m, x):
        return x @ m["kernel"] + m["bias"]

    def attention(m, x, stride):
        q, k, v = (
            affine(m[n], norm(m[f"{n}_norm"], conv(m[f"{n}_conv"], x, stride, x.shape[1])))
            for n in ("query", "key", "value")
        )
        size, out = q.shape[1] // TINY.heads, []
        for head in range(TINY.heads):
            part = slice(head * size, (head + 1) * size)
            logits = q[:, part] @ k[:, part].T / size**0.5
            distance = torch.arange(len(q))[None] - torch.arange(len(q))[:, None]
            logits = logits.masked_fill(distance.abs() > TINY.window // 2, -torch.inf)
            out.append(torch.softmax(logits, -1) @ v[:, part])
        return affine(m["out"], torch.cat(out, 1))

    def block(m, x, stride):
        seen = attention(m["attn"], norm(m["ln_1"], x), stride)
        pooled = functional.max_pool1d(x.T[None], 3, 2, 1)[0].T if stride == 2 else x
        x = pooled + m["scale_1"] * seen
        hidden = functional.gelu(affine(m["fc"], norm(m["ln_2"], x)))
        return x + m["scale_2"] * affine(m["proj"], hidden)

    def head(m, x):
        for i in range(2):
            x = torch.relu(norm(m[f"norms_{i}"], conv(m[f"convs_{i}"], x)))
        return conv(m["out"], x)

    x = torch.tensor(features)
    for i in range(2):
        x = torch.relu(norm(w[f"embed_norm_{i}"], conv(w[f"embed_{i}"], x)))
    logits, offsets = [], []
    for i, stride in enumerate(TINY.strides):
        x = block(w[f"blocks_{i}"], x, stride)
        level = norm(w[f"level_norm_{i}"], x)
        logits.append(head(w["classify"], level))
        offsets.append(torch.relu(w["scale"][i] * head(w["regress"], level)))
    return torch.cat(logits).numpy(), torch.cat(offsets).numpy()


def test_padded_batches_equal_the_reference_video_by_video(params):
    inputs = batch(junk=9.0)
    found = jax.jit(ActionFormer(TINY).apply)({"params": params}, **inputs)
    for row, length in enumerate(LENGTHS):
        logits, offsets = reference(params, inputs["features"][row, :length])
        valid = found.mask[row]
        np.testing.assert_allclose(found.logits[row][valid], logits, atol=2e-5)
        np.testing.assert_allclose(found.offsets[row][valid], offsets, atol=2e-5)
        assert np.ptp(logits) > 0.1 and (offsets > 0).any()


def test_size_is_that_of_the_published_model():
    inputs = (jax.ShapeDtypeStruct((1, 64, 768), jnp.float32), jax.ShapeDtypeStruct((1, 64), bool))
    shapes = jax.eval_shape(ActionFormer(ActionFormerConfig()).init, jax.random.key(0), *inputs)["params"]
    d = 512
    block = 2 * 2 * d + 3 * (3 * d + 2 * d) + 4 * (d * d + d) + (8 * d * d + 5 * d) + 2 * d
    tower = 2 * (3 * d * d + 2 * d)
    heads = (tower + 3 * d * 20 + 20) + (tower + 3 * d * 2 + 2 + 6)
    embedding = 3 * 768 * d + 3 * d * d + 2 * 2 * d
    assert tree.count(shapes) == 7 * block + embedding + 6 * 2 * d + heads == 27_285_532


# --- halves and prompts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("middle, levels, rate", [(None, 1, 2), (0, 0, 1), (1, 0, 1), (3, 2, 4)])
def test_the_halves_are_the_whole_bit_for_bit(params, middle, levels, rate):
    handle, inputs = actionformer.handle("video", TINY, params, 24, Cut(middle)), batch()
    state = handle.lower(params, inputs)
    assert len(state.carry) == levels and state.tokens.shape == (2, 24 // rate, handle.dim)
    if middle is not None:
        jitted = jax.jit(handle.upper)(params, state, None)
        whole = jax.jit(ActionFormer(TINY).apply)({"params": params}, **inputs)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), jitted, whole)
        return
    whole = ActionFormer(TINY).apply({"params": params}, **inputs)
    for prompts in (None, jnp.zeros((2, 0, 8))):
        jax.tree.map(np.testing.assert_array_equal, handle.upper(params, state, prompts), whole)


def test_the_cut_inside_a_longer_stem():
    config = ActionFormerConfig(inputs=6, width=8, heads=2, window=3, stem=3, branch=1, classes=3)
    params = jax.jit(ActionFormer(config).init)(jax.random.key(0), **batch())["params"]
    handle = actionformer.handle("video", config, params, 24)
    assert (handle.depth, handle.middle) == (4, 2)
    out = jax.jit(lambda p, x: handle.upper(p, handle.lower(p, x), None))(params, batch())
    whole = jax.jit(ActionFormer(config).apply)({"params": params}, **batch())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), out, whole)


@pytest.mark.parametrize("prompted", [False, True])
def test_padding_has_no_influence(params, prompted):
    prompts = jax.random.normal(jax.random.key(2), (1, 5, 8)) if prompted else None
    outs = []
    for length, junk in ((16, 0.0), (24, 50.0)):
        handle = actionformer.handle("video", TINY, params, length)
        state = jax.jit(handle.lower)(params, batch((16, 13), length, junk))
        outs.append(jax.jit(handle.upper)(params, state, prompts))
    for row in range(2):
        for short, long in zip(outs[0][:2], outs[1][:2], strict=True):
            np.testing.assert_allclose(long[row][outs[1].mask[row]], short[row][outs[0].mask[row]], atol=1e-5)


def test_prompts_leave_after_as_many_layers_as_told(params):
    state = actionformer.handle("video", TINY, params, 24, Cut(1)).lower(params, batch())
    prompts = jax.random.normal(jax.random.key(2), (2, 5, 8))

    def out(given, drop_after):
        upper = actionformer.handle("video", TINY, params, 24, Cut(1, drop_after)).upper
        return np.asarray(jax.tree.leaves(jax.jit(upper)(params, state, given))[0])

    none, kept, depth = out(None, 0), out(prompts, 0), actionformer.handle("video", TINY, params, 24, Cut(1)).depth
    np.testing.assert_array_equal(out(prompts, depth - 1), kept)
    once = out(prompts, 1)
    assert np.abs(once - kept).max() > 1e-5 and np.abs(once - none).max() > 1e-5


def test_prompts_count_everywhere_but_their_order_does_not(params):
    handle = actionformer.handle("video", TINY, params, 24)
    upper, state = jax.jit(handle.upper), jax.jit(handle.lower)(params, batch())
    prompts = jax.random.normal(jax.random.key(2), (2, 5, 8))
    out, plain = upper(params, state, prompts), upper(params, state, None)
    np.testing.assert_allclose(upper(params, state, prompts[:, ::-1]).logits, out.logits, atol=1e-5)
    change = np.abs(out.logits - plain.logits).max(axis=-1)
    done = 24 + 12  # the points of the levels below the prompts
    assert not change[:, :done].any()
    assert (change[:, done:][out.mask[:, done:]] > 1e-4).all()
    np.testing.assert_allclose(upper(params, state, prompts[:1]).logits[0], out.logits[0], atol=1e-5)


def test_one_block_with_prompts_by_the_definition(params):
    """Compare the last block's prompted attention with the rule written out step by step."""
    block = actionformer.PyramidBlock(TINY, 2)
    m = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["blocks_3"])
    rng = np.random.default_rng(0)
    x, prompts = rng.standard_normal((7, 8)), rng.standard_normal((2, 8))
    arguments = (jnp.asarray(x[None], jnp.float32), jnp.ones((1, 7), bool), jnp.asarray(prompts[None], jnp.float32))
    _, _, ours = block.apply({"params": params["blocks_3"]}, *arguments, True)

    def norm(p, z):
        scaled = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5)
        return scaled * p["scale"] + p["bias"]

    def affine(p, z):
        return z @ p["kernel"] + p["bias"]

    wide, normal_p, a = np.pad(norm(m["ln_1"], x), ((1, 1), (0, 0))), norm(m["ln_1"], prompts), m["attn"]
    parts = {}
    for name in ("query", "key", "value"):
        kernel = a[f"{name}_conv"]["kernel"][:, 0]
        steps = np.stack([(wide[t : t + 3] * kernel).sum(0) for t in range(0, 7, 2)])
        parts[name] = affine(a[name], norm(a[f"{name}_norm"], np.concatenate([steps, normal_p * kernel[1]])))
    mixed = np.zeros((2, 8))
    for head in (slice(0, 4), slice(4, 8)):
        logits = parts["query"][4:, head] @ parts["key"][:, head].T / 2.0
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        mixed[:, head] = weights / weights.sum(-1, keepdims=True) @ parts["value"][:, head]
    expected = prompts + m["scale_1"] * affine(a["out"], mixed)
    hidden = affine(m["fc"], norm(m["ln_2"], expected))
    gelu = np.asarray(jax.nn.gelu(jnp.asarray(hidden), approximate=False))
    np.testing.assert_allclose(ours[0], expected + m["scale_2"] * affine(m["proj"], gelu), atol=1e-4)


def test_training_drops_whole_branches(params):
    model, inputs = ActionFormer(ActionFormerConfig(**(vars(TINY) | {"drop_path": 0.5}))), batch()
    apply = jax.jit(lambda key: model.apply({"params": params}, **inputs, deterministic=False, rngs={"dropout": key}))
    first, again, other = (apply(jax.random.key(seed)).logits for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


# --- points and bad input ---------------------------------------------------------------------------------------------


def test_points_of_thumos():
    grid = actionformer.points(2304, ActionFormerConfig())
    assert len(grid) == 2304 + 1152 + 576 + 288 + 144 + 72
    levels = [grid[grid[:, 3] == 2**level] for level in range(6)]
    ranges = [tuple(level[0, 1:3]) for level in levels]
    assert ranges == [(0, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, 10_000)]
    assert all((np.diff(level[:, 0]) == level[0, 3]).all() and level[0, 0] == 0 for level in levels)


def test_points_in_other_units():
    plain, frames = (actionformer.points(16, TINY, step, start) for step, start in ((1.0, 0.0), (4.0, 8.0)))
    np.testing.assert_allclose(frames[:, 0], 8 + 4 * plain[:, 0])
    np.testing.assert_allclose(frames[:, 1:], 4 * plain[:, 1:])


def test_what_does_not_fit_is_refused(params):
    with pytest.raises(UserError, match="window of 4"):
        ActionFormerConfig(window=4)
    handle = actionformer.handle("video", TINY, params, 24)
    with pytest.raises(UserError, match=r"give \[videos, 24, 6\]"):
        handle.lower(params, batch(padded=25))
