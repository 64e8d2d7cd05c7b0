"""Weights of a file in the place of drawn ones: what a stage keeps, what it draws, and what is refused."""

from functools import partial

import jax
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.problems.video_tasks import adopt as module

adopt = partial(module.adopt, head="classify", later=("temporal", "tracker"))


def leaves(**shapes):
    return tree.unflatten(
        {path.replace("__", "/"): np.full(shape, float(i)) for i, (path, shape) in enumerate(shapes.items())}
    )


def test_a_stage_starts_from_the_one_before_and_keeps_what_is_new():
    drawn = leaves(detector__a=(2,), detector__classify_0__kernel=(3, 4), temporal__b=(2,))
    given = jax.tree.map(lambda leaf: leaf + 10, leaves(detector__a=(2,), detector__classify_0__kernel=(3, 4)))
    found = adopt(drawn, given, "file")
    assert found["detector"]["a"][0] == 10 and found["temporal"] == drawn["temporal"]
    assert adopt(drawn, {}, "") is drawn
    later = leaves(detector__a=(2,), detector__classify_0__kernel=(3, 4), tracker__c=(1,))
    assert adopt(drawn, later, "file").keys() == {"detector", "temporal"}
    with pytest.raises(UserError, match=r"'file' do not fit config\.model: detector/a has shape"):
        adopt(drawn, leaves(detector__a=(3,), detector__classify_0__kernel=(3, 4)), "file")
    with pytest.raises(UserError, match="-detector/classify_0/kernel"):
        adopt(drawn, leaves(detector__a=(2,)), "file")


def test_heads_for_other_classes_are_cut_or_drawn():
    drawn = leaves(detector__a=(2,), detector__classify_0__kernel=(3, 4))
    given = leaves(detector__a=(2,)) | {}
    given["detector"]["classify_0"] = {"kernel": np.arange(15.0).reshape(3, 5)}
    kernel = [adopt(drawn, given, "x", unused=n)["detector"]["classify_0"]["kernel"] for n in (0, 1)]
    np.testing.assert_array_equal(kernel[0], drawn["detector"]["classify_0"]["kernel"])
    np.testing.assert_array_equal(kernel[1], np.arange(15.0).reshape(3, 5)[:, 1:])
