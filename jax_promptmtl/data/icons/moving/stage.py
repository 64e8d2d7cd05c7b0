"""Putting actors into a clip: how a task's clips look, where actors stand, how they are painted and disturbed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jax_promptmtl.data.icons import raster
from jax_promptmtl.data.icons.moving import frame, ground, motion, render
from jax_promptmtl.data.icons.moving.draws import Draws
from jax_promptmtl.data.icons.moving.render import Sprites

Array = np.ndarray
_TRIALS = 8  # placements, of which the one with the most distance between actors is taken


@dataclass(frozen=True)
class Domain:
    """How the clips of a task look.

    Attributes:
      frames: L.
      classes: names that labels count through: motions, or concepts for the two object tasks.
      families: icon families of the actors.
      background: a key of `ground.KINDS`.
      size: range of an actor's long side over the frame's side.
      pace: factor on the lengths of motions.
      ease: 0 for motions of constant speed, 1 for a start and an end at rest.
      pan: the camera's longest way in pixels.
      body: fill the drawings with a second colour.
      named: the classes are concepts.
    """

    frames: int
    classes: tuple[str, ...]
    families: tuple[str, ...]
    background: str
    size: tuple[float, float]
    pace: float = 1.0
    ease: float = 0.0
    pan: float = 0.0
    body: bool = False
    named: bool = False

    def span(self) -> float:
        """Return the room that the centre of the largest actor has, in half frames."""
        return 2 * float(reach(np.asarray(self.size[1], np.float32)))


class Scene(NamedTuple):
    """B clips before they are rounded to bytes."""

    planes: Array  # float32[B, 3, L, 32, 32]
    coverage: Array  # float32[B, A, L, 32, 32] of every actor alone
    concept: Array  # int[B, A]


def reach(size: Array) -> Array:
    """Return how far from the middle of the frame a centre may be: nearly all of the icon stays inside.

    >>> round(float(reach(np.float64(0.4))), 2)
    0.66
    """
    return 1 - 0.85 * size


def stage(
    draws: Draws,
    domain: Domain,
    drawings: Sprites,
    paths: Sequence[motion.Path],
    present: Array,
    *,
    wander: float = 0.02,
    meet: int | None = None,
) -> Scene:
    """Choose background, drawings, sizes, colours and places, and paint.

    Args:
      draws: random numbers of B clips.
      domain: how the clips look.
      drawings: what the actors look like.
      paths: poses of each of A actors, relative to its start.
      present: bool[B, A].
      wander: amplitude of a slow aimless drift.
      meet: frame in which all actors are to be in about the same place; if None they are kept apart.

    Returns:
      The scene.
    """
    largest = draws.uniform(*domain.size, len(paths))
    pose = [np.stack(values, axis=1) for values in zip(*paths, strict=True)]
    x, y, zoom, angle, opacity = (np.asarray(value, np.float32) for value in pose)
    x, y = x + _wander(draws, x.shape, wander), y + _wander(draws, y.shape, wander)
    if meet is None:
        x, y = _apart(draws, x, y, largest, present)
    else:
        x, y = _together(draws, x, y, largest, meet)
    back, ink, body = _colours(draws, len(paths))
    planes, camera = ground.paint(draws, domain.background, back, domain.frames, domain.pan)
    cast = render.Cast(
        sprite=drawings.choose(draws, len(paths)),
        present=present,
        y=y + camera[:, None, 0] * np.float32(2 / frame.SIZE),
        x=x + camera[:, None, 1] * np.float32(2 / frame.SIZE),
        size=largest[..., None] * np.exp(zoom),
        angle=angle + draws.uniform(-0.15, 0.15, len(paths))[..., None],
        opacity=opacity,
    )
    planes = np.repeat(planes, domain.frames // planes.shape[2], axis=2)  # a still camera has one picture so far
    coverage = _perform(planes, drawings, cast, ink, body if domain.body else None)
    ground.add_noise(draws, planes, strongest=6)
    return Scene(planes, coverage, drawings.concept[cast.sprite])


def _perform(planes: Array, drawings: Sprites, cast: render.Cast, ink: Array, body: Array | None) -> Array:
    """Paint the actors, later ones over earlier ones; return what each covers."""
    strokes = render.cover(drawings.ink, cast)
    whole = strokes if body is None else render.cover(drawings.body, cast)
    for actor in range(strokes.shape[1]):
        if body is not None:
            render.paint(planes, whole[:, actor], body[:, actor], cast.opacity[:, actor])
        render.paint(planes, strokes[:, actor], ink[:, actor], cast.opacity[:, actor])
    return whole


def _wander(draws: Draws, shape: tuple[int, ...], amplitude: float) -> Array:
    """Draw a slow swing float32[B, A, L] around 0 that takes 30 to 60 frames."""
    actors, frames = shape[1:]
    period, phase = draws.uniform(30, 60, actors, 1), draws.uniform(0, 2 * np.pi, actors, 1)
    swing: Array = np.float32(amplitude) * np.sin(
        np.arange(frames, dtype=np.float32) * np.float32(2 * np.pi) / period + phase
    )
    return swing


def _apart(draws: Draws, x: Array, y: Array, size: Array, present: Array) -> tuple[Array, Array]:
    """Shift every path to a random place inside the frame, far from the other actors in the middle of the clip."""
    actors, frames = x.shape[1:]
    trials = _TRIALS if actors > 1 else 1
    room = reach(size)[:, None]
    centre = []
    for value in (x, y):
        low, high = (-room - value.min(2)[:, None]), (room - value.max(2)[:, None])
        start = low + (high - low) * draws.uniform(0, 1, trials, actors)
        centre.append(np.where(low <= high, start, (low + high) / 2))
    place = np.stack(centre, axis=-1)  # [B, trials, A, 2]
    middle = place + np.stack([x, y], axis=-1)[:, None, :, frames // 2]
    gap = np.abs(middle[:, :, :, None] - middle[:, :, None]).max(-1)  # [B, trials, A, A]
    pair = present[:, :, None] & present[:, None] & ~np.eye(actors, dtype=bool)
    best = np.where(pair[:, None], gap, 9).min((2, 3)).argmax(1)
    chosen = place[np.arange(len(place)), best][:, :, None]
    return x + chosen[..., 0], y + chosen[..., 1]


def _together(draws: Draws, x: Array, y: Array, size: Array, meet: int) -> tuple[Array, Array]:
    """Shift every path so that all are near one point in frame `meet`, and hold them inside the frame."""
    point = draws.uniform(-0.2, 0.2, 2)[:, :, None, None]
    off = draws.uniform(-0.18, 0.18, 2, x.shape[1])[..., None]
    limit = reach(size)[..., None]
    shifted = [value - value[..., meet, None] + point[:, i] + off[:, i] for i, value in enumerate((x, y))]
    return np.clip(shifted[0], -limit, limit), np.clip(shifted[1], -limit, limit)


def _colours(draws: Draws, actors: int) -> tuple[Array, Array, Array]:
    """Draw the mean of the background [B, 3], inks and bodies [B, A, 3] whose lumas differ clearly."""
    level = draws.uniform(50, 205)
    back = frame.shade(draws.uniform(0, 255, 3), level)
    side = np.where(level > 127.5, -1, 1)[:, None]
    gap = draws.uniform(95, 135, actors)
    ink = frame.shade(draws.uniform(0, 255, actors, 3), level[:, None] + side * gap)
    body = frame.shade(draws.uniform(0, 255, actors, 3), level[:, None] + side * gap * 0.5)
    return back, ink, body


def act(draws: Draws, domain: Domain, label: Array) -> list[motion.Path]:
    """Let each of A actors make one motion from the first frame to the last; `label` int[B, A] counts the classes."""
    known = motion.table(domain.classes)
    start, stop = np.zeros((len(draws), 1), int), np.full((len(draws), 1), domain.frames)
    nothing = np.zeros((len(motion.MOTIONS),) * 2)
    paths = []
    for actor in range(label.shape[1]):
        moves = motion.plan(
            draws, 1, first=known[label[:, actor]], weight=nothing, span=domain.span(), pace=domain.pace
        )
        paths.append(motion.path(moves, start, stop, domain.frames, domain.ease))
    return paths


def drift(draws: Draws, frames: int, heading: Array, way: tuple[float, float]) -> motion.Path:
    """Let an actor glide and turn a little: `heading` float[B] in radians, `way` the range of its length."""
    share = np.linspace(-0.5, 0.5, frames, dtype=np.float32)
    length = draws.uniform(*way)
    along = length[:, None] * share
    turn = draws.uniform(-0.5, 0.5)[:, None] * share
    zoom = draws.uniform(-0.3, 0.3)[:, None] * (share + 0.5)
    x, y = along * np.cos(heading)[:, None], along * np.sin(heading)[:, None]
    return motion.Path(x, y, zoom - np.maximum(zoom.max(1, keepdims=True), 0), turn, np.ones_like(x))


def sweep(draws: Draws, planes: Array, share: float) -> Array:
    """Paint a bar that passes in front of everything in some frames of a share of the clips.

    Returns:
      bool[B, L, 32, 32]: where the bar is.
    """
    frames = planes.shape[2]
    line = (np.arange(frame.SIZE) + 0.5) * (2 / frame.SIZE) - 1
    first, length = draws.below(frames - 8), 6 + draws.below(5)
    there = draws.chance(share)[:, None] & (np.arange(frames) >= first[:, None])
    there &= np.arange(frames) < (first + length)[:, None]
    progress = (np.arange(frames) - first[:, None]) / length[:, None]
    at = np.where(draws.chance(0.5), -1, 1)[:, None] * (1.2 - 2.4 * progress)
    inside = np.abs(line - at[..., None]) < draws.uniform(0.14, 0.24)[:, None, None]  # [B, L, 32]
    upright = draws.chance(0.5)[:, None, None, None]
    bar = np.where(upright, inside[:, :, None], inside[..., None]) & there[..., None, None]
    colour = draws.uniform(20, 235, 3)
    for channel in range(3):
        plane = planes[:, channel]
        plane[...] = np.where(bar, colour[:, channel, None, None, None], plane)
    result: Array = bar
    return result


def smear(draws: Draws, planes: Array, share: float) -> None:
    """Blur three to five consecutive frames of a share of the clips, in place."""
    frames = planes.shape[2]
    first, length, passes = draws.below(frames - 5), 3 + draws.below(3), 2 + draws.below(3)
    for row in np.flatnonzero(draws.chance(share)):
        part = planes[row, :, first[row] : first[row] + length[row]]
        part[...] = raster.blur(part.reshape(-1, *part.shape[-2:]), int(passes[row])).reshape(part.shape)


def partition(draws: Draws, total: Array, pieces: int, least: int, count: Array | None = None) -> Array:
    """Cut lengths into pieces of random length.

    Args:
      draws: random numbers of B clips.
      total: int[B].
      pieces: how many.
      least: the shortest piece.
      count: int[B]; pieces from this number on get length 0; all are used if not given.

    Returns:
      int[B, pieces] with the sums `total`.

    >>> partition(Draws(("x",), [0]), np.array([12]), 4, least=3).tolist()
    [[3, 3, 3, 3]]
    """
    used = np.arange(pieces) < (np.full(len(draws), pieces) if count is None else count)[:, None]
    spare = total - least * used.sum(1)
    share = np.cumsum(draws.uniform(0.05, 1, pieces) * used, axis=1)
    end = np.round(share / share[:, -1:] * spare[:, None]).astype(int)
    lengths: Array = np.diff(end, axis=1, prepend=0) + least * used
    return lengths
