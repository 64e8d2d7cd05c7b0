"""Temporal action detection with points, as ActionFormer does it: targets, focal and distance-IoU losses, decoding.

Every point of every pyramid level predicts class probabilities and the distances to start and end of the action.
The loss of a video is divided by its own number of positive points, not by a running mean over batches as upstream
(happyharrycn/actionformer_release `libs/modeling/meta_archs.py`), so that videos do not depend on each other.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_promptmtl.tasks.metrics.temporal_ap import THRESHOLDS, temporal_ap

Array = jax.Array
RADIUS, ALPHA, GAMMA = 1.5, 0.25, 2.0
CANDIDATES = 2000  # per level of a video, before suppression
LEVELS = 8  # of a pyramid whose strides double; of more, the highest count as one


class Points(NamedTuple):
    """Predictions at P points in time; times are in frames of the video.

    Attributes:
      logits: float[B, P, C].
      offsets: float[B, P, 2], distances to the start and the end of the action, in strides.
      mask: bool[B, P], false in padding.
      grid: float[P, 4], per point its time, the smallest and largest reach of its level, and its stride.
    """

    logits: Array
    offsets: Array
    mask: Array
    grid: Array


def targets(grid: Array, segment: Array, label: Array, valid: Array, classes: int) -> tuple[Array, Array]:
    """Assign actions to points: near the action's centre, in the level responsible for its length.

    Args:
      grid: float[P, 4], see `Points`.
      segment: float[B, S, 2], start and end.
      label: int[B, S].
      valid: bool[B, S].
      classes: C.

    Returns:
      Class targets float[B, P, C], zero at negative points; and the distances float[B, P, 2] in strides.
    """
    time, low, high, stride = (column[:, None] for column in grid.T)
    start, end = segment[:, None, :, 0], segment[:, None, :, 1]
    reach = jnp.stack([time - start, end - time], axis=-1)  # [B, P, S, 2]
    centre = (start + end) / 2
    left = time - jnp.maximum(centre - RADIUS * stride, start)
    right = jnp.minimum(centre + RADIUS * stride, end) - time
    farthest = reach.max(axis=-1)
    fits = (jnp.minimum(left, right) > 0) & (farthest >= low) & (farthest <= high) & valid[:, None]
    length = jnp.where(fits, end - start, jnp.inf)
    shortest = length.min(axis=-1, keepdims=True)
    chosen = fits & (length <= shortest + 1e-3)  # of several matching actions the shortest
    wanted = jnp.einsum("b p s, b s c -> b p c", chosen.astype(jnp.float32), jax.nn.one_hot(label, classes))
    first = length.argmin(axis=-1)[..., None, None]
    return jnp.minimum(wanted, 1), jnp.take_along_axis(reach, first, axis=2)[:, :, 0] / stride


def focal(logits: Array, wanted: Array) -> Array:
    """Return the sigmoid focal loss of every entry.

    >>> [f"{x:.4f}" for x in focal(jnp.zeros(2), jnp.array([1.0, 0.0]))]
    ['0.0433', '0.1300']
    """
    chance = jax.nn.sigmoid(logits)
    entropy = jax.nn.softplus(logits) - wanted * logits
    miss = wanted * (1 - chance) + (1 - wanted) * chance
    return (wanted * ALPHA + (1 - wanted) * (1 - ALPHA)) * miss**GAMMA * entropy


def distance_iou(found: Array, wanted: Array) -> Array:
    """Return 1 - IoU + (distance of the centres / length of the hull) ** 2 of reaches float[..., 2] around one point.

    >>> float(distance_iou(jnp.array([1.0, 1.0]), jnp.array([1.0, 3.0])))
    0.5625
    """
    overlap = jnp.minimum(found, wanted).sum(axis=-1)
    union = found.sum(axis=-1) + wanted.sum(axis=-1) - overlap
    hull = jnp.maximum(jnp.maximum(found, wanted).sum(axis=-1), 1e-8)
    shift = ((found - wanted) * jnp.array([-0.5, 0.5])).sum(axis=-1)
    return 1 - overlap / jnp.maximum(union, 1e-8) + (shift / hull) ** 2


def loss(outputs: Points, batch: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
    """Return the sum of both losses of a video over its number of positive points.

    Args:
      outputs: see `Points`.
      batch: `segment` float[B, S, 2], `label` int[B, S], `valid` bool[B, S].

    Returns:
      float[B], {}.
    """
    wanted, reach = targets(outputs.grid, batch["segment"], batch["label"], batch["valid"], outputs.logits.shape[-1])
    wanted = wanted * outputs.mask[..., None]
    positive = wanted.sum(axis=-1) > 0
    count = jnp.maximum(positive.sum(axis=-1), 1)
    say = (focal(outputs.logits, wanted).sum(axis=-1) * outputs.mask).sum(axis=-1)
    place = distance_iou(outputs.offsets, jnp.where(positive[..., None], reach, 1.0))
    return (say + jnp.where(positive, place, 0).sum(axis=-1)) / count, {}


def decode(outputs: Points, batch: Mapping[str, Array]) -> dict[str, Array]:
    """Return the highest-scoring candidates of every level, best first.

    Returns:
      `segment` float[B, K, 2], `score` float[B, K], `label` int[B, K]; a score of 0 is no candidate.
    """
    time, _, _, stride = outputs.grid.T
    chance = jax.nn.sigmoid(outputs.logits) * outputs.mask[..., None]
    score, place = best_of_levels(chance, stride)
    point, label = place // chance.shape[2], place % chance.shape[2]
    reach = jnp.take_along_axis(outputs.offsets, point[..., None], axis=1) * stride[point][..., None]
    segment = jnp.stack([time[point] - reach[..., 0], time[point] + reach[..., 1]], axis=-1)
    return {"segment": segment, "score": score, "label": label}


def best_of_levels(chance: Array, stride: Array, most: int = CANDIDATES) -> tuple[Array, Array]:
    """Return the `most` largest entries of every level, merged in order, and their indices.

    Args:
      chance: float[B, P, C].
      stride: float[P], which identifies the level.
      most: per level.

    Returns:
      float[B, K] and int[B, K], places in [P * C].

    >>> chance = jnp.array([[[0.1], [0.9], [0.5], [0.2], [0.3]]])
    >>> score, place = best_of_levels(chance, jnp.array([1, 1, 1, 2, 2]), 1)
    >>> place[score > 0].tolist()
    [1, 4]
    """
    flat = chance.reshape(len(chance), -1)
    count = flat.shape[1]
    if count <= most:
        return jax.lax.top_k(flat, count)
    level = jnp.clip(jnp.round(jnp.log2(stride / stride.min())), 0, LEVELS - 1)
    mine = jnp.repeat(level, chance.shape[2]) == jnp.arange(LEVELS)[:, None]
    score, place = jax.lax.top_k(jnp.where(mine, flat[:, None], -1), most)  # [B, levels, most]
    score, order = jax.lax.top_k(score.reshape(len(flat), -1), min(LEVELS * most, count))
    place = jnp.take_along_axis(place.reshape(len(flat), -1), order, axis=1)
    return jnp.maximum(score, 0), jnp.where(score < 0, 0, place)


def suppress(
    segment: np.ndarray,
    score: np.ndarray,
    label: np.ndarray,
    *,
    sigma: float = 0.5,
    least: float = 1e-3,
    most: int = 200,
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Suppress candidates that overlap a better one of their class: Gaussian soft-NMS.

    Args:
      segment: float[N, K, 2], of N videos.
      score: float[N, K].
      label: int[N, K].
      sigma: width; a score is multiplied by exp(-IoU ** 2 / sigma).
      least: lower scores are dropped.
      most: how many to keep of a video.

    Returns:
      Of every video the kept segments, scores and labels, best first.

    >>> suppress(np.array([[[0.0, 2], [0, 2]]]), np.array([[0.9, 0.8]]), np.array([[1, 1]]))[0][1].round(3).tolist()
    [0.9, 0.108]
    """
    score, left = score.astype(np.float64), (score >= least) & (segment[..., 1] > segment[..., 0])
    kept: list[list[int]] = [[] for _ in score]
    clips = np.flatnonzero(left.any(axis=1))
    for _ in range(most):
        if not len(clips):
            break
        best = np.where(left[clips], score[clips], -1).argmax(axis=1)
        for clip, place in zip(clips, best, strict=True):
            kept[clip].append(int(place))
        left[clips, best] = False
        start, end = segment[clips, best, :1], segment[clips, best, 1:]
        overlap = np.minimum(segment[clips, :, 1], end) - np.maximum(segment[clips, :, 0], start)
        overlap = np.maximum(overlap, 0)
        union = segment[clips, :, 1] - segment[clips, :, 0] + (end - start) - overlap
        same = left[clips] & (label[clips] == label[clips, best][:, None])
        score[clips] *= np.where(same, np.exp(-((overlap / np.maximum(union, 1e-8)) ** 2) / sigma), 1)
        left[clips] &= score[clips] >= least
        clips = clips[left[clips].any(axis=1)]
    return [(segment[clip][rows], score[clip][rows], label[clip][rows]) for clip, rows in enumerate(kept)]


def measure(predictions: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the mean over IoU 0.3 to 0.7 of the mean average precision, `map`, and `map@50`, in percent.

    Args:
      predictions: see `decode`; soft-NMS is applied here.
      labels: `segment` float[N, S, 2], `label` int[N, S], `valid` bool[N, S].
    """
    keys = ("segment", "score", "label")
    kept = suppress(*(predictions[key] for key in keys))
    found = [dict(zip(keys, arrays, strict=True)) for arrays in kept]
    truth = [
        {key: labels[key][clip][real] for key in ("segment", "label")} for clip, real in enumerate(labels["valid"])
    ]
    classes = 1 + max(int(labels["label"].max()), int(predictions["label"].max()))
    each = np.nanmean(temporal_ap(truth, found, num_classes=classes, thresholds=THRESHOLDS), axis=1)
    return {"map": 100 * float(each.mean()), "map@50": 100 * float(each[THRESHOLDS.index(0.5)])}
