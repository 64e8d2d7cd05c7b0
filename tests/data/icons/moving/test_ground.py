"""Backgrounds and noise."""

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.icons.moving import ground
from jax_promptmtl.data.icons.moving.draws import Draws


@pytest.mark.parametrize("kind", ground.KINDS)
def test_a_still_camera_takes_one_picture_around_the_colour(kind):
    colour = np.tile(np.float32([90, 120, 60]), (6, 1))
    planes, camera = ground.paint(Draws((kind,), range(6)), kind, colour, 16, pan=0)
    assert planes.shape == (6, 3, 1, 32, 32) and camera.shape == (6, 2, 16) and not camera.any()
    assert planes.std((2, 3, 4)).max() > 2 and np.abs(planes.mean((2, 3, 4)) - colour).max() < 120


def test_a_moving_camera_shifts_the_picture_by_what_it_says():
    planes, camera = ground.paint(Draws(("pan",), range(5)), "cloud", np.zeros((5, 3), np.float32), 9, pan=40.0)
    for clip in range(5):
        way = camera[clip, :, 8] - camera[clip, :, 0]
        assert 15 < np.hypot(*way) < 41
        first, last = planes[clip, 0, 0], planes[clip, 0, 8]
        dy, dx = np.round(way).astype(int)
        ours = first[max(0, -dy) : 32 - max(0, dy), max(0, -dx) : 32 - max(0, dx)]
        moved = last[max(0, dy) : 32 - max(0, -dy), max(0, dx) : 32 - max(0, -dx)]
        if ours.size > 60:
            assert np.corrcoef(ours.ravel(), moved.ravel())[0, 1] > 0.7


def test_noise_is_bounded_in_strength_and_differs_from_frame_to_frame():
    planes = np.zeros((20, 3, 4, 32, 32), np.float32)
    ground.add_noise(Draws(("noise",), range(20)), planes, strongest=6)
    strength = planes.std((1, 2, 3, 4))
    assert strength.min() > 0.9 and strength.max() < 6.3 and np.ptp(strength) > 2
    assert abs(np.corrcoef(planes[0, 0, 0].ravel(), planes[0, 0, 1].ravel())[0, 1]) < 0.15


def test_unknown_backgrounds_are_refused():
    with pytest.raises(UserError, match="background 'clouds'"):
        ground.tiles("clouds")
