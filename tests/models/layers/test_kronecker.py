"""Kronecker prompts against numpy, and the facts of eq. 6-10 that MmAP rests on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.layers.kronecker import kronecker

SIZES = [(1, 3, 4, 2), (2, 2, 3, 5), (4, 1, 1, 6), (3, 2, 2, 2)]


def draw(p, q, m, n, *batch):
    rng = np.random.default_rng([p, q, m, n])
    return rng.normal(size=(*batch, p, q)).astype(np.float32), rng.normal(size=(*batch, m, n)).astype(np.float32)


def shuffle(p, m):
    """Return the perfect shuffle S with (S x)[r * p + i] = x[i * m + r]."""
    order = np.arange(p * m).reshape(p, m).T.ravel()
    return np.eye(p * m)[order]


@pytest.mark.parametrize("sizes", SIZES)
def test_both_orders_are_numpys_kron(sizes):
    scale, source = draw(*sizes)
    np.testing.assert_array_equal(kronecker(scale, source), np.kron(scale, source))
    np.testing.assert_array_equal(kronecker(scale, source, "source_scale"), np.kron(source, scale))


@pytest.mark.parametrize("order", ["scale_source", "source_scale"])
def test_leading_axes_are_a_batch(order):
    scale, source = draw(2, 3, 4, 5, 6)
    one = jnp.kron if order == "scale_source" else lambda a, b: jnp.kron(b, a)
    np.testing.assert_array_equal(kronecker(scale, source, order), jax.vmap(one)(scale, source))


@pytest.mark.parametrize("sizes", SIZES)
def test_the_orders_differ_by_two_perfect_shuffles(sizes):
    scale, source = draw(*sizes)
    p, q, m, n = sizes
    other = shuffle(p, m) @ np.asarray(kronecker(scale, source)) @ shuffle(q, n).T
    np.testing.assert_allclose(kronecker(scale, source, "source_scale"), other, rtol=1e-6)
    if min(p * m, q * n) > max(p, m, q, n):
        assert not np.allclose(kronecker(scale, source), kronecker(scale, source, "source_scale"))


def test_columns_are_tied_in_blocks_or_in_strides():
    scale, source = np.float32([[1, 2]]), np.float32([[3, 5, 7]])
    assert kronecker(scale, source).tolist() == [[3, 5, 7, 6, 10, 14]]
    assert kronecker(scale, source, "source_scale").tolist() == [[3, 6, 5, 10, 7, 14]]


def test_an_unknown_order_is_an_error():
    with pytest.raises(UserError, match=r"Unknown Kronecker order 'scale'.*scale_source, source_scale"):
        kronecker(jnp.ones((1, 1)), jnp.ones((1, 1)), "scale")
