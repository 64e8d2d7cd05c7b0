"""Convolution, normalisation and pooling along time against torch, with padding and prompts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.models.layers import temporal
from jax_promptmtl.models.layers.temporal import TimeConv

MASK = np.arange(9)[None] < np.array([[9], [6]])


def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((2, 9, 4), dtype=np.float32), rng.standard_normal((2, 3, 4), dtype=np.float32)


@pytest.mark.parametrize("options", [{}, {"dilation": 4}, {"stride": 2}, {"depthwise": True, "stride": 2}])
def test_convolution_equals_torch_on_what_is_valid(options):
    torch = pytest.importorskip("torch")
    x, prompts = data()
    conv = TimeConv(4, bias=0.5, **options)
    (ours, ours_p), variables = conv.init_with_output(jax.random.key(0), x, MASK, prompts)
    kernel = torch.tensor(np.asarray(variables["params"]["kernel"])).permute(2, 1, 0)
    stride, dilation = options.get("stride", 1), options.get("dilation", 1)
    groups = 4 if options.get("depthwise") else 1
    for row, length in enumerate((9, 6)):
        video = torch.tensor(x[row, :length].T)[None]
        bias = torch.full((4,), 0.5)
        theirs = torch.nn.functional.conv1d(video, kernel, bias, stride, dilation, dilation, groups)[0].T
        np.testing.assert_allclose(ours[row, : len(theirs)], theirs, atol=1e-5)
        for i in range(3):  # a prompt is a sequence of one step
            alone = torch.tensor(prompts[row, i])[None, :, None]
            lone = torch.nn.functional.conv1d(alone, kernel, bias, 1, dilation, dilation, groups)[0, :, 0]
            np.testing.assert_allclose(ours_p[row, i], lone, atol=1e-5)


def test_instance_norm_equals_torch_on_what_is_valid():
    torch = pytest.importorskip("torch")
    x, prompts = data()
    ours, ours_p = temporal.instance_norm(jnp.asarray(x), jnp.asarray(MASK), jnp.asarray(prompts))
    for row, length in enumerate((9, 6)):
        valid = x[row, :length]
        theirs = torch.nn.InstanceNorm1d(4)(torch.tensor(valid.T)[None])[0].T
        np.testing.assert_allclose(ours[row, :length], theirs, atol=1e-5)
        both = np.concatenate([valid, prompts[row]])
        expected = (prompts[row] - both.mean(0)) / np.sqrt(both.var(0) + 1e-5)
        np.testing.assert_allclose(ours_p[row], expected, atol=1e-5)


def test_prompts_stay_bounded_in_a_channel_without_variance():
    x, prompts = np.ones((1, 9, 4), np.float32), np.full((1, 2, 4), 3, np.float32)
    _, ours = temporal.instance_norm(jnp.asarray(x), jnp.ones((1, 9), bool), jnp.asarray(prompts))
    np.testing.assert_allclose(ours, np.sqrt(9 / 2), rtol=1e-4)  # of 11 numbers, 2 of them 3 and the others 1


def test_pooling_equals_torch_on_what_is_valid():
    torch = pytest.importorskip("torch")
    x = data()[0] - 5  # so that a zero from the padding would win
    ours = temporal.max_pool(jnp.asarray(x), jnp.asarray(MASK), 2)
    for row, length in enumerate((9, 6)):
        theirs = torch.nn.functional.max_pool1d(torch.tensor(x[row, :length].T)[None], 3, 2, 1)[0].T
        np.testing.assert_array_equal(ours[row, : len(theirs)], theirs)
