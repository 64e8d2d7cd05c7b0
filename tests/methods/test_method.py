"""What every method keeps: features alone by default and at no cost, sizes handed over, depths checked."""

import jax
import jax.numpy as jnp
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.methods import METHODS
from jax_promptmtl.methods.make import make_method
from jax_promptmtl.methods.method import Method, check_depth
from jax_promptmtl.methods.none import NoPrompts

SIZES = {"towers": {"text": (3, 8), "image": (2, 12)}, "embed_dim": 12}


def test_features_stay_as_they_are():
    features = jnp.arange(6.0).reshape(2, 3)
    assert NoPrompts({}).adapts == ()
    assert NoPrompts({}).apply({}, "image", features, method="adapt") is features


def test_a_method_that_adapts_nothing_is_never_asked_to(build, batch, monkeypatch):
    def refuse(self, tower, features):
        raise AssertionError(f"adapt was called for {tower}")

    monkeypatch.setattr(Method, "adapt", refuse)
    problem = build(dict(name="tokens", length={"text": 2}, depth={"text": 1}), {"text": "task"})
    loss = jax.eval_shape(lambda p: problem.loss(problem.expand(p), problem.frozen, batch, None)[0], problem.params)
    assert loss.shape == ()
    prepared = jax.eval_shape(lambda p: problem.prepare(problem.expand(p), problem.frozen), problem.params)
    assert prepared.method == {}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_table_is_a_method(name):
    assert issubclass(METHODS[name], Method)


def test_depths_must_fit_every_tower():
    check_depth(2, SIZES["towers"])
    for depth, tower, layers in ((3, "image", 2), (0, "text", 3)):
        with pytest.raises(UserError, match=f"depth {depth} does not fit the {tower} tower; give 1 to {layers} layers"):
            check_depth(depth, SIZES["towers"])


@pytest.mark.parametrize(("tower", "depth", "message"), [("image", 3, "give 1 to 2"), ("vision", 1, "tower 'vision'")])
def test_free_tokens_for_what_is_not_there_are_an_error(tower, depth, message):
    method = make_method({"name": "tokens", "length": {tower: 2}, "depth": {tower: depth}}, SIZES)
    with pytest.raises(UserError, match=message):
        method.init(jax.random.key(0))
