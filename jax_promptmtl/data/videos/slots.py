"""Room for the objects of a batch: as many as the example with the most has."""

import numpy as np

from jax_promptmtl.data.videos.index import VideoSet

Array = np.ndarray


def most_objects(data: VideoSet) -> int:
    """Return the largest number of labelled boxes or tracks of an example, at least 1."""
    if data.task == "recognition":
        return 1
    labels = (data.filled(example).labels["label"] for part in data.parts.values() for example in part)
    return max([1, *(len(label) for label in labels if label.ndim)])


def pad(array: Array, count: int, axis: int = 0) -> Array:
    """Fill an axis up with zeros.

    >>> pad(np.ones(2, int), 3).tolist()
    [1, 1, 0]
    """
    width = [(0, 0)] * array.ndim
    width[axis] = (0, count - array.shape[axis])
    return np.pad(array, width)
