"""Video object detection: boxes and classes of key frames, trained with one-to-one matching of objects and queries.

The matching, its costs and the losses are those of Deformable DETR and TransVOD: focal loss, L1 distance and
generalised IoU, weighted 2, 5 and 2 in both. The losses of a video are divided by its own number of boxes, not by that
of the batch as upstream, so that videos do not depend on each other. All stages have the same loss.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_promptmtl.tasks.boxes import centred, corners, generalised_iou
from jax_promptmtl.tasks.matching import assign
from jax_promptmtl.tasks.metrics.box_ap import coco_ap
from jax_promptmtl.tasks.temporal import ALPHA, GAMMA, focal

Array = jax.Array
CLASS, DISTANCE, OVERLAP = 2.0, 5.0, 2.0  # weights of the losses, and of the costs
MOST = 100  # detections per frame


class Boxes(NamedTuple):
    """Predictions of a detector: S stages, of which the last counts, K key frames, Q boxes, C classes.

    Attributes:
      logits: float[B, S, K, Q, C].
      boxes: float[B, S, K, Q, 4], centre x, y, width, height in [0, 1] of the frame.
    """

    logits: Array
    boxes: Array


def costs(logits: Array, boxes: Array, label: Array, box: Array) -> Array:
    """Return the matching cost of every object and query, float[..., R, Q].

    Args:
      logits: float[..., Q, C].
      boxes: float[..., Q, 4], centre, width and height.
      label: int[..., R].
      box: float[..., R, 4], corners.
    """
    chance = jax.nn.sigmoid(logits)
    hit = -ALPHA * (1 - chance) ** GAMMA * jnp.log(chance + 1e-8)
    miss = -(1 - ALPHA) * chance**GAMMA * jnp.log(1 - chance + 1e-8)
    of_label = jnp.take_along_axis((hit - miss).swapaxes(-1, -2), label[..., None], axis=-2)
    found, true = boxes[..., None, :, :], box[..., None, :]
    distance = jnp.abs(found - centred(true)).sum(axis=-1)
    return CLASS * of_label + DISTANCE * distance - OVERLAP * generalised_iou(corners(found), true)


def loss(outputs: Boxes, batch: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
    """Return the sum of all losses of a video over its number of boxes; every stage is matched separately.

    Args:
      outputs: see `Boxes`.
      batch: `box` float[B, K, R, 4], corners in [0, 1]; `label` int[B, R] of whole tracks or int[B, K, R]; `valid`
        bool[B, K, R], false where a slot holds no object in a frame.

    Returns:
      float[B], {}.
    """
    (logits, boxes), valid = outputs, batch["valid"]
    label = jnp.broadcast_to(batch["label"].reshape(len(valid), -1, valid.shape[-1]), valid.shape)
    label, box, valid = (
        jnp.broadcast_to(x[:, None], (len(x), logits.shape[1], *x.shape[1:])) for x in (label, batch["box"], valid)
    )  # for every stage
    query = assign(costs(logits, boxes, label, box), valid)
    real, count = valid.astype(jnp.float32), jnp.maximum(batch["valid"].sum(axis=(1, 2)), 1)
    one = jax.nn.one_hot(query, logits.shape[3]) * real[..., None]
    wanted = jnp.einsum("bskrq, bskrc -> bskqc", one, jax.nn.one_hot(label, logits.shape[4]))
    matched = jnp.take_along_axis(boxes, query[..., None], axis=3)
    far = jnp.abs(matched - centred(box)).sum(axis=-1)
    apart = 1 - generalised_iou(corners(matched), box)
    placed = ((DISTANCE * far + OVERLAP * apart) * real).sum(axis=(1, 2, 3))
    return (CLASS * focal(logits, wanted).sum(axis=(1, 2, 3, 4)) + placed) / count, {}


def decode(outputs: Boxes, batch: Mapping[str, Array]) -> dict[str, Array]:
    """Return the last stage's best detections: `box` float[B, K, N, 4], corners; `score`, `label` [B, K, N]."""
    logits, boxes = outputs.logits[:, -1], outputs.boxes[:, -1]
    queries, classes = logits.shape[-2:]
    flat = jax.nn.sigmoid(logits).reshape(*logits.shape[:2], queries * classes)
    score, place = jax.lax.top_k(flat, min(MOST, queries * classes))
    box = jnp.take_along_axis(corners(boxes), (place // classes)[..., None], axis=2)
    return {"box": box, "score": score, "label": place % classes}


def measure(predictions: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return COCO's average precision at IoU 0.5 over all key frames, its mean over the classes, `ap50`, in percent.

    Args:
      predictions: see `decode`.
      labels: `box`, `label` and `valid` as in `loss`.

    >>> truth = {"box": np.array([[[[0, 0, 1, 1.0]]]]), "label": np.array([[1]]), "valid": np.array([[[True]]])}
    >>> measure({"box": truth["box"], "label": np.array([[[1]]]), "score": np.array([[[0.9]]])}, truth)
    {'ap50': 100.0}
    """
    valid = labels["valid"]
    label = np.broadcast_to(labels["label"].reshape(len(valid), -1, valid.shape[-1]), valid.shape)
    places = list(np.ndindex(valid.shape[:2]))
    truth = [{"box": labels["box"][place][valid[place]], "label": label[place][valid[place]]} for place in places]
    found = [{key: predictions[key][place] for key in ("box", "label", "score")} for place in places]
    classes = 1 + max(int(label.max()), int(predictions["label"].max()))
    return {"ap50": 100 * float(np.nanmean(coco_ap(truth, found, num_classes=classes)))}
