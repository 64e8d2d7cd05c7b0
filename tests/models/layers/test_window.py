"""Attention within windows against one dense softmax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.models.layers import window


def dense(query, key, value, mask, pattern, extra):
    """Return the same by a mask over all pairs of steps."""
    size, length = pattern.shape[0], query.shape[1]
    halo = (pattern.shape[1] - size) // 2
    seen = np.zeros((length, length), bool)
    for t in range(length):
        for column in range(pattern.shape[1]):
            s = t // size * size - halo + column
            if 0 <= s < length:
                seen[t, s] = pattern[t % size, column]
    keys, values = (np.concatenate(pair, axis=1) for pair in ((key, extra[0]), (value, extra[1])))
    seen = np.concatenate([seen & mask[:, None], np.ones((len(query), length, extra[0].shape[1]), bool)], axis=2)
    logits = np.where(seen, query @ keys.swapaxes(1, 2) / np.sqrt(query.shape[2]), -np.inf)
    weights = np.exp(logits - np.maximum(logits.max(-1, keepdims=True), -1e9))
    return weights / np.maximum(weights.sum(-1, keepdims=True), 1e-30) @ values


@pytest.mark.parametrize("size, radius, length, extra", [(3, 3, 11, 2), (1, 1, 5, 0), (4, 2, 8, 1), (9, 9, 4, 0)])
def test_windows_equal_a_dense_mask(size, radius, length, extra):
    rng = np.random.default_rng(0)
    query, key = rng.standard_normal((2, 2, length, 4))
    value = rng.standard_normal((2, length, 6))
    prompts = rng.standard_normal((2, extra, 4)), rng.standard_normal((2, extra, 6))
    mask = np.arange(length) < np.array([[length], [length - 2]])
    pattern = np.asarray(window.band(size, radius))
    ours = window.attend_in_windows(*map(jnp.asarray, (query, key, value, mask, pattern)), prompts)
    expected = dense(query, key, value, mask, pattern, prompts)
    np.testing.assert_allclose(np.asarray(ours)[mask], expected[mask], atol=1e-5)


def test_padding_gives_no_nan_and_no_gradient():
    shape = (1, 8, 4)
    query, key, value = jax.random.normal(jax.random.key(0), (3, *shape))
    mask = jnp.arange(8)[None] < 2
    nothing = (jnp.zeros((1, 0, 4)), jnp.zeros((1, 0, 4)))

    def total(q, k, v):
        mixed = window.attend_in_windows(q, k, v, mask, window.band(2, 1), nothing)
        return jnp.where(mask[..., None], mixed, 0).sum()

    for gradient in jax.grad(total, argnums=(0, 1, 2))(query, key, value):
        assert jnp.isfinite(gradient).all() and not gradient[:, 2:].any()


def test_prompts_attend_to_what_is_valid():
    query = jax.random.normal(jax.random.key(0), (1, 2, 4))
    key, value = jax.random.normal(jax.random.key(1), (2, 1, 6, 4))
    mask = jnp.arange(6)[None] < 4
    ours = window.attend_to_all(query, key, value, mask)
    np.testing.assert_allclose(ours, window.attend_to_all(query, key[:, :4], value[:, :4], mask[:, :4]), atol=1e-6)
    expected = jax.nn.softmax(query[0] @ key[0, :4].T / 2) @ value[0, :4]
    np.testing.assert_allclose(ours[0], expected, atol=1e-6)
