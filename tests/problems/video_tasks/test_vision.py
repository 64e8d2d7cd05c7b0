"""VideoMAE of several tasks: what fine-tuning takes over of weights, and what the heads say at first."""

from functools import partial

import jax
import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video.form import InputForm
from jax_promptmtl.models.video.model_file import write_model
from jax_promptmtl.problems.video_tasks import SPECS, vision

PLAIN = {"width": 16, "layers": 2, "heads": 2, "inner": 32, "patch": 8}
FORM = InputForm(4, (16, 16))
small = partial(vision.sizes, PLAIN, form=FORM)


def test_the_trunk_and_the_last_norm_are_taken_over(monkeypatch):
    given = SPECS["recognition"].draw(small(classes=7), 5)
    given["pool"]["fc_norm"]["scale"] += 1
    monkeypatch.setattr(vision.convert_videomae, "load", lambda path, heads: (small(classes=7), given, "sha"))
    params = SPECS["recognition"].start(small(classes=2), 0, "somewhere")
    assert params["trunk"] is given["trunk"] and params["pool"]["fc_norm"] is given["pool"]["fc_norm"]
    assert params["pool"]["head"]["kernel"].shape == (16, 2)
    deeper = vision.sizes(PLAIN | {"layers": 3}, 2, FORM)
    with pytest.raises(UserError, match=r"set config\.model to them"):
        SPECS["recognition"].start(deeper, 0, "somewhere")


def test_a_model_of_another_data_set_is_a_start(tmp_path):
    spec, sizes = SPECS["spatial_action"], small(classes=3)
    given = SPECS["recognition"].draw(small(classes=7), 5)
    path = str(write_model(tmp_path, "ssv2", given, {"kind": "recognition"}))
    params = spec.start(sizes, 0, path)
    jax.tree.map(np.testing.assert_array_equal, params["trunk"], given["trunk"])
    jax.tree.map(np.testing.assert_array_equal, params["roi"]["norm"], given["pool"]["fc_norm"])
    chance = jax.nn.sigmoid(params["roi"]["head"]["bias"])
    np.testing.assert_allclose(chance, 0.01, atol=1e-4)  # most actions of most boxes are absent
    with pytest.raises(UserError, match=r"ssv2.safetensors' do not fit config\.model: patch/bias has shape"):
        spec.start(vision.sizes(PLAIN | {"width": 32}, 3, FORM), 0, path)
