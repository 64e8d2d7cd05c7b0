"""Video instance segmentation: a class per instance and its mask in every frame, with DVIS's losses and decoding.

Its three parts are trained one after the other. The segmenter (MinVIS) matches queries to instances per frame; the
tracker once per instance, in the frame where it first appears; the refiner once per video.
A difference: for the refiner upstream draws points from the frames stacked into one tall map, here as many per frame.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_promptmtl.core.errors import pick
from jax_promptmtl.models.layers import plane
from jax_promptmtl.tasks import mask_loss
from jax_promptmtl.tasks.matching import assign
from jax_promptmtl.tasks.metrics.tracklet_ap import tracklet_ap

Array = jax.Array
STAGES = ("minvis", "online", "offline")
MOST = 10  # instances per video


class Instances(NamedTuple):
    """Predictions for B videos after each of K layers.

    Attributes:
      logits: float[K, B, L, Q, C + 1]; the last class is "no object".
      masks: float[K, B, L, Q, h, w], logits.
      guide_logits: float[B, L, Q, C + 1], those of the frozen part below, its queries in the same order.
      guide_masks: float[B, L, Q, h, w], likewise.
      valid: bool[B, L], false where a frame is padding.
    """

    logits: Array
    masks: Array
    guide_logits: Array
    guide_masks: Array
    valid: Array


def loss(
    outputs: Instances,
    batch: Mapping[str, Array],
    *,
    stage: str = "online",
    guided: bool = False,
    points: int = 0,
    matching: str = "fixed",
) -> tuple[Array, dict[str, Array]]:
    """Return the loss of every video, summed over the layers.

    Args:
      outputs: see `Instances`.
      batch: `mask` bool[B, L, S, H, W], `label` int[B, S], `valid` bool[B, S].
      stage: minvis, online or offline, whose layers these are.
      guided: match with the predictions of the frozen part below, as upstream does in the first half of training.
      points: sampled points per mask loss, seeded by the true masks and so different for every crop of a video; every
        cell of the predicted maps if 0. Upstream: 12544.
      matching: of the online stage, fixed, or released as upstream's weights were trained; see
        `mask_loss.assign_by_appearance`.

    Returns:
      float[B], {}.
    """
    rules: dict[str, Any] = {"stage": pick(stage, STAGES, "stage of DVIS"), "points": points, "matching": matching}
    one = partial(clip_loss, guided=guided, rules=rules)
    said = (jnp.moveaxis(outputs.logits, 1, 0), jnp.moveaxis(outputs.masks, 1, 0))
    guide = (outputs.guide_logits, outputs.guide_masks)
    rows = (said, guide, outputs.valid, batch["mask"], batch["label"], batch["valid"], seeds(batch["mask"]))
    return jax.vmap(one)(*rows), {}


def seeds(masks: Array) -> Array:
    """Return a number for every video that depends on its masks alone, uint32[B].

    >>> a = jnp.array([[[True, False]], [[False, True]]])
    >>> (seeds(a) == seeds(a[::-1])[::-1]).tolist(), len(set(seeds(a).tolist()))
    ([True, True], 2)
    """
    flat = masks.reshape(len(masks), -1).astype(jnp.uint32)
    factors = jnp.arange(1, flat.shape[1] + 1, dtype=jnp.uint32) * jnp.uint32(2654435761)
    made: Array = (flat * factors).sum(axis=1, dtype=jnp.uint32)
    return made


def joint_loss(outputs: Instances, batch: Mapping[str, Array], *, points: int = 0) -> tuple[Array, dict[str, Array]]:
    """Return the loss of the tracker plus that of the segmenter's last layer, to train both at once; see `loss`."""
    below = outputs._replace(logits=outputs.guide_logits[None], masks=outputs.guide_masks[None])
    parts = [
        loss(said, batch, stage=stage, points=points)[0] for said, stage in ((outputs, "online"), (below, "minvis"))
    ]
    return parts[0] + parts[1], {}


def clip_loss(
    said: tuple[Array, Array],
    guide: tuple[Array, Array],
    shown: Array,
    truth: Array,
    label: Array,
    valid: Array,
    seed: Array,
    *,
    guided: bool,
    rules: Mapping[str, Any],
) -> Array:
    """Return the loss of one video; see `loss`, of whose arguments these are the rows, and the rest of its options."""
    stage, points, matching = rules["stage"], rules["points"], rules["matching"]
    truth = truth.astype(jnp.float32)
    present = truth.any(axis=(2, 3)) & valid & shown[:, None]
    asked = present if stage == "minvis" else present.any(axis=0) & shown[:, None]
    key = jax.random.key(seed)
    about = partial(choice, truth=truth, label=label, present=present, shown=shown)
    choose = partial(about, stage=stage, points=points, matching=matching)
    chosen = choose(*guide, jax.random.fold_in(key, 0)) if guided else None
    released = stage == "online" and matching == "released"

    def layer(number: Array, logits: Array, masks: Array) -> Array:
        first, second = jax.random.split(jax.random.fold_in(key, number))
        who = choose(logits, masks, first) if chosen is None else chosen
        picked = jnp.take_along_axis(masks, who[..., None, None], axis=1)
        places = mask_loss.uncertain_points(second, picked, points) if points else None
        seen, wanted = (mask_loss.read(x, places, masks.shape[-2:]) for x in (picked, truth))
        weight = jnp.broadcast_to(shown[:, None], (len(shown), seen.shape[-1])).astype(jnp.float32)
        if stage == "offline":  # as one image, one class per instance
            seen, wanted, weight = joined(seen), joined(wanted), weight.reshape(1, -1)
            rows = (logits[:1], label, who[:1], asked.any(axis=0)[None], jnp.ones(1, bool))
        else:
            said_for = asked & ~mask_loss.overtaken(who[0], present) if released else asked
            rows = (logits, label, who, said_for, shown)
        counted = asked.any(axis=0)[None] if stage == "offline" else asked
        parts = mask_loss.mask_losses(seen, wanted, weight, counted)
        return mask_loss.Losses(mask_loss.class_loss(*rows), *parts).total()

    return jax.vmap(layer)(jnp.arange(1, len(said[0]) + 1), *said).sum()


