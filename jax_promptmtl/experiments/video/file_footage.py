"""The files of a data set as the videos of a job, with models from files."""

import math
import pathlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.hashes import weights_sha256
from jax_promptmtl.data import fewshot, videos
from jax_promptmtl.data.video_batches import Batch, ClipSource, all_batches
from jax_promptmtl.data.videos import feature_time
from jax_promptmtl.data.videos.frames_beside import FramesBeside
from jax_promptmtl.data.videos.index import VideoSet
from jax_promptmtl.data.videos.left_out import LeftOut
from jax_promptmtl.experiments.video import training
from jax_promptmtl.experiments.video.footage import Evaluate, Footage, Kept, other_data
from jax_promptmtl.models.video.middle import Cut
from jax_promptmtl.models.video.view import View
from jax_promptmtl.problems.video_tasks import SPECS, files
from jax_promptmtl.problems.video_tasks.files import FileModel
from jax_promptmtl.problems.video_tasks.spec import Sight, VideoTaskSpec
from jax_promptmtl.tasks.task import VideoTask

PyTree = Any
PRIMARY = "primary"
LARGE = 4096  # bools of a label from which it is compressed
FRAMES = "frames"  # the key of what a model of videos sees


class Remembered:
    """A source that remembers the labels of what was read, so that they can be had again without a video.

    Masks are kept compressed: whole ones of a data set of instances would not fit into memory.
    """

    def __init__(self, source: ClipSource):
        self.source = source
        self.rows: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self.source)

    def take(self, indices: np.ndarray) -> Batch:
        """Return the videos at the indices."""
        batch = self.source.take(indices)
        labels = {key: leaf for key, leaf in batch.items() if key not in (FRAMES, "features")}
        for row, index in enumerate(indices):
            self.rows[int(index)] = {key: shrink(leaf[row]) for key, leaf in labels.items()}
        return batch


class Shrunk(NamedTuple):
    """A large array of bools: its shape, and its bits, compressed."""

    shape: tuple[int, ...]
    bits: bytes


def shrink(leaf: np.ndarray) -> np.ndarray | Shrunk:
    """Return a label to be kept; large arrays of bools are compressed."""
    if leaf.dtype != bool or leaf.size < LARGE:
        return leaf
    return Shrunk(leaf.shape, zlib.compress(np.packbits(leaf).tobytes(), 1))


def expand(kept: np.ndarray | Shrunk) -> np.ndarray:
    """Return a label that was kept.

    >>> mask = np.arange(3 * LARGE).reshape(3, -1) % 7 == 0
    >>> bool((expand(shrink(mask)) == mask).all()), len(shrink(mask).bits) < mask.nbytes / 100
    (True, True)
    """
    if not isinstance(kept, Shrunk):
        return kept
    bits = np.frombuffer(zlib.decompress(kept.bits), np.uint8)
    return np.unpackbits(bits, count=math.prod(kept.shape)).reshape(kept.shape).astype(bool)


@dataclass(frozen=True)
class Labels:
    """The labels of a source; a video that was never read is read once."""

    source: Remembered

    def __len__(self) -> int:
        return len(self.source)

    def take(self, indices: np.ndarray) -> Batch:
        """Return the labels at the indices."""
        if missing := sorted({int(index) for index in indices} - self.source.rows.keys()):
            self.source.take(np.array(missing))
        rows = [self.source.rows[int(index)] for index in indices]
        return {key: np.stack([expand(row[key]) for row in rows]) for key in rows[0]}


@dataclass(frozen=True)
class Beside:
    """Two sources of one length, read side by side."""

    first: ClipSource
    second: ClipSource

    def __len__(self) -> int:
        return len(self.first)

    def take(self, indices: np.ndarray) -> Batch:
        """Return what both have at the indices."""
        return {**self.first.take(indices), **self.second.take(indices)}


