"""Moving icons: short clips with ground truth for six video tasks, made from a seed and the installed icon fonts.

Every task has clips, icon families, a background and a kind of label of its own, so that six tasks give heterogeneous
data. A clip is a pure function of (task, variant, part, seed, index); a batch is its clips stacked, bit for bit.
`train`, `tune` and `test` differ in the drawings: variants and near-duplicates of a drawing are in one part.

Examples, without the leading batch axis of `clips`; of the 3 slots those with `valid` are filled, the others zero;
times in frames; boxes are x1, y1, x2, y2 over the side of the frame:

  all              frames   uint8[L, 32, 32, 3]  RGB; L = 16, but 64 for temporal_action and segmentation
  recognition      label    int32[]              motion of the only actor
  spatial_action   box      float32[3, 4]        actors in frame KEY_FRAME
                   label    int32[3]             their motions, all different
                   valid    bool[3]              two or three
  temporal_action  segment  float32[3, 2]        from the first frame of a motion to the frame after its last
                   label    int32[3]             motions; outside them the actor idles
                   valid    bool[3]              one to three
  segmentation     label    int32[64]            motion in every frame
  video_object     box      float32[16, 3, 4]    whole objects, hidden parts included
                   label    int32[3]             concepts
                   valid    bool[16, 3]          one to three, in the frames where a fifth of them is seen
  video_instance   mask     bool[16, 3, 32, 32]  visible pixels; a slot is a track
                   label    int32[3]             concepts
                   valid    bool[3]              two or three

A label is a place in `classes(task)`. Variant "shifted" of recognition, spatial_action and segmentation has the same
classes but other families, backgrounds and speeds; so has "panned" of recognition and segmentation, where the camera
moves too.
"""

from collections.abc import Sequence

import numpy as np

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.data.icons.moving import sprite
from jax_promptmtl.data.icons.moving.draws import Draws
from jax_promptmtl.data.icons.moving.motion import MOTIONS
from jax_promptmtl.data.icons.moving.render import Sprites
from jax_promptmtl.data.icons.moving.scene import ACTORS, KEY_FRAME, SCENES
from jax_promptmtl.data.icons.moving.sprite import PARTS
from jax_promptmtl.data.icons.moving.stage import Domain

__all__ = ["ACTORS", "DOMAINS", "KEY_FRAME", "PARTS", "TASKS", "classes", "clips", "example"]

Array = np.ndarray
TASKS = tuple(SCENES)
VERSION = 1  # raise it when the same index gives another clip
_CHUNK = 8  # clips made at a time: their planes stay near the cache
_BUSY = tuple(name for name in MOTIONS if name != "still")
_STEADY = tuple(name for name in MOTIONS if not name.startswith("fade"))
_RECIPE = ("fade_in", "left", "right", "up", "down", "spin", "grow", "shrink", "circle", "bounce")
_CONCEPTS = (
    "bell",
    "bookmark",
    "bulb",
    "chart",
    "clock",
    "cloud",
    "folder",
    "gear",
    "lock",
    "mail",
    "search",
    "thumb",
)

DOMAINS: dict[tuple[str, str], Domain] = {
    ("recognition", "base"): Domain(16, MOTIONS, ("lucide", "fa6s"), "cloud", (0.42, 0.52)),
    ("recognition", "shifted"): Domain(16, MOTIONS, ("bootstrap",), "stripes", (0.36, 0.46), pace=0.75, ease=0.8),
    ("recognition", "panned"): Domain(16, MOTIONS, ("mdi6",), "checker", (0.4, 0.5), pace=0.85, ease=0.4, pan=4),
    ("spatial_action", "base"): Domain(16, _STEADY, ("boxicons",), "grain", (0.3, 0.38), pace=0.8, pan=4),
    ("spatial_action", "shifted"): Domain(
        16, _STEADY, ("lineicons",), "checker", (0.3, 0.36), pace=0.65, ease=0.8, pan=4, body=True
    ),
    ("temporal_action", "base"): Domain(64, _BUSY, ("remix",), "glow", (0.38, 0.48)),
    ("segmentation", "base"): Domain(64, _RECIPE, ("phosphor",), "blobs", (0.38, 0.46), pace=0.85),
    ("segmentation", "shifted"): Domain(64, _RECIPE, ("eva",), "checker", (0.36, 0.44), pace=0.65, ease=0.8),
    ("segmentation", "panned"): Domain(64, _RECIPE, ("mi_out",), "grain", (0.36, 0.46), pace=0.75, ease=0.4, pan=4),
    ("video_object", "base"): Domain(
        16, _CONCEPTS, ("typicons", "elusive", "ion"), "stripes", (0.34, 0.44), body=True, named=True
    ),
    ("video_instance", "base"): Domain(
        16, _CONCEPTS, ("codicon", "mi"), "cloud", (0.38, 0.46), pan=3, body=True, named=True
    ),
}
VARIANTS = ("base", "shifted", "panned")


def classes(task: str) -> tuple[str, ...]:
    """Return the names that a task's labels count through: motions, or concepts for the two object tasks.

    >>> len(classes("recognition")), classes("video_object")[:3]
    (13, ('bell', 'bookmark', 'bulb'))
    """
    return DOMAINS[pick(task, TASKS, "video task"), "base"].classes


def clips(
    task: str, indices: Sequence[int] | Array, *, part: str = "train", variant: str = "base", seed: int = 0
) -> dict[str, Array]:
    """Make clips.

    Args:
      task: one of `TASKS`.
      indices: B numbers, 0 or more; there is no last one.
      part: "train", "tune" or "test".
      variant: "base", or another that the task has; see the head of this file.
      seed: 0 or more; another seed gives other clips of the same kind.

    Returns:
      The arrays that the head of this file lists, each with a leading axis B.

    Raises:
      UserError: a choice is unknown, an index is negative, none is given, or an icon wheel is missing.
    """
    domain = _domain(task, variant)
    key = ("moving_icons", VERSION, task, variant, pick(part, PARTS, "part of the clips"), int(seed))
    numbers = np.asarray(indices, np.int64)
    if not len(numbers) or numbers.min() < 0 or seed < 0:
        raise UserError(
            f"Clips of task {task!r} were asked for with indices {numbers.tolist()[:4]} and seed {seed}; give at least "
            "one index, all 0 or more, and a seed of 0 or more."
        )
    drawn = drawings(domain, part)
    starts = range(0, len(numbers), _CHUNK)
    made = [SCENES[task](Draws(key, numbers[i : i + _CHUNK]), domain, drawn) for i in starts]
    return {name: np.concatenate([chunk[name] for chunk in made]) for name in made[0]}


def drawings(domain: Domain, part: str) -> Sprites:
    """Return the drawings of a part that a domain's actors are chosen from."""
    return sprite.load(domain.families, part, domain.classes if domain.named else ())


def example(task: str, index: int, *, part: str = "train", variant: str = "base", seed: int = 0) -> dict[str, Array]:
    """Make one clip; see `clips`, of which it has no batch axis."""
    made = clips(task, [index], part=part, variant=variant, seed=seed)
    return {name: value[0] for name, value in made.items()}


def _domain(task: str, variant: str) -> Domain:
    pick(task, TASKS, "video task")
    return DOMAINS[task, pick(variant, [v for v in VARIANTS if (task, v) in DOMAINS], f"variant of task {task!r}")]