def choice(
    logits: Array,
    masks: Array,
    key: Array,
    *,
    truth: Array,
    label: Array,
    present: Array,
    shown: Array,
    stage: str,
    points: int,
    matching: str,
) -> Array:
    """Match queries to instances: the query of each instance in each frame of a video, int[L, S].

    Args:
      logits: float[L, Q, C + 1].
      masks: logits float[L, Q, h, w].
      key: of the points.
      truth: float[L, S, H, W].
      label: int[S].
      present: bool[L, S], where an instance is visible.
      shown: bool[L], false in padding.
      stage: see `loss`.
      points: sampled points; every cell if 0.
      matching: see `loss`.
    """
    places = jax.random.uniform(key, (len(shown), 1, points, 2)) if points else None  # the same for all of a frame

    def at(x: Array) -> Array:
        spread = None if places is None else jnp.broadcast_to(places, (*x.shape[:2], points, 2))
        return mask_loss.read(x, spread, masks.shape[-2:])

    seen, wanted = at(masks), at(truth)
    weight = jnp.broadcast_to(shown[:, None], (len(shown), seen.shape[-1])).astype(jnp.float32)
    if stage == "offline":
        whole = jnp.einsum("l,lqc->qc", shown / jnp.maximum(shown.sum(), 1), logits)  # queries differ by frame
        cost = mask_loss.pair_cost(whole, joined(seen)[0], label, joined(wanted)[0], weight.reshape(-1))
        return jnp.broadcast_to(assign(cost, present.any(axis=0)), present.shape)
    cost = jax.vmap(mask_loss.pair_cost, (0, 0, None, 0, 0))(logits, seen, label, wanted, weight)
    if stage == "minvis":
        return assign(cost, present)
    return jnp.broadcast_to(mask_loss.assign_by_appearance(cost, present, matching), present.shape)


def joined(x: Array) -> Array:
    """Put the points of all frames side by side: [L, Q, P] -> [1, Q, L P]."""
    return jnp.moveaxis(x, 0, 1).reshape(1, x.shape[1], -1)


def decode(
    outputs: Instances, batch: Mapping[str, Array], *, stride: int = 4, guided: bool = False
) -> dict[str, Array]:
    """Return the most probable instances of every video.

    Args:
      outputs: see `Instances`.
      batch: not read.
      stride: pixels per cell of the predicted masks.
      guided: combine scores with those of the part below, as upstream's offline model does with its online part.

    Returns:
      `score` float[B, T], `label` int[B, T], and `mask` bool[B, L, T, H, W], false in padding.
    """
    chance = scores(outputs.logits[-1], outputs.valid)
    if guided:
        chance = jnp.maximum(chance, scores(outputs.guide_logits, outputs.valid))
    classes = chance.shape[-1]
    score, place = jax.lax.top_k(chance.reshape(len(chance), -1), min(MOST, chance[0].size))
    best = jnp.take_along_axis(outputs.masks[-1], (place // classes)[:, None, :, None, None], axis=2)
    large = plane.resize(best, best.shape[-2] * stride, best.shape[-1] * stride) > 0
    return {"score": score, "label": place % classes, "mask": large & outputs.valid[:, :, None, None, None]}


def scores(logits: Array, valid: Array) -> Array:
    """Return the probabilities float[B, Q, C] of the mean over time of logits float[B, L, Q, C + 1]."""
    share = valid / jnp.maximum(valid.sum(axis=1, keepdims=True), 1)
    return jax.nn.softmax(jnp.einsum("bl,blqc->bqc", share, logits))[..., :-1]


def measure(predictions: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return YouTube-VIS's `map`, `ap50`, `ap75`, `ar1` and `ar10` in percent.

    Args:
      predictions: see `decode`.
      labels: `mask` bool[N, L, S, H, W], `label` int[N, S], `valid` bool[N, S].

    >>> one = {"mask": np.ones((1, 2, 1, 4, 4), bool), "label": np.array([[3]])}
    >>> measure(one | {"score": np.array([[0.5]])}, one | {"valid": np.array([[True]])})["map"]
    100.0
    """
    truth, found = truth_of(labels), found_of(predictions)
    classes = 1 + max((int(video["label"].max()) for video in truth if len(video["label"])), default=0)
    result = tracklet_ap(truth, found, num_classes=classes)  # of a class without truth there is no score
    return {"map" if name == "ap" else name: 100 * value for name, value in result.items()}


def truth_of(labels: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Return the true visible instances of each video in a batch, in the format of `tracklet_ap`."""
    truth = []
    for mask, label, valid in zip(labels["mask"], labels["label"], labels["valid"], strict=True):
        here = np.asarray(valid, bool) & np.asarray(mask, bool).any(axis=(0, 2, 3))
        truth.append({"mask": mask[:, here].swapaxes(0, 1), "label": label[here]})
    return truth


def found_of(predictions: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Return the predictions for each video in a batch, in the same format."""
    rows = zip(predictions["mask"], predictions["label"], predictions["score"], strict=True)
    return [{"mask": mask.swapaxes(0, 1), "label": label, "score": score} for mask, label, score in rows]
