"""Contact sheets show the frames and mark what is told."""

import numpy as np
import pytest

from jax_promptmtl.data.icons import moving_icons
from jax_promptmtl.data.icons.moving.sheet import COLOURS, sheet


@pytest.mark.parametrize("task", moving_icons.TASKS)
def test_a_sheet_has_a_row_per_clip(task):
    picture = sheet(task, [0, 3], columns=4)
    assert picture.shape == (2 * (3 * 32 + 2 + 14), 4 * (3 * 32 + 2), 3) and picture.dtype == np.uint8
    frame = moving_icons.example(task, 0)["frames"][0].repeat(3, 0).repeat(3, 1)
    shown = picture[14 : 14 + 96, :96]
    assert (shown == frame).all(2).mean() > 0.5, "mostly the frame itself"


def test_the_boxes_drawn_are_the_boxes_told():
    clip = moving_icons.example("spatial_action", 0)
    shown = sheet("spatial_action", [0])[14 : 14 + 96, 8 * 98 : 8 * 98 + 96]
    x1, y1, x2, y2 = (clip["box"][clip["valid"].sum() - 1] * 96).round().astype(int)  # drawn last
    colour = np.array(COLOURS[clip["valid"].sum() - 1])
    assert (shown[y1, x1:x2] == colour).all() and (shown[y1:y2, x2 - 1] == colour).all()
