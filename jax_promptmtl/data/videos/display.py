"""Decoded frames as a player shows them: colours, shape of the pixels, turned and mirrored.

Colours follow the matrix and the range that the stream names; where it names none, PyAV's: BT.601, limited range, as
ffmpeg and all readers of data sets do. Pixels that are not square are made so by changing the width.
"""

import pathlib
from typing import Any

import numpy as np
from PIL import Image

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.videos.container import unreadable

Array = np.ndarray
UPRIGHT = 0.02  # by so much, of 1, a matrix may differ from a turn by a multiple of 90 degrees
SQUARE = 0.01  # by so much pixels may differ from squares: encoders round sizes, and note what they lost as a shape
LONGEST = 10.0  # of pixels that a camera may have
RESERVED, UNNAMED = 3, 2  # numbers of ITU-T H.273, as those below
MATRICES = (0, 1, 2, 4, 5, 6, 7, 9)  # RGB, BT.709, unnamed, FCC, BT.601 twice, SMPTE 240, BT.2020


def shown(frame: Any, aspect: float, path: pathlib.Path) -> Array:
    """Return a frame as uint8[H, W, 3], RGB.

    Args:
      frame: of PyAV.
      aspect: width over height of a stored pixel.
      path: of the video.

    Raises:
      UserError: a colour matrix that cannot be converted, an angle that is no multiple of 90 degrees, absurd pixels.
    """
    if frame.colorspace == RESERVED:
        frame.colorspace = UNNAMED
    if frame.colorspace not in MATRICES:
        raise UserError(
            f"Colours of the video {str(path)!r} are in matrix {int(frame.colorspace)} of ITU-T H.273, which is not "
            "converted; convert the video to BT.709."
        )
    if not 1 / LONGEST < aspect < LONGEST:
        raise UserError(f"Pixels of the video {str(path)!r} are {aspect:.3g} times as wide as high; convert the video.")
    try:
        pixels = frame.to_ndarray(format="rgb24")
    except Exception as error:  # of PyAV, of any type
        raise unreadable(path, error) from error
    if abs(aspect - 1) > SQUARE:
        height, width = pixels.shape[:2]
        size = (max(round(width * aspect), 1), height)
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    return turn(pixels, signs_of(frame, path))


def signs_of(frame: Any, path: pathlib.Path) -> Array:
    """Return the matrix by which a frame is turned as zeros and signs; see `matrix_of`."""
    matrix = matrix_of(frame)
    matrix /= np.abs(matrix).max()
    signs = np.round(matrix)
    if np.abs(matrix - signs).max() > UPRIGHT or (signs @ signs.T != np.eye(2)).any():
        raise UserError(
            f"Video {str(path)!r} is shown turned by no multiple of 90 degrees; convert it, which turns its frames."
        )
    return signs


def matrix_of(frame: Any) -> Array:
    """Return the 2 x 2 part of the matrix by which a frame is turned, [[a, b], [c, d]]; the unit matrix without one.

    A stored place (x, y), y downwards, is shown at (a x + c y, b x + d y).
    """
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            matrix = np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2]
            return matrix.astype(np.float64) if matrix.any() else np.eye(2)
    return np.eye(2)


def turn(pixels: Array, signs: Array) -> Array:
    """Turn and mirror a picture [H, W, 3] by a matrix of zeros and signs; see `matrix_of`.

    >>> turn(np.array([[[1], [2]], [[3], [4]]]), np.array([[0, 1], [-1, 0]]))[..., 0].tolist()  # clockwise
    [[3, 1], [4, 2]]
    """
    if not signs[0, 0]:
        pixels, signs = pixels.swapaxes(0, 1), signs[::-1]
    return np.ascontiguousarray(pixels[:: int(signs[1, 1]), :: int(signs[0, 0])])
