"""The grammar of segmentation clips, read from the table itself; what clips hold is in test_moving_icons.py."""

import numpy as np

from jax_promptmtl.data.icons.moving import scene
from jax_promptmtl.data.icons.moving.motion import MOTIONS, NUMBER


def test_the_grammar_is_the_documented_one():
    rule = scene.grammar()
    allowed = {name: {MOTIONS[i] for i in np.flatnonzero(rule[:, NUMBER[name]])} for name in MOTIONS}
    assert (
        allowed["circle"] == {"grow"} and allowed["spin"] == {"left", "right"} and allowed["bounce"] == {"up", "down"}
    )
    assert allowed["left"] == set(MOTIONS) - {"left"}


def test_every_task_has_a_scene():
    assert list(scene.SCENES) == [function.__name__ for function in scene.SCENES.values()]
