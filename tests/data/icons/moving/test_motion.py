"""Plans stay in their square and in their state; paths do what the motions are called."""

import itertools

import numpy as np
import pytest

from jax_promptmtl.data.icons.moving import motion
from jax_promptmtl.data.icons.moving.draws import Draws

COUNT = 200
ANY = np.ones((13, 13))


def follow(segments, span, first=None, weight=ANY, length=9, pace=1.0, ease=0.0):
    draws = Draws(("plan", segments, span), range(COUNT))
    first = draws.below(13) if first is None else np.full(COUNT, motion.NUMBER[first])
    moves = motion.plan(draws, segments, first=first, weight=weight, span=span, pace=pace)
    start = np.tile(np.arange(segments) * length, (COUNT, 1))
    return moves, motion.path(moves, start, start + length, segments * length + 1, ease)


@pytest.mark.parametrize(("segments", "span"), [(1, 1.0), (3, 1.2), (7, 1.2), (7, 0.8)])
def test_every_path_fits_into_its_square_and_has_no_jumps(segments, span):
    moves, path = follow(segments, span)
    assert moves.motion.min() >= 0
    for way in (path.x, path.y):
        assert (way.max(1) - way.min(1)).max() <= span + 1e-5
        assert np.abs(np.diff(way)).max() < 0.5
    assert path.opacity.min() >= motion.FAINT - 1e-6 and path.opacity.max() <= 1 + 1e-6
    assert path.zoom.max() <= 1e-6 and path.zoom.min() >= -np.log(2.2) - 1e-5


def test_states_alternate():
    moves, path = follow(7, 1.2)
    for row, opacity in zip(moves.motion, path.opacity, strict=True):
        names = [motion.MOTIONS[m] for m in row]
        sizes = [n for n in names if n in ("grow", "shrink")]
        assert all(a != b for a, b in itertools.pairwise(sizes))
        for place, name in enumerate(names[:-1]):
            assert (name == "fade_out") == (names[place + 1] == "fade_in")
        assert (opacity[0] < 0.5) == (names[0] == "fade_in")


@pytest.mark.parametrize("ease", [0.0, 1.0])
def test_each_motion_does_what_its_name_says(ease):
    ends = {}
    for name in motion.MOTIONS:
        moves, path = follow(1, 1.2, first=name, length=16, ease=ease)
        ends[name] = [v[:, -1] - v[:, 0] for v in path]
        if name == "circle":  # the centre is equally far from all places
            centre = (
                path.x[:, :1] - moves.radius * np.cos(moves.phase),
                path.y[:, :1] - moves.radius * np.sin(moves.phase),
            )
            assert np.allclose(np.hypot(path.x - centre[0], path.y - centre[1]), moves.radius, atol=1e-5)
        if name == "bounce":
            assert path.y.max() <= 1e-5 and np.all(path.y.min(1) < -0.3)
        if name == "shake":
            assert np.all((np.diff(np.sign(path.x[:, 1:-1])) != 0).sum(1) >= 5)
        if name == "still":
            assert all(np.ptp(value) == 0 for value in (path.x, path.y, path.angle))
    x, y, zoom, angle, opacity = (np.array([ends[n][i] for n in motion.MOTIONS]) for i in range(5))
    for values, plus, minus in ((x, "right", "left"), (y, "down", "up"), (zoom, "grow", "shrink")):
        number = [motion.NUMBER[plus], motion.NUMBER[minus]]
        assert np.all(values[number[0]] > 0.4) and np.all(values[number[1]] < -0.4)
        assert np.allclose(np.delete(values, number, axis=0), 0, atol=2e-5)
    assert np.all(np.abs(angle[motion.NUMBER["spin"]]) > np.pi)
    assert np.allclose(opacity[motion.NUMBER["fade_in"]], 1 - motion.FAINT)
    assert np.allclose(opacity[motion.NUMBER["fade_out"]], motion.FAINT - 1)


def test_rules_and_counts_are_kept():
    rule = np.zeros((13, 13))
    for last, following in (
        ("left", "grow"),
        ("left", "shrink"),
        ("grow", "left"),
        ("shrink", "right"),
        ("right", "left"),
    ):
        rule[motion.NUMBER[last], motion.NUMBER[following]] = 1
    draws = Draws(("rule",), range(50))
    count = 1 + draws.below(2)
    moves = motion.plan(draws, 2, first=np.full(50, motion.NUMBER["left"]), weight=rule, span=1.3, count=count)
    assert set(moves.motion[:, 1]) == {-1, motion.NUMBER["grow"], motion.NUMBER["shrink"]}
    assert np.array_equal((moves.motion >= 0).sum(1), count)
    start = np.tile([0, 8], (50, 1))
    path = motion.path(moves, start, start + 8, 16)
    resting = count == 1
    assert np.ptp(path.x[resting, 8:], axis=1).max() == 0 and np.ptp(path.zoom[resting], axis=1).max() == 0
