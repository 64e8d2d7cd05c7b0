"""Action segmentation: a label for every frame; cross-entropy and a smoothness term, summed over the model's stages.

After ChinaYi/ASFormer `main.py` (and MS-TCN before it); the loss of a video is the mean over its own frames.
"""

from collections.abc import Collection, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jax_promptmtl.tasks.metrics.segmental import segmental

Array = jax.Array
SMOOTH, MOST = 0.15, 16.0  # weight and cap of the smoothness term


def loss(outputs: Array, batch: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
    """Return the loss of every video.

    Args:
      outputs: logits float[S, B, L, C] of S stages, the last of which predicts.
      batch: `label` int[B, L], negative in padding and where unlabelled.

    Returns:
      float[B]; and the frame accuracy per video, `correct`.
    """
    label = batch["label"]
    known = (label >= 0).astype(jnp.float32)
    count = jnp.maximum(known.sum(axis=-1), 1)
    chance = jax.nn.log_softmax(outputs)
    entropy = -jnp.take_along_axis(chance, jnp.maximum(label, 0)[None, ..., None], axis=-1)[..., 0]
    change = jnp.minimum((chance[:, :, 1:] - jax.lax.stop_gradient(chance[:, :, :-1])) ** 2, MOST).mean(axis=-1)
    steps = known[:, 1:]
    losses = jnp.einsum("s b l, b l -> b", entropy, known) / count
    losses += SMOOTH * jnp.einsum("s b l, b l -> b", change, steps) / jnp.maximum(steps.sum(axis=-1), 1)
    right = (outputs[-1].argmax(axis=-1) == label) * known
    return losses, {"correct": right.sum(axis=-1) / count}


def decode(outputs: Array, batch: Mapping[str, Array]) -> dict[str, Array]:
    """Return the last stage's most probable class of every frame, `label` int[B, L]."""
    return {"label": outputs[-1].argmax(axis=-1)}


def measure(
    predictions: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], background: Collection[int] = ()
) -> dict[str, float]:
    """Return `accuracy`, `edit`, `f1@10`, `f1@25` and `f1@50` in percent; frames of negative labels are left out.

    Classes in `background` form no segments.

    >>> measure({"label": np.array([[1, 2, 2]])}, {"label": np.array([[1, 2, -1]])})["accuracy"]
    100.0
    """
    known = labels["label"] >= 0
    true = [row[keep] for row, keep in zip(labels["label"], known, strict=True)]
    return segmental([row[keep] for row, keep in zip(predictions["label"], known, strict=True)], true, background)
