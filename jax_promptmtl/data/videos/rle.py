"""Masks as COCO and YouTube-VIS write them: run lengths down the columns, as a list or as COCO's text."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import images

Array = np.ndarray


def decode(mask: Mapping[str, Any], name: str = "a mask") -> Array:
    """Return a mask as bool[H, W].

    Args:
      mask: {"size": [H, W], "counts": run lengths of 0, 1, 0, ... down the columns, a list or COCO's text}.
      name: whose it is.

    Raises:
      UserError: no run lengths, or their sum is not H * W.

    >>> decode({"size": [2, 2], "counts": [1, 2, 1]}).astype(int).tolist()
    [[0, 1], [1, 0]]
    """
    try:
        (height, width), counts = mask["size"], mask["counts"]
        runs = np.array(numbers(counts) if isinstance(counts, (str, bytes)) else counts, np.int64)
        if runs.ndim != 1 or not ((runs >= 0) & (runs <= height * width)).all() or runs.sum() != height * width:
            raise ValueError
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        raise UserError(
            f"The mask of {name!r} is no run-length code of its size ({str(mask)[:60]}); correct the annotations."
        ) from None
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(width, height).T


def mask_of(code: Mapping[str, Any] | bytes, name: str = "a mask") -> Array:
    """Return a mask bool[H, W] from run lengths, or from an encoded picture that is black outside it."""
    if isinstance(code, bytes):
        return np.asarray(images.decode(code, name, images.STORED).any(axis=-1))
    return decode(code, name)


def numbers(text: str | bytes) -> list[int]:
    """Return the run lengths of COCO's text: five bits a character; from the fourth on as changes of the last but one.

    >>> numbers("121"), numbers("a0")
    ([1, 2, 1], [17])
    """
    characters = text.encode() if isinstance(text, str) else text
    runs: list[int] = []
    place = 0
    while place < len(characters):
        value, shift, more = 0, 0, True
        while more:
            piece = characters[place] - 48
            more, place = bool(piece & 32), place + 1
            value |= (piece & 31) << shift
            shift += 5
        if piece & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs
