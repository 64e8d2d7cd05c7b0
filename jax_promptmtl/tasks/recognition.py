"""Action recognition: one label per video, cross-entropy, top-1 accuracy."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def loss(outputs: Array, batch: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
    """Return the cross-entropy float[B] of logits float[B, C] and labels int[B], and which are `correct`.

    >>> f"{loss(jnp.zeros((1, 4)), {'label': jnp.array([2])})[0][0]:.4f}"
    '1.3863'
    """
    label = batch["label"][:, None]
    losses = -jnp.take_along_axis(jax.nn.log_softmax(outputs), label, axis=1)[:, 0]
    return losses, {"correct": (outputs.argmax(axis=1) == batch["label"]).astype(jnp.float32)}


def soft_loss(outputs: Array, batch: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
    """Return the cross-entropy float[B] of logits and the shares `target` float[B, C], and which labels are `correct`.

    >>> f"{soft_loss(jnp.zeros((1, 4)), {'target': jnp.full((1, 4), 0.25), 'label': jnp.array([2])})[0][0]:.4f}"
    '1.3863'
    """
    return -(batch["target"] * jax.nn.log_softmax(outputs)).sum(axis=1), loss(outputs, batch)[1]


def decode(outputs: Array, batch: Mapping[str, Array]) -> dict[str, Array]:
    """Return class probabilities, `score` float[B, C]; scores of several views are averaged later."""
    return {"score": jax.nn.softmax(outputs)}


def measure_views(
    predictions: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], *, views: int
) -> dict[str, float]:
    """Return `top1` of scores averaged over views, which are ordered view by view over all videos.

    >>> scores = np.array([[0.9, 0.1], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])
    >>> measure_views({"score": scores}, {"label": np.arange(4) % 2}, views=2)
    {'top1': 100.0}
    """
    score = predictions["score"]
    mean = score.reshape(views, -1, score.shape[1]).mean(axis=0)
    return measure({"score": mean}, {"label": labels["label"][: len(mean)]})


def measure(predictions: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return `top1` in percent.

    >>> measure({"score": np.array([[0.9, 0.1], [0.8, 0.2]])}, {"label": np.array([0, 1])})
    {'top1': 50.0}
    """
    return {"top1": 100 * float(np.mean(predictions["score"].argmax(axis=1) == labels["label"]))}
