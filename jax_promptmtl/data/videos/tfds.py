"""UCF101 and YouTube-VIS 2019 as TFDS prepares them (`ucf101`, `youtube_vis`), read without tensorflow.

TFDS's own class for videos needs tensorflow, so the files `<root>/<data set>/<config>/<version>/*.array_record-*` are
opened here. A record is tensorflow's Example: lists of values by the names of features. A video is a list of encoded
pictures; of a list of lists all values stand in a row, with the length of each list beside them.
"""

import itertools
import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.data.videos import ucf101, youtube_vis
from jax_promptmtl.data.videos.annotations import locate, read_lines
from jax_promptmtl.data.videos.index import Example, VideoSet, require_examples

HOME = "TFDS: tfds.builder(name, file_format='array_record').download_and_prepare()"
RAGGED = ("flat_values", "row_lengths_0")
LABELLED = ("only_frames_with_labels", "480_640_only_frames_with_labels")


@dataclass(frozen=True)
class Records:
    """The records of one split of a prepared data set, read one by one.

    Attributes:
      name: of the data set and the split.
      source: the records' bytes.
    """

    name: str
    source: Any

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int, names: Iterable[str]) -> list[list[Any]]:
        """Return the values of some features of a record."""
        try:
            fields = tf_example_pb2.Example.FromString(self.source[index]).features.feature
            return [values_of(fields[name]) for name in names]
        except (DecodeError, ValueError) as error:
            raise UserError(
                f"TFDS record {index} of {self.name!r} cannot be read ({error}); prepare the data again by {HOME}."
            ) from None


def values_of(field: Any) -> list[Any]:
    """Return the values of a field, of whatever kind; those of no kind are empty."""
    kind = field.WhichOneof("kind")
    return list(getattr(field, kind).value) if kind else []


def lists(values: Sequence[Any], lengths: Sequence[int]) -> list[Sequence[Any]]:
    """Cut a row of values into lists.

    >>> lists("abc", [2, 0, 1])
    ['ab', '', 'c']
    """
    ends = list(itertools.accumulate(lengths, initial=0))
    return [values[start:end] for start, end in itertools.pairwise(ends)]


def folder_of(root: str, name: str, config: str) -> pathlib.Path:
    """Return the folder of a prepared config's newest version."""
    form = f"{name}/{config}/<version>/{name}-*.array_record-*"
    place = locate(root, (f"{name}/{config}",), form, HOME)
    found = [path for path in place.glob("*.*.*") if path.is_dir()]
    if not found:
        raise UserError(f"Folder {str(place)!r} has no version; expected {form}, from {HOME}.")
    return max(found, key=lambda path: [int(part) if part.isdigit() else 0 for part in path.name.split(".")])


def open_split(folder: pathlib.Path, name: str, split: str) -> Records:
    """Return the records of a split, all of whose files must be there."""
    files = sorted(folder.glob(f"{name}-{split}.array_record-*-of-*"))
    shards = int(files[0].name.rsplit("-", 1)[1]) if files else 0
    if not files or len(files) != shards:
        raise UserError(
            f"Folder {str(folder)!r} has {len(files)} of the {shards or 'unknown number of'} files "
            f"{name}-{split}.array_record-*; prepare it again by {HOME}."
        )
    return Records(f"{name}-{split}", ArrayRecordDataSource([str(file) for file in files]))


def examples_of(records: Records, name: str, split: str, indices: Iterable[int] | None = None) -> list[Example]:
    """Return examples that name a record each; labels and pictures come with `VideoSet.fill`."""
    chosen = range(len(records)) if indices is None else indices
    return [Example(f"{split}[{i:07d}]", f"{name}-{split}[{i:07d}]", {}) for i in chosen]


def place_of(example: Example) -> tuple[str, int]:
    """Return the split and the number of an example's record.

    >>> place_of(Example("train[0000012]", "", {}))
    ('train', 12)
    """
    split, number = example.name.rstrip("]").split("[")
    return split, int(number)


