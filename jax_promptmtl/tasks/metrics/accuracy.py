"""Top-1 and top-k accuracy, optionally over the mean scores of several views of a video."""

import numpy as np

Array = np.ndarray


def softmax(logits: Array) -> Array:
    """Turn logits [..., C] into probabilities float64[..., C].

    >>> softmax(np.array([0.0, np.log(3.0)])).round(2).tolist()
    [0.25, 0.75]
    """
    logits = np.asarray(logits, np.float64)
    power = np.exp(logits - logits.max(-1, keepdims=True))
    result: Array = power / power.sum(-1, keepdims=True)
    return result


def top(scores: Array, label: Array, k: int = 1, weight: Array | None = None) -> tuple[float, float]:
    """Count examples whose label is among the k highest scores.

    Ties are broken in favour of the lower class, as by `argmax`.

    Args:
      scores: [N, C].
      label: int[N].
      k: 1 for plain accuracy.
      weight: float[N], 1 if not given; 0 leaves padding out.

    Returns:
      (weighted number of hits, sum of weights); accuracy is their quotient, also after adding up batches.

    >>> top(np.array([[0.1, 0.9], [0.5, 0.5]]), np.array([1, 1]))
    (1.0, 2.0)
    """
    scores, label = np.asarray(scores), np.asarray(label)
    own = np.take_along_axis(scores, label[:, None], axis=1)
    before = (scores > own) | ((scores == own) & (np.arange(scores.shape[1]) < label[:, None]))
    weight = np.ones(len(label)) if weight is None else np.asarray(weight, np.float64)
    return float(((before.sum(1) < k) * weight).sum()), float(weight.sum())
