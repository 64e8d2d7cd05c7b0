"""Fast numpy operations on stacks of glyph masks: blur, coordinate grids, bilinear warps, smooth random fields."""

import functools

import numpy as np

Array = np.ndarray


def column(values: Array | float) -> Array:
    """Return one number per picture, float32[B, 1, 1]."""
    return np.asarray(values, np.float32)[:, None, None]


def blur(stack: Array, passes: int) -> Array:
    """Blur float32[B, H, W] by `passes` separable binomial filters [1 2 1] / 4; the variance is `passes` / 2 pixels.

    The border is repeated, so a constant picture stays constant.

    >>> blur(np.eye(3, dtype=np.float32)[None], 1)[0, 1].tolist()
    [0.3125, 0.375, 0.3125]
    """
    for axis in (-1, -2) if passes else ():
        view = np.swapaxes(stack, axis, -2)  # filter rows: the contiguous axis stays innermost for axis -2
        for _ in range(passes):
            pairs = np.concatenate([view[..., :1, :], view, view[..., -1:, :]], axis=-2)
            pairs = pairs[..., 1:, :] + pairs[..., :-1, :]
            view = (pairs[..., 1:, :] + pairs[..., :-1, :]) * np.float32(0.25)
        stack = np.ascontiguousarray(np.swapaxes(view, axis, -2))
    return stack


def grid(size: int) -> tuple[Array, Array]:
    """Return the pixel centres (y, x), float32[size, size] each, in [-1, 1] with -1 and 1 at the outer edges."""
    line = ((np.arange(size) + 0.5) * 2 / size - 1).astype(np.float32)
    y, x = np.meshgrid(line, line, indexing="ij")
    return y, x


def sample(stack: Array, y: Array, x: Array) -> Array:
    """Read float32[B, H, W] bilinearly at coordinates y, x float32[B, h, w] in [-1, 1]; the border is repeated.

    >>> stack = np.array([[[0.0, 1.0], [2.0, 3.0]]], np.float32)
    >>> sample(stack, np.zeros((1, 1, 1), np.float32), np.zeros((1, 1, 1), np.float32)).item()
    1.5
    """
    height, width = stack.shape[1:]
    y = np.clip((y + 1) * np.float32(height / 2) - np.float32(0.5), 0, np.float32(height - 1.001))
    x = np.clip((x + 1) * np.float32(width / 2) - np.float32(0.5), 0, np.float32(width - 1.001))
    row, column = y.astype(np.int32), x.astype(np.int32)
    y -= row
    x -= column
    first = np.arange(len(stack), dtype=np.int32)[:, None, None] * np.int32(height * width)
    index = (first + row * np.int32(width) + column).astype(np.intp)
    flat = stack.reshape(-1)
    upper, right = flat[index], flat[index + 1]
    upper += (right - upper) * x
    index += width
    lower, right = flat[index], flat[index + 1]
    lower += (right - lower) * x
    upper += (lower - upper) * y
    return upper


def affine(y: Array, x: Array, *, angle: Array, scale: Array, shear: Array, shift: Array) -> tuple[Array, Array]:
    """Return the source coordinates [B, h, w] of a rotated, sheared, scaled and shifted picture.

    Args:
      y, x: target coordinates, float32[h, w].
      angle: float[B], radians, counter-clockwise positive on screen with y down reversed.
      scale: float[B]; 0.5 shows the source at half its size.
      shear: float[B]; horizontal displacement per unit of height.
      shift: float[B, 2]; (y, x) of the source's centre in the target.
    """

    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    y, x = y - column(shift[:, 0]), x - column(shift[:, 1])
    return column(cos) * y + column(-sin) * x, column(sin + shear * cos) * y + column(cos - shear * sin) * x


@functools.cache
def interpolation(size: int, knots: int) -> Array:
    """Return float32[size, knots]: the weights that interpolate `knots` equally spaced values smoothly to `size`.

    >>> interpolation(5, 2)[:, 1].tolist()
    [0.0, 0.15625, 0.5, 0.84375, 1.0]
    """
    position = np.linspace(0, knots - 1, size)
    left = np.minimum(position.astype(int), knots - 2)
    t = position - left
    t = t * t * (3 - 2 * t)
    weights = np.zeros((size, knots), np.float32)
    weights[np.arange(size), left] = 1 - t
    weights[np.arange(size), left + 1] += t
    return weights


def field(rng: np.random.Generator, count: int, size: int, knots: int) -> Array:
    """Draw `count` smooth random fields float32[count, size, size]: `knots`^2 standard normals, interpolated."""
    weights = interpolation(size, knots)
    values = rng.standard_normal((count, knots, knots), np.float32)
    smooth: Array = weights @ values @ weights.T
    return smooth


def fractal(rng: np.random.Generator, size: int, exponent: float, channels: int = 1) -> Array:
    """Draw noise float32[channels, size, size] with amplitude 1 / frequency^exponent, zero mean, unit variance.

    >>> noise = fractal(np.random.default_rng(0), 16, 1.0)
    >>> round(abs(float(noise.mean())), 4), round(float(noise.std()), 4)
    (0.0, 1.0)
    """
    falloff = np.exp(np.float32(-exponent) * _log_frequency(size))
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((channels, size, size), np.float32)) * falloff, (size, size))
    scaled: Array = noise / noise.std(axis=(1, 2), keepdims=True)
    return scaled


@functools.cache
def _log_frequency(size: int) -> Array:
    """Return the log of each spatial frequency of `rfft2`, float32; infinite at frequency 0, which is then removed."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = np.inf
    log: Array = np.log(frequency).astype(np.float32)
    return log


def shifted(picture: Array, down: int, right: int) -> Array:
    """Return [H, W] moved by whole pixels, zeros moving in.

    >>> shifted(np.array([[1, 2], [3, 4]]), 1, 0).tolist()
    [[0, 0], [1, 2]]
    """
    height, width = picture.shape
    out = np.zeros_like(picture)
    source = picture[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
    out[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = source
    return out


def fill_holes(ink: Array) -> Array:
    """Return bool[H, W]: the ink and all that it encloses (what 4-neighbour steps from the border cannot reach).

    >>> fill_holes(np.pad(np.pad([[False]], 1, constant_values=True), 1)).sum().item()
    9
    """
    free = np.pad(~np.asarray(ink, bool), 1, constant_values=True)
    outside = np.zeros_like(free)
    outside[0] = outside[-1] = outside[:, 0] = outside[:, -1] = True
    reached = 0
    while reached != (reached := int(outside.sum())):
        for _ in range(4):
            outside[1:] |= outside[:-1] & free[1:]
            outside[:-1] |= outside[1:] & free[:-1]
            outside[:, 1:] |= outside[:, :-1] & free[:, 1:]
            outside[:, :-1] |= outside[:, 1:] & free[:, :-1]
    return ~outside[1:-1, 1:-1]
