"""Spatial action detection: actions of the actors in given boxes of the key frame.

AVA's actors may perform several actions at once, so every class has its own sigmoid and a label is a row of bools. The
moving icons perform one at a time, and a class number stands for the row.
"""

from collections.abc import Collection, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jax_promptmtl.tasks.metrics.box_ap import frame_ap

Array = jax.Array


def targets(label: Array, classes: int) -> Array:
    """Return multi-hot targets float[B, R, C] of class numbers int[B, R] or rows bool[B, R, C].

    >>> targets(jnp.array([[1]]), 3).tolist()
    [[[0.0, 1.0, 0.0]]]
    """
    return jax.nn.one_hot(label, classes) if label.ndim == 2 else label.astype(jnp.float32)


def loss(outputs: Array, batch: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
    """Return the binary cross-entropy, its mean over the classes summed over the boxes.

    Args:
      outputs: logits float[B, R, C].
      batch: `label` int[B, R] or bool[B, R, C], and `valid` bool[B, R], false where a row holds no box.

    Returns:
      float[B]; and the share of boxes whose most likely class is correct, `correct`.
    """
    wanted, valid = targets(batch["label"], outputs.shape[-1]), batch["valid"].astype(jnp.float32)
    each = jax.nn.softplus(outputs) - wanted * outputs
    best = jnp.take_along_axis(wanted, outputs.argmax(axis=-1)[..., None], axis=-1)[..., 0]
    return (each.mean(axis=-1) * valid).sum(axis=-1), {
        "correct": (best * valid).sum(axis=-1) / jnp.maximum(valid.sum(axis=-1), 1)
    }


def mean_loss(outputs: Array, batch: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
    """Return the binary cross-entropy of AVA's recipe: the mean over the classes and boxes of a video.

    With the weights of `weigh_by_boxes`, a batch's loss is the mean over all its boxes.
    """
    losses, sums = loss(outputs, batch)
    return losses / jnp.maximum(batch["valid"].sum(axis=-1), 1), sums


def weigh_by_boxes(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Redistribute the weights of a batch, keeping their sum, in proportion to the videos' numbers of boxes.

    >>> batch = {"valid": np.array([[True, True], [True, False]]), "weight": np.full(2, 0.5)}
    >>> weigh_by_boxes(batch)["weight"].round(3).tolist()
    [0.667, 0.333]
    """
    boxes = np.where(batch["weight"] > 0, batch["valid"].sum(axis=1), 0)
    share = boxes / max(boxes.sum(), 1) * batch["weight"].sum()
    return {**batch, "weight": share.astype(batch["weight"].dtype)}


def decode(outputs: Array, batch: Mapping[str, Array]) -> dict[str, Array]:
    """Return `score` float[B, R, C], zero where there is no box, with the boxes `box` float[B, R, 4] and `valid`."""
    valid = batch["valid"]
    return {"score": jax.nn.sigmoid(outputs) * valid[..., None], "box": batch["box"], "valid": valid}


def measure(
    predictions: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], scored: Collection[int] | None = None
) -> dict[str, float]:
    """Return AVA's frame `map` at IoU 0.5 in percent.

    Args:
      predictions: see `decode`.
      labels: `box` float[N, R, 4], `label` int[N, R] or bool[N, R, C], `valid` bool[N, R].
      scored: the classes that count, all if not given.

    >>> boxes = {"box": np.array([[[0, 0, 1, 1.0]]]), "valid": np.array([[True]])}
    >>> measure({"score": np.array([[[0.1, 0.9]]]), **boxes}, {"label": np.array([[1]]), **boxes})
    {'map': 100.0}
    """
    classes = predictions["score"].shape[-1]
    truth, found = [], []
    for clip in range(len(labels["valid"])):
        real, seen = np.flatnonzero(labels["valid"][clip]), np.flatnonzero(predictions["valid"][clip])
        label = labels["label"][clip][real]
        box, action = np.nonzero(label) if label.ndim == 2 else (np.arange(len(real)), label)
        truth.append({"box": labels["box"][clip][real][box], "label": action})
        boxes = np.repeat(predictions["box"][clip][seen], classes, axis=0)
        score = predictions["score"][clip][seen].reshape(-1)
        found.append({"box": boxes, "label": np.tile(np.arange(classes), len(seen)), "score": score})
    return {"map": 100 * float(np.nanmean(frame_ap(truth, found, num_classes=classes, scored=scored)))}
