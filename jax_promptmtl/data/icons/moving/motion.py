"""What icons do: thirteen motions, sequences of them that stay inside the frame, and the poses that result.

Lengths are in half frames (the frame is [-1, 1]^2, y down), times in frames, zoom in natural logarithms.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jax_promptmtl.data.icons.moving.draws import Draws

Array = np.ndarray
MOTIONS = (
    "left",
    "right",
    "up",
    "down",
    "spin",  # either way round: icons are often mirror symmetric, so that the sense of rotation hardly shows
    "grow",
    "shrink",
    "fade_in",
    "fade_out",
    "shake",
    "circle",
    "bounce",
    "still",
)
NUMBER = {name: number for number, name in enumerate(MOTIONS)}
FAINT = 0.12  # opacity before fade_in and after fade_out
LEAST_TRAVEL = 0.42
_HEADING = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_STEP = np.array([_HEADING.get(name, (0, 0)) for name in MOTIONS], np.float32)
_ZOOM = np.array([{"grow": 1, "shrink": -1}.get(name, 0) for name in MOTIONS], np.float32)
_FADE = np.array([{"fade_in": 1, "fade_out": -1}.get(name, 0) for name in MOTIONS], np.float32)


class Plan(NamedTuple):
    """S motions of each of B actors, one after another, [B, S] each."""

    motion: Array  # int, place in MOTIONS; -1 for none
    travel: Array  # length of left, right, up, down
    zoom: Array  # ln of the factor of grow and shrink, the same for all motions of an actor
    turn: Array  # angle of spin in radians, signed
    radius: Array  # of circle
    phase: Array  # where on the circle it starts, in radians
    sense: Array  # 1 or -1: which way round the circle
    hop: Array  # height of bounce
    shake: Array  # amplitude of shake
    period: Array  # of shake, in frames


class Path(NamedTuple):
    """Poses of B actors in L frames, relative to where each starts, [B, L] each."""

    x: Array
    y: Array
    zoom: Array  # ln of size over the actor's largest size: 0 or less
    angle: Array  # radians
    opacity: Array


def plan(
    draws: Draws,
    segments: int,
    *,
    first: Array,
    weight: Array,
    span: float,
    pace: float = 1.0,
    count: Array | None = None,
) -> Plan:
    """Draw sequences of motions that are possible one after another.

    An actor grows only when small, shrinks only when large, fades in only when faint and does nothing else then, and
    its whole path fits into a square of side `span`.

    Args:
      draws: random numbers of B clips.
      segments: S.
      first: int[B], first motion.
      weight: float[13, 13]; how readily a motion (row) is followed by another (column); 0 is never. Every motion that
        can occur must allow three of left, right, up and down, or fade_in alone if it is fade_out.
      span: room in x and in y, at least 2 * LEAST_TRAVEL.
      pace: factor on all lengths.
      count: int[B] of motions wanted, S if not given.

    Returns:
      The plan; motions from `count` on are -1.
    """
    sizes = _sizes(draws, segments, pace, span)
    batch = len(draws)
    nowhere = np.zeros((batch, 2), np.float32)
    state = _State(nowhere, nowhere, nowhere, first == NUMBER["fade_in"], _small_at_first(draws, first))
    motion, travel = np.empty((batch, segments), int), np.empty((batch, segments), np.float32)
    for s in range(segments):
        extent = _extent(sizes, s)  # [B, 13, 2 (from, to), 2 (x, y)]
        room = np.stack([span - (state.high - state.at), span - (state.at - state.low)], axis=1)
        reach = np.minimum(sizes.travel[:, s, None, None], room)  # [B, 2 (down, up), 2 (x, y)]
        legal = _legal(extent, state, span, reach)
        last = first if s == 0 else motion[:, s - 1]
        motion[:, s] = m = first if s == 0 else draws.choose(np.where(legal, weight[last], 0))
        step = _STEP[m] * np.where(_STEP[m] < 0, reach[:, 0], reach[:, 1])
        travel[:, s] = np.abs(step).sum(1)
        state = _follow(state, m, extent[np.arange(batch), m], step)
    if count is not None:
        motion = np.where(np.arange(segments) < count[:, None], motion, -1)
    return sizes._replace(motion=motion, travel=travel)


def _sizes(draws: Draws, segments: int, pace: float, span: float) -> Plan:
    """Draw how far and how fast everything goes; `motion` is still empty."""
    shape = (segments,)
    sign = np.where(draws.chance(0.5, 2, segments), np.float32(1), np.float32(-1))
    pi = float(np.pi)
    return Plan(
        motion=np.full((len(draws), segments), -1),
        travel=np.clip(draws.uniform(0.75, 1.15, *shape) * pace, LEAST_TRAVEL, span),
        zoom=np.repeat(draws.uniform(np.log(1.8), np.log(2.2), 1), segments, axis=1),
        turn=draws.uniform(1.2 * pi, 2.4 * pi, *shape) * sign[:, 0] * pace,
        radius=np.minimum(draws.uniform(0.3, 0.45, *shape) * pace, 0.45 * span),
        phase=draws.uniform(0, 2 * pi, *shape),
        sense=sign[:, 1],
        hop=np.minimum(draws.uniform(0.5, 0.75, *shape) * pace, 0.8 * span),
        shake=np.minimum(draws.uniform(0.16, 0.24, *shape), 0.2 * span),
        period=draws.uniform(3.2, 4.4, *shape),
    )


class _State(NamedTuple):
    """B actors between two motions."""

    low: Array  # [B, 2 (x, y)], corner of the box around the path so far
    high: Array  # [B, 2], the opposite corner
    at: Array  # [B, 2], place
    faint: Array  # bool[B]
    small: Array  # bool[B]


def _small_at_first(draws: Draws, first: Array) -> Array:
    coin = draws.chance(0.35)
    return np.where(_ZOOM[first] != 0, _ZOOM[first] > 0, coin)


def _follow(state: _State, motion: Array, extent: Array, step: Array) -> _State:
    """Return the state after motions int[B] of steps [B, 2] whose oscillations stay in [B, 2 (from, to), 2]."""
    return _State(
        np.minimum(state.low, state.at + np.minimum(extent[:, 0], step)),
        np.maximum(state.high, state.at + np.maximum(extent[:, 1], step)),
        state.at + step,
        (state.faint | (motion == NUMBER["fade_out"])) & (motion != NUMBER["fade_in"]),
        (state.small | (motion == NUMBER["shrink"])) & (motion != NUMBER["grow"]),
    )


def _extent(sizes: Plan, s: int) -> Array:
    """Return float32[B, 13, 2, 2]: the corners, relative to the start, of the box that the oscillations stay in."""
    box = np.zeros((len(sizes.motion), len(MOTIONS), 2, 2), np.float32)
    centre = -np.stack([np.cos(sizes.phase[:, s]), np.sin(sizes.phase[:, s])], axis=1)
    radius = sizes.radius[:, s, None]
    box[:, NUMBER["circle"], 0] = radius * (centre - 1)
    box[:, NUMBER["circle"], 1] = radius * (centre + 1)
    box[:, NUMBER["bounce"], 0, 1] = -sizes.hop[:, s]
    box[:, NUMBER["shake"], 0, 0] = -sizes.shake[:, s]
    box[:, NUMBER["shake"], 1, 0] = sizes.shake[:, s]
    return box


def _legal(extent: Array, state: _State, span: float, reach: Array) -> Array:
    """Return bool[B, 13]: motions that fit into the room left and into the state of the actor."""
    new_low = np.minimum(state.low[:, None], state.at[:, None] + extent[:, :, 0])
    new_high = np.maximum(state.high[:, None], state.at[:, None] + extent[:, :, 1])
    legal: Array = (new_high - new_low <= span).all(2)
    towards = np.where(_STEP[None] < 0, reach[:, :1], reach[:, 1:])  # [B, 13, 2]
    legal &= ((_STEP == 0) | (towards >= min(LEAST_TRAVEL, span / 2) - 1e-6)).all(2)
    legal &= (_ZOOM == 0) | ((_ZOOM > 0) == state.small[:, None])
    legal &= (_FADE > 0) == state.faint[:, None]
    return legal


def path(moves: Plan, start: Array, stop: Array, frames: int, ease: float = 0.0) -> Path:
    """Follow plans.

    Args:
      moves: S motions of each of B actors.
      start, stop: int[B, S]; motion s runs through the frames from start to stop - 1.
      frames: L.
      ease: 0 for a constant speed, 1 for a start and an end at rest.

    Returns:
      The poses; each motion has gone its whole way at frame `stop`.
    """
    time = np.arange(frames, dtype=np.float32)
    length = np.maximum(stop - start, 1).astype(np.float32)[..., None]
    p = np.clip((time - start[..., None]) / length, 0, 1)  # [B, S, L]: the share done
    p = p + np.float32(ease) * (p * p * (3 - 2 * p) - p)
    active = (p > 0) & (p < 1)
    m = np.maximum(moves.motion, 0)
    on = (moves.motion >= 0)[..., None]
    way = np.where(on, p * moves.travel[..., None], 0)
    x, y = way * _STEP[m, 0][..., None], way * _STEP[m, 1][..., None]
    circle, bounce, shake = (on & active & (m == NUMBER[name])[..., None] for name in ("circle", "bounce", "shake"))
    turns = np.maximum(np.round(length / 13), 1)
    theta = moves.phase[..., None] + 2 * np.float32(np.pi) * moves.sense[..., None] * turns * p
    x = x + circle * moves.radius[..., None] * (np.cos(theta) - np.cos(moves.phase)[..., None])
    y = y + circle * moves.radius[..., None] * (np.sin(theta) - np.sin(moves.phase)[..., None])
    hops = np.maximum(np.round(length / 6), 1)
    y = y - bounce * moves.hop[..., None] * np.abs(np.sin(np.float32(np.pi) * hops * p))
    since = time - start[..., None]
    x = x + shake * moves.shake[..., None] * np.sin(2 * np.float32(np.pi) * since / moves.period[..., None])
    zoom = (np.where(on, p, 0) * _ZOOM[m][..., None] * moves.zoom[..., None]).sum(1)
    angle = (np.where(on, p, 0) * (m == NUMBER["spin"])[..., None] * moves.turn[..., None]).sum(1)
    fade = (np.where(on, p, 0) * _FADE[m][..., None]).sum(1)
    return Path(
        x.sum(1),
        y.sum(1),
        zoom - np.where((_first(zoom) > 0), moves.zoom[:, :1], 0),
        angle,
        FAINT + (1 - FAINT) * np.clip(fade + (_first(fade) <= 0), 0, 1),
    )


def _first(level: Array) -> Array:
    """Return [B, 1]: 1 if a level [B, L] that starts at 0 leaves it upwards first, -1 if downwards, 0 if never."""
    moved = np.abs(level) > 1e-6
    at = np.argmax(moved, axis=1)[:, None]
    signs: Array = np.sign(np.take_along_axis(level, at, axis=1)) * moved.any(1)[:, None]
    return signs


def table(names: Sequence[str]) -> Array:
    """Return int[C]: the places in MOTIONS of these names."""
    return np.array([NUMBER[name] for name in names])
