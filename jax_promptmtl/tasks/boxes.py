"""Box formats, corners (x1, y1, x2, y2) or centre, width and height, and the generalised IoU."""

import jax
import jax.numpy as jnp

Array = jax.Array


def corners(boxes: Array) -> Array:
    """Convert (centre x, centre y, width, height) to (x1, y1, x2, y2), float[..., 4].

    >>> corners(jnp.array([0.5, 0.5, 1.0, 0.5])).tolist()
    [0.0, 0.25, 1.0, 0.75]
    """
    centre, side = jnp.split(boxes, 2, axis=-1)
    return jnp.concatenate([centre - side / 2, centre + side / 2], axis=-1)


def centred(boxes: Array) -> Array:
    """Invert `corners`.

    >>> centred(corners(jnp.array([0.5, 0.5, 1.0, 0.5]))).tolist()
    [0.5, 0.5, 1.0, 0.5]
    """
    low, high = jnp.split(boxes, 2, axis=-1)
    return jnp.concatenate([(low + high) / 2, high - low], axis=-1)


def generalised_iou(left: Array, right: Array) -> Array:
    """Return the IoU less the share of the hull that neither box covers, in (-1, 1], of corners float[..., 4].

    Boxes without area give finite numbers and gradients.

    >>> float(generalised_iou(jnp.array([0.0, 0, 1, 1]), jnp.array([1.0, 0, 3, 1])))
    0.0
    >>> round(float(generalised_iou(jnp.array([0.0, 0, 1, 1]), jnp.array([2.0, 0, 3, 1]))), 3)
    -0.333
    """

    def area(low: Array, high: Array) -> Array:
        side = jnp.maximum(high - low, 0)
        return side[..., 0] * side[..., 1]

    (low_1, high_1), (low_2, high_2) = jnp.split(left, 2, axis=-1), jnp.split(right, 2, axis=-1)
    both = area(jnp.maximum(low_1, low_2), jnp.minimum(high_1, high_2))
    union = area(low_1, high_1) + area(low_2, high_2) - both
    hull = area(jnp.minimum(low_1, low_2), jnp.maximum(high_1, high_2))
    return both / jnp.maximum(union, 1e-9) - (hull - union) / jnp.maximum(hull, 1e-9)
