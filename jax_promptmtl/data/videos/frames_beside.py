"""Frames of the videos that features were extracted from, for models that see frames where another sees features."""

import pathlib
from typing import Any, Protocol

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.video_batches import Batch
from jax_promptmtl.data.videos import video_file
from jax_promptmtl.data.videos.sampling import Sampling, resize


class CutFeatures(Protocol):
    """A source of features that says which stretch of which video each of its rows is."""

    @property
    def cuts(self) -> Any:
        """Return (example, first feature, number of features) of every row."""

    def __len__(self) -> int: ...


class FramesBeside:
    """A few frames of every row of a source of features, evenly spread over the row's stretch of its video.

    Args:
      source: of features.
      root: folder of the videos, named as the features are.
      suffix: of their names, such as .mp4; "" for folders of frames.
      count: frames of a row.
      size: side of the square that is cut out of their middle.

    Raises:
      UserError: a video is missing.
    """

    def __init__(self, source: CutFeatures, *, root: str, suffix: str, count: int, size: int):
        self.source, self.sampling = source, Sampling(frames=count, size=size)
        self.whole: dict[str, int] = {}  # features of each video
        for example, first, number in source.cuts:
            self.whole[example.name] = max(self.whole.get(example.name, 0), first + number)
        self.paths = {
            name: pathlib.Path(root).expanduser() / f"{pathlib.Path(name).stem}{suffix}" for name in self.whole
        }
        if missing := [str(path) for path in self.paths.values() if not path.exists()]:
            raise UserError(
                f"{len(missing):,} videos are missing, the first is {missing[0]!r}; set frames.root and frames.suffix."
            )

    def __len__(self) -> int:
        return len(self.source)

    def take(self, indices: np.ndarray) -> Batch:
        """Return `frames` uint8[B, L, S, S, 3] of the rows at the indices."""
        return {"frames": np.stack([self.read(int(index)) for index in indices])}

    def read(self, index: int) -> np.ndarray:
        """Return the frames of one row: of L equal parts of its stretch those in the middle."""
        example, first, number = self.source.cuts[index]
        path = str(self.paths[example.name])
        length, whole, count = video_file.length(path), self.whole[example.name], self.sampling.frames
        places = (first + (np.arange(count) + 0.5) * number / count) / whole
        frames = video_file.frames(path, np.minimum((places * length).astype(int), length - 1))
        return resize(frames, self.sampling, None, False)
