"""The six kinds of clip: what happens in them, and what is told about it."""

from collections.abc import Callable

import numpy as np

from jax_promptmtl.data.icons.moving import frame, motion, render, stage
from jax_promptmtl.data.icons.moving.draws import Draws
from jax_promptmtl.data.icons.moving.render import Sprites
from jax_promptmtl.data.icons.moving.stage import Domain

Array = np.ndarray
Clips = dict[str, Array]
KEY_FRAME = 8
ACTORS = 3  # slots of actors, and of the segments of a temporal_action clip
VISIBLE = 0.2  # share of an object that must be seen for it to be told
_SEGMENT = (8, 20)  # frames of a temporal_action segment
_PAUSE = 3  # least number of frames before, between and after them
_STEPS = (4, 7)  # motions of a segmentation clip
_STEP = 7  # least number of frames of one


def recognition(draws: Draws, domain: Domain, drawings: Sprites) -> Clips:
    """Show one actor in one motion: {frames, label}."""
    label = draws.below(len(domain.classes))
    alone = np.ones((len(draws), 1), bool)
    scene = stage.stage(draws, domain, drawings, stage.act(draws, domain, label[:, None]), alone)
    return {"frames": frame.finish(scene.planes), "label": label.astype(np.int32)}


def spatial_action(draws: Draws, domain: Domain, drawings: Sprites) -> Clips:
    """Show two or three actors in different motions: {frames, box, label, valid} of the key frame."""
    label = draws.order(len(domain.classes))[:, :ACTORS]
    valid = np.arange(ACTORS) < (2 + draws.below(2))[:, None]
    scene = stage.stage(draws, domain, drawings, stage.act(draws, domain, label), valid)
    return {
        "frames": frame.finish(scene.planes),
        "box": render.boxes(render.solid(scene.coverage[:, :, KEY_FRAME])),
        "label": np.where(valid, label, 0).astype(np.int32),
        "valid": valid,
    }


def temporal_action(draws: Draws, domain: Domain, drawings: Sprites) -> Clips:
    """Show an idle actor who does one to three things: {frames, segment, label, valid}."""
    count = 1 + draws.below(ACTORS)
    valid = np.arange(ACTORS) < count[:, None]
    most = (domain.frames - _PAUSE * (ACTORS + 1)) // count
    longest = np.minimum(_SEGMENT[1], most)
    length = np.where(valid, _SEGMENT[0] + draws.below((longest - _SEGMENT[0] + 1)[:, None], ACTORS), 0)
    pause = stage.partition(draws, domain.frames - length.sum(1), ACTORS + 1, least=_PAUSE)
    start = np.cumsum(pause[:, :-1], axis=1) + np.cumsum(length, axis=1) - length
    moves = _sequence(draws, domain, ACTORS, count, opening=domain.classes, rule=np.ones((len(motion.MOTIONS),) * 2))
    paths = motion.path(moves, start, start + length, domain.frames, domain.ease)
    scene = stage.stage(draws, domain, drawings, [paths], np.ones((len(draws), 1), bool), wander=0.05)
    segment = np.stack([start, start + length], axis=-1)
    return {
        "frames": frame.finish(scene.planes),
        "segment": np.where(valid[..., None], segment, 0).astype(np.float32),
        "label": np.where(valid, _labels(domain, moves.motion), 0).astype(np.int32),
        "valid": valid,
    }


def segmentation(draws: Draws, domain: Domain, drawings: Sprites) -> Clips:
    """Show four to seven motions without a pause, ordered by a small grammar: {frames, label}."""
    fewest, most = _STEPS
    count = fewest + draws.below(most - fewest + 1)
    length = stage.partition(draws, np.full(len(draws), domain.frames), most, least=_STEP, count=count)
    stop = np.cumsum(length, axis=1)
    moves = _sequence(draws, domain, most, count, opening=("fade_in",), rule=grammar())
    paths = motion.path(moves, stop - length, stop, domain.frames, domain.ease)
    scene = stage.stage(draws, domain, drawings, [paths], np.ones((len(draws), 1), bool))
    place = (np.arange(domain.frames) >= stop[..., None]).sum(1)
    label = np.take_along_axis(_labels(domain, moves.motion), place, axis=1)
    return {"frames": frame.finish(scene.planes), "label": label.astype(np.int32)}


