"""Run-length codes against loops written from their description."""

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.videos import rle
from tests.video_trees import run_lengths

RNG = np.random.default_rng(0)
MASKS = [RNG.random((5, 7)) < 0.4, np.zeros((3, 4), bool), np.ones((2, 2), bool), RNG.random((200, 150)) < 0.02]


def spelled(counts):
    """Write run lengths as COCO's text, from its description: five bits at a time, the lowest first."""
    text = ""
    for i, count in enumerate(counts):
        value, more = count - (counts[i - 2] if i > 2 else 0), True
        while more:
            piece, value = value & 31, value >> 5
            more = value != -1 if piece & 16 else value != 0
            text += chr((piece | 32 if more else piece) + 48)
    return text


@pytest.mark.parametrize("mask", MASKS)
def test_masks_come_back_from_lists_and_from_text(mask):
    code = run_lengths(mask)
    np.testing.assert_array_equal(rle.decode(code), mask)
    np.testing.assert_array_equal(rle.decode({"size": code["size"], "counts": spelled(code["counts"])}), mask)
    np.testing.assert_array_equal(rle.decode({"size": code["size"], "counts": spelled(code["counts"]).encode()}), mask)


@pytest.mark.parametrize(
    "code",
    [
        {"size": [2, 2], "counts": [1, 2]},
        {"size": [2, 2], "counts": [5, -1]},
        {"size": [2], "counts": [4]},
        {"counts": [4]},
        {"size": [2, 2], "counts": "o"},
        {"size": [2, 2], "counts": [[1, 3]]},
    ],
)
def test_broken_codes_are_one_sentence(code):
    with pytest.raises(UserError, match="The mask of 'clip' is no run-length code of its size"):
        rle.decode(code, "clip")