@dataclass(frozen=True)
class FileFootage:
    """The videos of a data set.

    Attributes:
      config: of the job.
      data: the data set.
      sources: part -> its videos.
      models: "primary" and the auxiliaries.
      task: with the rules of the data set.
    """

    config: Any
    data: VideoSet
    sources: Mapping[str, Remembered]
    models: Mapping[str, FileModel]
    task: VideoTask
    primary = PRIMARY

    @property
    def spec(self) -> VideoTaskSpec:
        return SPECS[self.data.task]

    @property
    def evaluate(self) -> Evaluate | None:
        return self.spec.evaluate

    @property
    def aux(self) -> tuple[str, ...]:
        return tuple(name for name in self.models if name != PRIMARY)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.data.class_names

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.sources)

    @property
    def views(self) -> int:
        return 1 if self.data.channels else self.config.views

    def videos(self, part: str) -> ClipSource:
        return self.sources[part]

    def labels(self, part: str) -> ClipSource:
        return Labels(self.sources[part])

    def identity(self, part: str) -> str:
        names = [example.name for example in self.data.parts[part]]
        seen = {key: self.config[key].to_dict() for key in ("sampling", "feature")}
        about = [names, seen, self.config.views, self.config.seed, self.config.every, self.config.multiple]
        return f"{self.data.name} {part} {fewshot.digest(about)}"

    def view(self, model: str, sight: Sight) -> View:
        return self.models[model].view(auxiliary=sight.auxiliary, cut=Cut(sight.middle, sight.drop_after))

    def about(self) -> dict[str, Any]:
        others = {name: weights_sha256(model.params) for name, model in self.models.items() if name != PRIMARY}
        return {"classes": list(self.classes), "aux_sha256": others}

    def parameters(self, model: str) -> PyTree:
        return self.models[model].params

    def features(self, model: str) -> Kept | None:
        return None  # a model of features brings its own extractor

    def loaded(self, models: tuple[str, ...]) -> int:
        unique = {id(self.models[name].params): self.models[name] for name in models}
        return sum(model.count() for model in unique.values())

    def of(self, task: str, count: Callable[[tuple[str, ...]], int]) -> Footage:
        raise other_data("hard parameter sharing, MVLPT or auxiliaries that see their own data")


def open_files(config: Any, place: str | pathlib.Path = "", *, drawn: bool = False) -> FileFootage:
    """Read the annotations and the models of a job on files.

    Args:
      config: of the job.
      place: of the list of files that cannot be read and are left out, with `data.strict=False`; "" keeps none.
      drawn: draw the primary where no weights are given, to look at sizes.

    Raises:
      UserError: data or weights that cannot be read, no auxiliary that one is needed of.
    """
    data = videos.build(config.data)
    spec = SPECS[data.task]
    left_out = None if config.data.strict else LeftOut(place)
    for note in [*data.notes, *feature_time.misfits(data, config.feature)]:
        print(f"note: {note}")
    data = training.in_form(spec, data, config)
    found = training.sources_of(data, config, left_out)
    sources = {part: Remembered(with_frames(source, data, config)) for part, (source,) in found.items()}
    example = next(all_batches([sources["train"]], batch_size=1))
    primary = files.open_primary(spec, data.class_names, config, example, drawn=drawn)
    task = spec.rule(spec.task, training.rules_of(data, config, primary.sizes))
    size = example[FRAMES].shape[2:4] if FRAMES in example else (0, 0)
    models = {PRIMARY: primary}
    if FRAMES not in example and any(section.weights for section in config.aux.values()):
        raise UserError(
            f"Auxiliaries see frames, and {data.name!r} is a set of features; give the folder of its videos as "
            "--config.frames.root."
        )
    for name, section in config.aux.items():
        if section.weights:
            models[name] = files.open_auxiliary(SPECS, name, section, size)
    return FileFootage(config, data, sources, models, task)


def with_frames(source: Any, data: VideoSet, config: Any) -> ClipSource:
    """Return a source of features with frames of the videos beside them, where the config says where those are."""
    if not data.channels or not config.frames.root:
        return source
    return Beside(source, FramesBeside(source, **config.frames))
