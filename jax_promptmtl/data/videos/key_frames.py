"""Clips for detection in videos: one key frame, whose objects are wanted, and other frames of its video to look at.

After SJTU-LuHe/TransVOD `datasets/vid_multi.py`: training draws the others from the whole video, tests take them evenly
spread, from the first on. A video that is too short shows its frames again.
"""

from dataclasses import replace

import numpy as np

from jax_promptmtl.data.videos.index import VideoSet

Array = np.ndarray
SPACES = 16  # into which a test video is divided


def by_frame(data: VideoSet) -> VideoSet:
    """Return a set with one example for every frame that the annotations name, which is its key frame."""
    parts = {
        part: tuple(
            replace(example, name=f"{example.name}[{key}]", key=key)
            for example in examples
            for key in range(len(example.files))
        )
        for part, examples in data.parts.items()
    }
    return replace(data, parts=parts)


def with_others(key: int, count: int, frames: int, rng: np.random.Generator | None) -> Array:
    """Return the key frame and the others of its clip, int[frames].

    Args:
      key: number of the key frame.
      count: frames of the video.
      frames: of the clip.
      rng: draws the others; None takes those of a test.

    >>> with_others(5, 32, 5, None).tolist(), with_others(0, 1, 3, None).tolist()
    ([5, 0, 1, 3, 7], [0, 0, 0])
    """
    known = [frame for frame in range(count) if frame != key] if rng is not None else spread(key, count)
    known = known or [key]
    pool = np.tile(known, -(-(frames - 1) // len(known)))
    others = pool[: frames - 1] if rng is None else rng.permutation(pool)[: frames - 1]
    return np.concatenate([[key], others]).astype(int)


def spread(key: int, count: int) -> list[int]:
    """Return frames at even distances from the key frame, in order, without it.

    >>> spread(5, 32)
    [0, 1, 3, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29]
    """
    step = max(count // SPACES, 1)
    places = [key + i * step for i in range(-key // step, (count - 1 - key) // step) if i]
    return [frame for frame in (min(max(place, 0), count - 1) for place in places) if frame != key]
