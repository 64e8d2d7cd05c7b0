"""A model is found under whatever a training puts around it."""

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.weights.wrappers import under

MODEL = {"fc.weight": np.ones((2, 2)), "fc.bias": np.ones(2), "body.0.bias": np.ones(3)}
PREFIXES = (
    *("", "module.", "model.", "state_dict.", "model_state_dict.", "state_dict.module.", "model.module.backbone."),
    *("state_dict.model.", "state_dict.net.student.", "ema.", "model_ema.", "module._orig_mod."),
)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_prefix_of_any_depth(prefix):
    given = {prefix + name: leaf for name, leaf in MODEL.items()}
    beside = {"epoch": np.ones(()), "loss.weight": np.ones(3)} if prefix else {}
    assert under(given | beside, ["fc.weight"]).keys() == MODEL.keys()


def test_what_compiling_and_sharding_put_inside_names():
    inside = {"fc._orig_mod.weight": 1, "_fsdp_wrapped_module.body.0._checkpoint_wrapped_module.bias": 2}
    assert under(inside, ["fc.weight"]) == {"fc.weight": 1, "body.0.bias": 2}


@pytest.mark.parametrize("average", ["model_ema.", "state_dict_ema.module.", "ema_model.", "swa.", "teacher."])
def test_of_a_model_and_its_average_the_one_that_is_asked_for(average):
    both = {f"model.{name}": 1 for name in MODEL} | {average + name: 2 for name in MODEL}
    assert set(under(both, ["fc.weight"]).values()) == {1}
    assert set(under(both, ["fc.weight"], average=True).values()) == {2}
    assert set(under({average + name: 2 for name in MODEL}, ["fc.weight"]).values()) == {2}


def test_several_models_and_none():
    two = {f"{net}.{name}": leaf for net in ("left", "right") for name, leaf in MODEL.items()}
    with pytest.raises(UserError, match=r"hold 2 models \(under 'left\.', 'right\.'\)"):
        under(two, ["fc.weight"])
    assert under(MODEL, ["other.weight"]) is None
    assert under({"xfc.weight": 1}, ["fc.weight"]) is None
    assert under({"m.fc.bias": 1, "m.fc.weight": 2}, ["other", "fc.weight"]) == {"fc.bias": 1, "fc.weight": 2}


def test_a_trunk_s_own_prefix_does_not_hide_the_head():
    given = {"model.backbone.fc.weight": 1, "model.head.bias": 2}
    assert under(given, ["fc.weight"], trunk="backbone") == {"backbone.fc.weight": 1, "head.bias": 2}
