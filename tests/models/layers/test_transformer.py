"""The insertion rule, against a pre-norm transformer written out in numpy with float64."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.models.layers.transformer import Pass, Transformer, insert

LAYERS, HEADS, WIDTH = 3, 2, 8
ERF = np.vectorize(math.erf)


def layer_norm(x, w):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * w["scale"] + w["bias"]


def linear(x, w):
    return x @ w["kernel"] + w["bias"]


def attention(x, w, causal):
    """Return self-attention of one sequence [N, D], query by query and head by head."""
    query, key, value = (linear(x, w[name]) for name in ("query", "key", "value"))
    size, out = WIDTH // HEADS, np.zeros_like(x)
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        for n in range(len(x)):
            seen = slice(0, n + 1 if causal else len(x))
            logits = key[seen, part] @ query[n, part] / np.sqrt(size)
            weights = np.exp(logits - logits.max())
            out[n, part] = weights / weights.sum() @ value[seen, part]
    return linear(out, w["out"])


def block(x, w, activation, causal):
    x = x + attention(layer_norm(x, w["ln_1"]), w["attn"], causal)
    hidden = linear(layer_norm(x, w["ln_2"]), w["mlp"]["fc"])
    gate = 1 / (1 + np.exp(-1.702 * hidden)) if activation == "quick_gelu" else (1 + ERF(hidden / np.sqrt(2))) / 2
    return x + linear(hidden * gate, w["mlp"]["proj"])


def reference(params, x, prompts, activation, causal, at=1, width=0):
    """Run one sequence through all layers; the slot is tracked as three lists of rows: before, slot, after."""
    w = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    before, slot, after = x[:at], x[at : at + width], x[at + width :]
    for k in range(LAYERS):
        slot = prompts.get(k, slot)
        y = block(np.concatenate([before, slot, after]), w[f"blocks_{k}"], activation, causal)
        before, slot, after = y[:at], y[at : at + len(slot)], y[at + len(slot) :]
    return before, slot, after


@pytest.fixture(scope="module")
def tower():
    """Return apply(x, prompts, *, at, causal=False, activation="quick_gelu", ...) and its parameters, all random."""
    init = partial(Transformer(LAYERS, HEADS, "gelu").init, prompts=None, how=Pass(at=1))
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 2, WIDTH)))["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.4, leaf.shape).astype(np.float32), shapes)

    @partial(jax.jit, static_argnames=("at", "causal", "activation", "width", "start", "stop"))
    def run(params, x, prompts, causal, activation, **options):
        return Transformer(LAYERS, HEADS, activation, causal).apply({"params": params}, x, prompts, Pass(**options))

    def apply(x, prompts=None, *, causal=False, activation="quick_gelu", params=params, **options):
        return np.asarray(run(params, x, prompts, causal, activation, **options))

    return apply, params


def normal(*shape, seed=1):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def close(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_without_prompts_it_is_a_plain_transformer(tower, activation, causal):
    apply, params = tower
    x = normal(2, 5, WIDTH)
    for ours, row in zip(apply(x, at=1, activation=activation, causal=causal), x, strict=True):
        close(ours, np.concatenate(reference(params, row, {}, activation, causal)))


CASES = {
    "every layer": {0: 2, 1: 2, 2: 2},
    "the first only, then flows on": {0: 2},
    "a later layer only": {1: 3},
    "other widths": {0: 1, 2: 4},
    "emptied": {0: 3, 1: 0},
    "emptied and filled again": {0: 3, 1: 0, 2: 2},
}


@pytest.mark.parametrize(("width", "causal"), [(0, False), (2, True)])
@pytest.mark.parametrize("case", CASES)
def test_tokens_replace_the_slot_and_others_flow_on(tower, case, width, causal):
    apply, params = tower
    x = normal(2, 4 + width, WIDTH)
    prompts = {k: normal(size, WIDTH, seed=k) for k, size in CASES[case].items()}
    ours = apply(x, prompts, at=1, width=width, causal=causal)
    assert ours.shape == x.shape  # the slot is back to its entry width
    for got, row in zip(ours, x, strict=True):
        before, slot, after = reference(params, row, prompts, "quick_gelu", causal, width=width)
        close(got[:1], before)
        close(got[1 + width :], after)
        kept = min(width, len(slot))
        close(got[1 : 1 + kept], slot[:kept])
        assert not got[1 + kept : 1 + width].any()


def test_each_example_may_have_prompts_of_its_own(tower):
    apply, params = tower
    x, prompts = normal(3, 4, WIDTH), {0: normal(3, 2, WIDTH), 2: normal(3, 1, WIDTH, seed=5)}
    for b, got in enumerate(apply(x, prompts, at=1)):
        own = {k: rows[b] for k, rows in prompts.items()}
        before, _, after = reference(params, x[b], own, "quick_gelu", causal=False)
        close(got, np.concatenate([before, after]))
    shared = {k: rows[0] for k, rows in prompts.items()}
    spread = {k: np.broadcast_to(rows, (3, *rows.shape)) for k, rows in shared.items()}
    close(apply(x, shared, at=1), apply(x, spread, at=1))
    rows = np.array([1, 0, 1])
    chosen = {k: values[:2] for k, values in prompts.items()}
    close(apply(x, chosen, at=1, rows=rows), apply(x, {k: values[rows] for k, values in prompts.items()}, at=1))


def test_without_a_mask_position_and_order_do_not_matter(tower):
    # Eq. 10 puts prompts after the class token, MaPLe at the end: the same function. Not so in a causal tower.
    apply, _ = tower
    x, prompts = normal(2, 4, WIDTH), {k: normal(3, WIDTH, seed=k) for k in range(LAYERS)}
    first = apply(x, prompts, at=1)
    close(apply(x, prompts, at=4), first)
    assert np.abs(apply(x, prompts, at=4, causal=True) - apply(x, prompts, at=1, causal=True)).max() > 1e-2


def test_order_matters_only_where_prompts_flow_on_through_a_causal_tower(tower):
    # What replaces every layer's prompts sees none of their outputs: then group before task is task before group.
    apply, _ = tower
    x, prompts = normal(2, 4, WIDTH), {k: normal(3, WIDTH, seed=k) for k in range(LAYERS)}
    backwards = {k: rows[::-1] for k, rows in prompts.items()}
    for causal in (False, True):
        close(apply(x, backwards, at=1, causal=causal), apply(x, prompts, at=1, causal=causal))
    flow, swapped = {0: prompts[0]}, {0: backwards[0]}
    close(apply(x, swapped, at=1), apply(x, flow, at=1))
    assert np.abs(apply(x, swapped, at=1, causal=True) - apply(x, flow, at=1, causal=True)).max() > 1e-2


@pytest.mark.parametrize("at", range(LAYERS + 1))
def test_a_split_equals_the_whole_bit_for_bit(tower, at):
    apply, _ = tower
    x = normal(2, 5, WIDTH)
    np.testing.assert_array_equal(apply(apply(x, at=1, stop=at), at=1, start=at), apply(x, at=1))


def test_a_split_where_prompts_are_replaced_equals_the_whole(tower):
    apply, _ = tower
    x, prompts = normal(2, 5, WIDTH), {k: normal(2, WIDTH, seed=k) for k in (0, 1)}
    lower = apply(x, prompts, at=1, stop=1)
    np.testing.assert_array_equal(apply(lower, prompts, at=1, start=1), apply(x, prompts, at=1))


def test_a_split_inside_a_slot_that_flows_on_equals_the_whole(tower):
    apply, _ = tower
    x = normal(2, 7, WIDTH)
    prompts = {0: x[0, 1:3] * 2}
    lower = apply(x, prompts, at=1, width=2, stop=2)
    np.testing.assert_array_equal(apply(lower, at=1, width=2, start=2), apply(x, prompts, at=1, width=2))


def test_prompts_outside_the_range_of_layers_are_not_read(tower):
    apply, _ = tower
    x, prompts = normal(1, 4, WIDTH), {0: normal(2, WIDTH)}
    np.testing.assert_array_equal(apply(x, prompts, at=1, start=1), apply(x, at=1, start=1))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("width", "causal"), [(0, False), (2, True)])
def test_reading_some_tokens_equals_reading_all(tower, case, width, causal):
    apply, _ = tower
    x, read = normal(2, 4 + width, WIDTH), np.array([[0, width + 2], [width + 3, width + 1]])
    options = dict(at=1, width=width, causal=causal)
    prompts = {k: normal(size, WIDTH, seed=k) for k, size in CASES[case].items()}
    whole = apply(x, prompts, **options)
    close(apply(x, prompts, read=read, **options), np.take_along_axis(whole, read[..., None], axis=1))


@pytest.mark.parametrize("case", CASES)
def test_sequences_with_a_common_prefix_equal_whole_sequences(tower, case):
    # Two prefixes with a slot of two tokens; each goes on in two ways, of two and of three tokens in one row.
    _, params = tower
    start, ends = normal(2, 4, WIDTH), normal(2, 5, WIDTH, seed=7)
    prompts = {k: normal(2, size, WIDTH, seed=k) for k, size in CASES[case].items()}
    segment = np.array([[0, 0, 1, 1, 1]] * 2)

    @jax.jit
    def run(params):
        tower = partial(Transformer(LAYERS, HEADS, "quick_gelu", causal=True).apply, {"params": params})
        prefix = tower(start, prompts, Pass(at=1, width=2), method="prefill")
        return tower(ends, None, Pass(at=0, segment=segment, prefix=prefix))

    for g, row in enumerate(np.asarray(run(params))):
        own = {k: rows[g] for k, rows in prompts.items()}
        for part in (slice(0, 2), slice(2, 5)):
            whole = np.concatenate([start[g], ends[g, part]])
            close(row[part], reference(params, whole, own, "quick_gelu", causal=True, width=2)[2][1:])


def test_segments_do_not_see_each_other_and_prompts_belong_to_segment_0(tower):
    apply, _ = tower
    x, segment = normal(2, 5, WIDTH), np.array([[0, 0, 0, 1, 1], [0, 1, 1, 1, 1]])
    prompts = {0: normal(2, WIDTH), 1: normal(3, WIDTH)}
    for causal in (False, True):
        packed = apply(x, prompts, at=1, segment=segment, causal=causal)
        for b, first in enumerate((3, 1)):
            close(packed[b, :first], apply(x[b : b + 1, :first], prompts, at=1, causal=causal)[0])
            close(packed[b, first:], apply(x[b : b + 1, first:], at=0, causal=causal)[0])


def test_computing_blocks_again_changes_nothing(tower):
    _, params = tower
    x, prompts = normal(2, 5, WIDTH), {k: normal(2, WIDTH, seed=k) for k in range(2)}

    def gradient(remat):
        model = Transformer(LAYERS, HEADS, "gelu", remat=remat)
        loss = lambda prompts: (model.apply({"params": params}, x, prompts, Pass(at=1)) ** 2).sum()  # noqa: E731
        return jax.jit(jax.grad(loss))(prompts), str(jax.make_jaxpr(jax.grad(loss))(prompts))

    (plain, graph), (again, longer) = gradient(False), gradient(True)
    jax.tree.map(close, again, plain)
    assert "remat" in longer and "remat" not in graph


def test_insert_replaces_exactly_the_slot():
    x = np.arange(10, dtype=np.float32).reshape(2, 5, 1)
    out = insert(jnp.asarray(x), jnp.float32([[-1], [-2], [-3]]), at=1, width=2)
    assert out[..., 0].tolist() == [[0, -1, -2, -3, 3, 4], [5, -1, -2, -3, 8, 9]]
    assert insert(jnp.asarray(x), jnp.zeros((0, 1)), at=1, width=2)[..., 0].tolist() == [[0, 3, 4], [5, 8, 9]]


def test_narrow_kernels_leave_the_stream_and_the_softmax_in_float32(tower):
    apply, params = tower
    narrow = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.astype(jnp.bfloat16) if path[-1].key == "kernel" else leaf, params
    )
    x = normal(2, 5, WIDTH)
    ours, wide = apply(x, params=narrow, at=1), apply(x, at=1)
    assert ours.dtype == np.float32
    assert 1e-4 < np.abs(ours - wide).max() < 0.2 * np.abs(wide).max()
