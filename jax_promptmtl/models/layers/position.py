"""Fixed sinusoidal positions of a video's tokens, and their resizing to another grid.

The table is that of VideoMAE (MCG-NJU/VideoMAE `modeling_finetune.py`): one index over the flattened grid, no learned
part. It depends on shapes alone, so it is computed in NumPy, in double precision.
"""

import numpy as np

Grid = tuple[int, int, int]  # tokens in time, rows, columns
SHARPNESS = -0.75  # of the cubic kernel; torch's bicubic has it, `jax.image.resize` has -0.5


def sinusoid(length: int, width: int) -> np.ndarray:
    """Return float32[length, width]: sine at even channels, cosine at odd ones, of index / 10000 ** (2 (j // 2) / D).

    >>> sinusoid(2, 2).round(3).tolist()
    [[0.0, 1.0], [0.8410000205039978, 0.5400000214576721]]
    """
    channel = np.arange(width)
    angle = np.arange(length)[:, None] / 10000.0 ** (2 * (channel // 2) / width)
    return np.where(channel % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)


def resampling(source: int, target: int, cubic: bool) -> np.ndarray:
    """Return float64[target, source], the weights of torch's interpolate from `source` to `target` samples.

    Cell centres correspond (align_corners is false), samples outside repeat the border, nothing is anti-aliased.

    Args:
      source: number of given samples.
      target: number of samples wanted.
      cubic: four-tap cubic weights; else two-tap linear ones, whose positions are clipped at the first sample.

    >>> resampling(2, 4, cubic=False).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    centre = (np.arange(target) + 0.5) * source / target - 0.5
    if not cubic:
        centre = np.maximum(centre, 0)
    left = np.floor(centre).astype(int)
    weights = np.zeros((target, source))
    for tap in range(-1, 3) if cubic else range(2):
        distance = np.abs(centre - (left + tap))
        weight = cubic_kernel(distance) if cubic else 1 - distance
        np.add.at(weights, (np.arange(target), np.clip(left + tap, 0, source - 1)), weight)
    return weights


def cubic_kernel(distance: np.ndarray) -> np.ndarray:
    """Return the weight of a sample at a distance in [0, 2], by Keys' cubic convolution.

    >>> cubic_kernel(np.array([0.0, 1.0, 1.5])).tolist()
    [1.0, 0.0, -0.09375]
    """
    a, d = SHARPNESS, distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = a * (((d - 5) * d + 8) * d - 4)
    result: np.ndarray = np.where(d <= 1, near, far)
    return result


def positions(trained: Grid, grid: Grid, width: int) -> np.ndarray:
    """Return float32[N, width] for a grid of N tokens, resized if it differs from the training grid.

    Every trained frame is resized bicubically, then time linearly.

    >>> bool((positions((2, 2, 2), (2, 2, 2), 4) == sinusoid(8, 4)).all())
    True
    """
    table = sinusoid(int(np.prod(trained)), width)
    if grid == trained:
        return table
    weights = (resampling(n, m, cubic=axis > 0) for axis, (n, m) in enumerate(zip(trained, grid, strict=True)))
    resized = np.einsum("at,bh,cw,thwd->abcd", *weights, table.reshape(*trained, width), optimize=True)
    result: np.ndarray = resized.reshape(-1, width).astype(np.float32)
    return result