def read_ucf101(*, root: str, split: int = 1, size: int = 0) -> VideoSet:
    """Read a split of UCF101.

    Args:
      root: the TFDS folder.
      split: 1, 2 or 3.
      size: 256 for the config of the first split with videos of 256 x 256 pixels; 0 for videos as they are.

    Returns:
      The set; no record is looked at.

    Raises:
      UserError: not prepared, or a file is missing.
    """
    published = ucf101.SPLITS[int(pick(str(split), map(str, ucf101.SPLITS), "split of ucf101"))]
    folder = folder_of(root, "ucf101", f"ucf101_{split}" + (f"_{size}" if size else ""))
    opened = {part: open_split(folder, "ucf101", part) for part in ("train", "test")}

    def fill(example: Example) -> Example:
        part, number = place_of(example)
        video, labels = opened[part].read(number, ("video", "label"))
        require_labels(labels[:1], len(names), example, whole=len(labels) == 1 and bool(video))
        return replace(example, labels={"label": np.array(labels[0], np.int32)}, pictures=tuple(video))

    parts = {part: examples_of(records, "ucf101", part) for part, records in opened.items()}
    counts = {"classes": ucf101.CLASSES, "train": published[0], "test": published[1]}
    whole, names = require_examples(parts, "ucf101", HOME), tuple(read_lines(folder / "label.labels.txt"))
    return VideoSet("ucf101", "recognition", folder, names, whole, counts, HOME, fill=fill)


def read_youtube_vis(*, root: str, config: str = LABELLED[0], held_out: float = 0.1, seed: int = 0) -> VideoSet:
    """Read the training split of YouTube-VIS 2019, the only one with labels.

    Args:
      root: the TFDS folder.
      config: one of the two with labelled frames only.
      held_out: share of the videos that test.
      seed: draws them.

    Returns:
      The set; no record is looked at. The largest number of objects is only known once all were read.

    Raises:
      UserError: not prepared, another config, or a file is missing.
    """
    folder = folder_of(root, "youtube_vis", pick(config, LABELLED, "config of youtube_vis"))
    records = open_split(folder, "youtube_vis", "train")
    halves = youtube_vis.halves(len(records), held_out, seed)
    parts = {part: examples_of(records, "youtube_vis", "train", half) for part, half in halves.items()}
    names = tuple(read_lines(folder / "tracks-category.labels.txt"))
    notes = (f"test: {len(parts['test']):,} of the training videos; the official one is hidden",)
    whole = require_examples(parts, "youtube_vis", HOME)
    fill = partial(fill_youtube_vis, records, len(names))
    published = youtube_vis.PUBLISHED
    return VideoSet("youtube_vis", "video_instance", folder, names, whole, published, HOME, notes=notes, fill=fill)


def require_labels(labels: Sequence[int], classes: int, example: Example, *, whole: bool) -> None:
    """Refuse a record with an unknown label, or whose lists are not `whole`: do not fit each other."""
    if not whole or not all(0 <= label < classes for label in labels):
        raise UserError(
            f"TFDS record {example.video!r} has lists that do not fit, or a label of {list(labels)} that is not below "
            f"{classes}; prepare the data again by {HOME}."
        )


def fill_youtube_vis(records: Records, count: int, example: Example) -> Example:
    """Return an example with the pictures, labels of `count` classes and masks of its record, without crowds."""
    nested = [f"tracks/{name}/ragged_{part}" for name in ("frames", "segmentations") for part in RAGGED]
    read = records.read(place_of(example)[1], ("video", "tracks/category", "tracks/is_crowd", *nested))
    video, classes, crowds, *rest = read
    chosen, masks = [i for i, crowd in enumerate(crowds) if not crowd], []
    frames, codes = lists(*rest[:2]), lists(*rest[2:])
    fits = len(classes) == len(crowds) == len(frames) == len(codes) and list(map(len, frames)) == list(map(len, codes))
    fits = fits and all(0 <= frame < len(video) for some_frames in frames for frame in some_frames)
    require_labels(classes, count, example, whole=fits)
    for i in chosen:
        shown: list[bytes | None] = [None] * len(video)
        for frame, code in zip(frames[i], codes[i], strict=True):
            shown[frame] = code
        masks.append(tuple(shown))
    label = np.array([classes[i] for i in chosen], np.int32)
    return replace(example, labels={"label": label}, pictures=tuple(video), masks=tuple(masks))
