"""The mapper against a dense transformer layer written out in numpy's terms, its counts, options and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.methods.dlm import DoubleLayerMapper
from jax_promptmtl.methods.middle import MiddleAdapter, MiddlePrompts, rank_of_size

FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # compile fast, run slow
AUX = {"wide": 128, "narrow": 24}  # two heads, one head
VIT, ASF, DET = 768, 64, 256  # the widths of the paper's models


def context(aux, seed=0, batch=2, tokens=7, dtype=jnp.float32):
    """Return random tokens, and masks that hide some of them."""
    keys = jax.random.split(jax.random.key(seed), len(aux))
    mask = jnp.arange(tokens) < jnp.array([[tokens - 2], [tokens], [1]])[:batch]
    draws = {
        name: jax.random.normal(key, (batch, tokens, aux[name]), dtype) for name, key in zip(aux, keys, strict=True)
    }
    return {name: (draw, mask) for name, draw in draws.items()}


def randomised(params, seed=1, scale=0.05):
    """Return parameters with every leaf random, so that no bias or scale hides behind its start."""
    leaves, shape = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    noise = [scale * jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(shape, [leaf + more for leaf, more in zip(leaves, noise, strict=True)])


def drawn(method, given):
    """Return initial parameters."""
    return jax.jit(method.init, compiler_options=FAST)(jax.random.key(0), given)["params"]


def norm(x, p):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]


def affine(x, p):
    return x @ p["kernel"] + p["bias"]


def gelu(x):
    return x * 0.5 * (1 + jax.scipy.special.erf(x / np.sqrt(2)))


def dense_attention(z, valid, p, heads):
    """Self-attention of all rows over all rows, one example and one head after the other."""
    width, mixed = z.shape[-1] // heads, []
    q, k, v = (affine(z, p[name]) for name in ("query", "key", "value"))
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        logits = jnp.where(valid[None, :], q[:, part] @ k[:, part].T / np.sqrt(width), -jnp.inf)
        mixed.append(jax.nn.softmax(logits) @ v[:, part])
    return affine(jnp.concatenate(mixed, axis=-1), p["out"])


def dense_mapper(params, aux, context, *, post, single):
    """Eq. 1-4 with the whole of [P; E] as queries, whose token rows are thrown away at the end."""
    batch = next(iter(context.values()))[0].shape[0]
    rows = []
    for b in range(batch):
        parts = []
        for name in sorted(aux):
            start, p = params[f"prompts_{name}"], params[name]
            z = jnp.concatenate([start, context[name][0][b]])
            valid = jnp.concatenate([jnp.ones(len(start), bool), context[name][1][b]])
            layer, heads = p["layer"], max(aux[name] // 64, 1)
            mlp = lambda x, q: affine(gelu(affine(x, q["fc"])), q["proj"])  # noqa: E731
            if post:
                z = norm(z + dense_attention(z, valid, layer["attn"], heads), layer["ln_1"])
                z = norm(z + mlp(z, layer["mlp"]), layer["ln_2"])
            else:
                z = z + dense_attention(norm(z, layer["ln_1"]), valid, layer["attn"], heads)
                z = z + mlp(norm(z, layer["ln_2"]), layer["mlp"])
            x = affine(affine(z[: len(start)], p["fc_1"]), p["fc_2"])
            if not single:
                x = x + affine(gelu(affine(x, p["adapter"]["down"])), p["adapter"]["up"])
            parts.append(x)
        rows.append(jnp.concatenate(parts))
    return jnp.stack(rows)


@pytest.mark.parametrize(("post", "single"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-6), (jnp.float64, 1e-12)])
def test_prompt_rows_equal_the_dense_layer_values_and_gradients(post, single, dtype, tolerance):
    with jax.enable_x64(dtype == jnp.float64):
        method = DoubleLayerMapper(AUX, 16, 4, num_prompts=5, norm="post" if post else "pre", single_layer=single)
        given = context(AUX, dtype=dtype)
        params = randomised(jax.tree.map(lambda x: x.astype(dtype), drawn(method, given)))
        pull = jax.random.normal(jax.random.key(9), (2, 10, 16), dtype)

        def ours(params):
            prompts = method.apply({"params": params}, given)["primary"][4]
            return (prompts * pull).mean(), prompts

        def dense(params):
            prompts = dense_mapper(params, AUX, given, post=post, single=single)
            return (prompts * pull).mean(), prompts

        (_, ours_out), ours_grads = jax.jit(jax.value_and_grad(ours, has_aux=True), compiler_options=FAST)(params)
        (_, dense_out), dense_grads = jax.jit(jax.value_and_grad(dense, has_aux=True), compiler_options=FAST)(params)
    scale = float(np.abs(dense_out).max())
    np.testing.assert_allclose(ours_out, dense_out, rtol=0, atol=tolerance * max(scale, 1))
    for path, want in flatten_dict(dense_grads, sep="/").items():
        np.testing.assert_allclose(flatten_dict(ours_grads, sep="/")[path], want, rtol=0, atol=tolerance, err_msg=path)
        assert path.endswith("key/bias") or float(np.abs(want).max()) > 100 * tolerance, path  # it compares something


@pytest.mark.parametrize(
    ("primary", "aux", "count"),
    [
        (VIT, (VIT, VIT, ASF, DET, DET), 16_421_200),  # SSv2, AVA, THUMOS14
        (ASF, (VIT, VIT, VIT, DET, DET), 22_963_472),  # 50salads
        (DET, (VIT, VIT, VIT, ASF, DET), 22_358_864),  # ImageNet-VID, YouTube-VIS
    ],
)
def test_counts_at_the_papers_size(primary, aux, count):
    method = DoubleLayerMapper({f"aux_{i}": width for i, width in enumerate(aux)}, primary, 6)
    shapes = {
        name: (jax.ShapeDtypeStruct((1, 3, w), jnp.float32), jax.ShapeDtypeStruct((1, 3), bool))
        for name, w in method.aux.items()
    }
    params = jax.eval_shape(method.init, jax.random.key(0), shapes)["params"]
    assert tree.count(params) == count
    for name, width in method.aux.items():
        assert tree.count(params[name]["layer"]) == 12 * width**2 + 13 * width


def test_padding_has_no_influence_and_the_tokens_have():
    method = DoubleLayerMapper(AUX, 16, 4)
    given = context(AUX)
    params = randomised(drawn(method, given))
    run = jax.jit(lambda given: method.apply({"params": params}, given)["primary"][4])
    noisy = {name: (jnp.where(m[..., None], e, 1e3), m) for name, (e, m) in given.items()}
    np.testing.assert_array_equal(run(given), run(noisy))
    other = {name: (e + 1, m) if name == "narrow" else (e, m) for name, (e, m) in context(AUX, seed=5).items()}
    assert float(jnp.abs(run(given) - run(other)).max()) > 1e-3


def test_every_leaf_gets_a_gradient_except_the_key_bias_that_cancels():
    method = DoubleLayerMapper(AUX, 16, 4, final_scale="scalar")
    given = context(AUX)
    params = drawn(method, given)
    pull = jax.random.normal(jax.random.key(2), (2, 20, 16))
    grads = jax.jit(jax.grad(lambda p: (method.apply({"params": p}, given)["primary"][4] * pull).sum()))(params)
    for path, grad in flatten_dict(grads, sep="/").items():
        size = float(jnp.abs(grad).max())
        assert size < 1e-5 if path.endswith("key/bias") else size > 1e-5, path


def test_equal_widths_can_share_their_prompts_and_unequal_ones_cannot():
    aux = {"a": 8, "b": 12, "c": 8}
    given = context(aux)
    shared, own = (
        jax.eval_shape(DoubleLayerMapper(aux, 16, 4, 2, share).init, jax.random.key(0), given)["params"]
        for share in (True, False)
    )
    assert tree.count(own) - tree.count(shared) == 2 * 8
    assert {key for key in shared if key.startswith("prompts")} == {"prompts_a", "prompts_b"}


def test_final_layer_norm_gives_unit_rows():
    method = DoubleLayerMapper(AUX, 16, 4, final_scale="layer_norm")
    given = context(AUX)
    params = drawn(method, given)
    params = randomised({k: v for k, v in params.items() if not k.startswith("scale")}) | {
        k: v for k, v in params.items() if k.startswith("scale")
    }
    prompts = method.apply({"params": params}, given)["primary"][4]
    np.testing.assert_allclose(prompts.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose((prompts**2).mean(-1), 1, rtol=1e-2)


@pytest.mark.parametrize(
    ("options", "aux", "message"),
    [
        ({"norm": "middle"}, AUX, "Unknown norm of the mapper 'middle'"),
        ({"prompt_init": "zeros"}, AUX, "Unknown prompt_init 'zeros'"),
        ({"layer_init": "he"}, AUX, "Unknown layer_init 'he'"),
        ({"final_scale": "sqrt"}, AUX, "Unknown final_scale 'sqrt'"),
        ({"head_dim": 48}, AUX, "head_dim 48 must divide the width 128 of the auxiliary 'wide'"),
        ({}, {"wide": 128, "narrow": 32}, "the auxiliary 'narrow' are 24 wide, not 32"),
        ({}, {}, "no auxiliary model"),
    ],
)
def test_bad_options_are_one_sentence(options, aux, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(DoubleLayerMapper(aux, 16, 4, **options).init, jax.random.key(0), context(AUX))


def test_free_prompts_and_the_adapter_of_equal_size():
    prompts = MiddlePrompts(16, 4, 6)
    params = jax.jit(prompts.init)(jax.random.key(0))["params"]
    np.testing.assert_array_equal(prompts.apply({"params": params})["primary"][4], params["tokens"])
    mapper = jax.eval_shape(DoubleLayerMapper(AUX, 16, 4).init, jax.random.key(0), context(AUX))
    size = tree.count(mapper["params"])
    adapter = MiddleAdapter(16, rank_of_size(size, 16))
    params = jax.jit(adapter.init)(jax.random.key(0))["params"]
    assert abs(tree.count(params) - size) <= 33 / 2  # one rank more or less costs 33
    x = jax.random.normal(jax.random.key(1), (2, 3, 16))
    params = randomised(params)["adapter"]
    want = x + affine(gelu(affine(x, params["down"])), params["up"])
    got = adapter.apply({"params": {"adapter": params}}, "primary", x, method="adapt")
    np.testing.assert_allclose(got, want, atol=1e-5)
