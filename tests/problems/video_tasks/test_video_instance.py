"""DVIS: which frames fit it, and which frames of a padded video it sees."""

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video.form import InputForm
from jax_promptmtl.models.video.middle import IN_HALF
from jax_promptmtl.problems.video_tasks import icons
from jax_promptmtl.problems.video_tasks.video_instance import SPEC


def test_frames_that_masks_do_not_fit_are_refused():
    with pytest.raises(UserError, match="Frames of 33 x 48 pixels do not fit masks of every 2 pixels"):
        SPEC.handle(icons.sizes(SPEC.name), {}, InputForm(2, (33, 48)), IN_HALF)
    with pytest.raises(UserError, match="stage of DVIS"):
        icons.sizes(SPEC.name, "whole")


def test_an_auxiliary_sees_frames_that_are_no_padding():
    batch = {"frames": np.zeros((1, 4, 2, 2, 3), np.uint8), "present": np.array([[True, True, True, False]])}
    batch["frames"][0, 3] = 255
    seen = SPEC.see(InputForm(2, (2, 2)), batch)
    assert seen["mask"].tolist() == [[True, True]] and np.ptp(seen["video"], axis=(0, 1, 2, 3)).max() == 0
    del batch["present"]
    assert SPEC.see(InputForm(2, (2, 2)), batch)["mask"].tolist() == [[True, True]]