def video_object(draws: Draws, domain: Domain, drawings: Sprites) -> Clips:
    """Show one to three drifting icons, at times blurred or behind a bar: {frames, box, label, valid}."""
    present = np.arange(ACTORS) < (1 + draws.below(ACTORS))[:, None]
    heading = draws.uniform(0, 2 * np.pi, ACTORS)
    paths = [stage.drift(draws, domain.frames, heading[:, a], way=(0.15, 0.6)) for a in range(ACTORS)]
    scene = stage.stage(draws, domain, drawings, paths, present)
    masks = render.solid(scene.coverage)
    bar = stage.sweep(draws, scene.planes, share=0.5)
    stage.smear(draws, scene.planes, share=0.5)
    seen = (render.visible(masks) & ~bar[:, None]).sum((-2, -1)) / np.maximum(masks.sum((-2, -1)), 1)
    valid = present[..., None] & (seen >= VISIBLE)
    return {
        "frames": frame.finish(scene.planes),
        "box": np.where(valid[..., None], render.boxes(masks), 0).swapaxes(1, 2),
        "label": np.where(present, scene.concept, 0).astype(np.int32),
        "valid": valid.swapaxes(1, 2),
    }


def video_instance(draws: Draws, domain: Domain, drawings: Sprites) -> Clips:
    """Show two or three icons that cross and hide each other: {frames, mask, label, valid}."""
    valid = np.arange(ACTORS) < (2 + draws.below(2))[:, None]
    heading = draws.uniform(0, 2 * np.pi)[:, None] + np.arange(ACTORS) * (2 * np.pi / ACTORS)
    heading = heading + draws.uniform(-0.4, 0.4, ACTORS)
    paths = [stage.drift(draws, domain.frames, heading[:, a], way=(1.1, 1.5)) for a in range(ACTORS)]
    scene = stage.stage(draws, domain, drawings, paths, valid, meet=domain.frames // 2)
    return {
        "frames": frame.finish(scene.planes),
        "mask": render.visible(render.solid(scene.coverage)).swapaxes(1, 2),
        "label": np.where(valid, scene.concept, 0).astype(np.int32),
        "valid": valid,
    }


SCENES: dict[str, Callable[[Draws, Domain, Sprites], Clips]] = {
    "recognition": recognition,
    "spatial_action": spatial_action,
    "temporal_action": temporal_action,
    "segmentation": segmentation,
    "video_object": video_object,
    "video_instance": video_instance,
}


def grammar() -> Array:
    """Return float[13, 13]: how readily a motion (row) is followed by another (column) in a segmentation clip.

    `circle` comes only after `grow`, `spin` only after a step to a side, `bounce` only after a step up or down, and
    nothing follows itself.
    """
    allowed = 1 - np.eye(len(motion.MOTIONS))
    for name, before in (("circle", ("grow",)), ("spin", ("left", "right")), ("bounce", ("up", "down"))):
        after = np.zeros(len(motion.MOTIONS))
        after[motion.table(before)] = 3  # likelier, for it is seldom possible
        allowed[:, motion.NUMBER[name]] = after
    return allowed


def _sequence(
    draws: Draws, domain: Domain, segments: int, count: Array, opening: tuple[str, ...], rule: Array
) -> motion.Plan:
    """Plan a sequence of the domain's motions that starts with one of `opening`."""
    known = np.zeros(len(motion.MOTIONS))
    known[motion.table(domain.classes)] = 1
    first = motion.table(opening)[draws.below(len(opening))]
    return motion.plan(
        draws, segments, first=first, weight=rule * known, span=domain.span(), pace=domain.pace, count=count
    )


def _labels(domain: Domain, motions: Array) -> Array:
    """Turn places in MOTIONS into places in the domain's classes; -1, none, becomes any of them."""
    place = np.zeros(len(motion.MOTIONS), int)
    place[motion.table(domain.classes)] = np.arange(len(domain.classes))
    places: Array = place[motions]
    return places
