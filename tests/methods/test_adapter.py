"""CLIP-Adapter: counts, the formula, and that every row of a mixed batch gets its own task's adapter."""

import functools

import jax
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.methods import METHODS
from jax_promptmtl.methods.adapter import FeatureAdapter

FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # compile fast, run slow
COUNTS = {  # side, reduction, bias, parameters at 512 features
    "released: image, r 4": ("image", 4, False, 131_072),
    "one of four with biases: 4 x 131,712 is the paper's .53M": ("image", 4, True, 526_848 // 4),
    "two towers, r 2, with biases: the paper's .53M too": ("both", 2, True, 525_824),
    "text": ("text", 4, False, 131_072),
    "both": ("both", 4, False, 262_144),
}


@pytest.mark.parametrize("case", COUNTS)
def test_counts(case):
    side, reduction, bias, total = COUNTS[case]
    params = jax.eval_shape(FeatureAdapter(512, side, 0.2, reduction, bias).init, jax.random.key(0))["params"]
    assert tree.count(params) == total
    assert set(params) == ({"image", "text"} if side == "both" else {side})


def mixed(params, features, ratio):
    """ratio ReLU(W2 ReLU(W1 f)) + (1 - ratio) f, in numpy."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x = features
    for name in ("down", "up"):
        x = np.maximum(x @ params[name]["kernel"] + params[name].get("bias", 0), 0)
    return ratio * x + (1 - ratio) * features


@pytest.mark.parametrize("bias", [False, True])
def test_features_are_mixed_with_the_bottleneck_of_their_tower(bias):
    method = FeatureAdapter(8, "both", 0.3, 2, bias)
    params = jax.jit(method.init)(jax.random.key(0))["params"]
    assert method.apply({"params": params}) == {} and method.adapts == ("image", "text")
    features = np.random.default_rng(0).normal(size=(3, 5, 8)).astype(np.float32)
    for tower in ("image", "text"):
        ours = method.apply({"params": params}, tower, features, method="adapt")
        np.testing.assert_allclose(ours, mixed(params[tower], features, 0.3), rtol=1e-5, atol=1e-6)
    assert np.abs(mixed(params["text"], features, 0.3) - mixed(params["image"], features, 0.3)).max() > 1e-3


def test_initial_values_are_those_of_torch():
    params = jax.jit(FeatureAdapter(512, bias=True).init)(jax.random.key(0))["params"]["image"]
    for name, inputs in (("down", 512), ("up", 128)):
        for leaf in params[name].values():
            assert 0.95 * inputs**-0.5 < np.abs(leaf).max() <= inputs**-0.5


def test_each_row_of_a_mixed_batch_gets_its_own_tasks_adapter(build, backbone, batch):
    problem = build(dict(name="adapter", side="both", ratio=0.5), {"image": "task", "text": "task"})
    plain = build(dict(name="none"), {})

    @functools.partial(jax.jit, compiler_options=FAST)
    def everything(params, frozen, batch):
        texts = plain.prepare(plain.expand(plain.params), plain.frozen).classes
        images = backbone.model.apply({"params": backbone.params}, batch["image"], method="encode_image")
        prepared = problem.prepare(problem.expand(params), frozen)
        return texts, images, problem.predict(prepared, frozen, batch)

    texts, images, logits = map(np.asarray, everything(problem.params, problem.frozen, batch))
    method = problem.params["method"]
    for row, feature, task in zip(logits, images, batch["task"], strict=True):
        own = {tower: jax.tree.map(lambda leaf, t=task: leaf[t], method[tower]) for tower in method}
        image, text = mixed(own["image"], feature, 0.5), mixed(own["text"], texts[task], 0.5)
        cosine = text @ image / np.linalg.norm(text, axis=1) / np.linalg.norm(image)
        expected, real = np.exp(backbone.params["logit_scale"]) * cosine, np.isfinite(row)
        np.testing.assert_allclose(row[real], expected[real], rtol=1e-4, atol=1e-5)


def test_mistakes_are_one_sentence():
    with pytest.raises(UserError, match="reduction 5 must divide the embedding 12"):
        FeatureAdapter(12, reduction=5).init(jax.random.key(0))
    with pytest.raises(UserError, match=r"side of the adapter 'images'.*Did you mean 'image'"):
        FeatureAdapter(12, side="images").init(jax.random.key(0))


def test_it_is_the_method_named_adapter():
    assert METHODS["adapter"] is FeatureAdapter
