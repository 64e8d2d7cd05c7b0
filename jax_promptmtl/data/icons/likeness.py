"""How alike drawings are: near-duplicates, the groups they form, and which to drop where one has two names."""

from collections.abc import Sequence

import numpy as np

SAME_DRAWING = 0.90  # cosine of two shapes from which they count as one drawing; chosen by eye on pairs
_BLUR = (1, 4, 1)  # on 32x32: forgives a shift of half a stroke, keeps different drawings apart


def shapes(masks: np.ndarray) -> np.ndarray:
    """Describe masks for comparison: reduced to 32x32, blurred, mean-free, of unit length.

    Args:
      masks: uint8[N, 64, 64].

    Returns:
      float32[N, 1024]; the dot product of two rows is the cosine of the two drawings.

    >>> rows = shapes(np.eye(64, dtype=np.uint8)[None] * 255)
    >>> rows.shape, round(float(rows[0] @ rows[0]), 3)
    ((1, 1024), 1.0)
    """
    small = masks.reshape(-1, 32, 2, 32, 2).sum((2, 4), dtype=np.int32)
    padded = np.pad(small, ((0, 0), (1, 1), (1, 1)))
    first, middle, last = _BLUR
    rows = first * padded[:, :-2] + middle * padded[:, 1:-1] + last * padded[:, 2:]
    blurred = first * rows[:, :, :-2] + middle * rows[:, :, 1:-1] + last * rows[:, :, 2:]
    flat = blurred.reshape(len(masks), 32 * 32).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    unit: np.ndarray = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    return unit


def cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Compare drawings: 1 is the same, 0 unrelated; `SAME_DRAWING` and above is a near-duplicate.

    Args:
      left: masks uint8[N, 64, 64].
      right: masks uint8[M, 64, 64].

    Returns:
      float32[N, M].
    """
    cosines: np.ndarray = shapes(left) @ shapes(right).T
    return cosines


def nearest(masks: np.ndarray, others: np.ndarray, block: int = 4096) -> np.ndarray:
    """Return the highest cosine of every mask to any of the others, in blocks that bound memory.

    Args:
      masks: uint8[N, 64, 64].
      others: uint8[M, 64, 64].
      block: masks compared at once.

    Returns:
      float32[N]; -1 where there are no others.
    """
    if not len(others):
        return np.full(len(masks), -1.0, np.float32)
    target = shapes(others).T
    return np.concatenate([(shapes(masks[i : i + block]) @ target).max(1) for i in range(0, len(masks), block)])


def group(variants: Sequence[tuple[str, ...]], masks: np.ndarray) -> list[int]:
    """Join variants and near-duplicates into groups.

    Args:
      variants: N names; glyphs of one name are variants of one icon, see `concepts.variant`.
      masks: uint8[N, 64, 64].

    Returns:
      N group numbers, counted from 0 in order of first appearance.
    """
    root = list(range(len(variants)))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = i = root[root[i]]
        return i

    first: dict[tuple[str, ...], int] = {}
    for i, name in enumerate(variants):
        root[find(i)] = find(first.setdefault(name, i))
    for i, j in zip(*np.nonzero(np.triu(cosine(masks, masks) >= SAME_DRAWING, 1)), strict=True):
        root[find(int(i))] = find(int(j))
    number: dict[int, int] = {}
    return [number.setdefault(find(i), len(number)) for i in range(len(variants))]


def distinct(masks: np.ndarray, classes: list[str]) -> np.ndarray:
    """Mark the glyphs to keep so that no drawing is left under two classes.

    Args:
      masks: uint8[N, 64, 64].
      classes: N class names.

    Returns:
      bool[N]: false for glyphs dropped, one by one, always the one with most twins in other classes.
    """
    label = np.unique(classes, return_inverse=True)[1]
    clash = (cosine(masks, masks) >= SAME_DRAWING) & (label[:, None] != label[None])
    keep = np.ones(len(masks), bool)
    while clash.any():
        worst = int(clash.sum(1).argmax())
        keep[worst] = clash[worst] = clash[:, worst] = False
    return keep
