"""What a suite of tasks is made of: sources that have a length and give one example by its number."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.outline import outline
from jax_promptmtl.data.images import PLAIN, Reading

Example = dict[str, Any]


class Source(Protocol):
    """Random access to examples {"image": uint8[H, W, 3] RGB, "label": int}; `names` says where each comes from.

    Those of a `FeatureSource` have "features" instead of "image".
    """

    @property
    def names(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


@dataclass(frozen=True)
class Task:
    """One classification task: a label is a position in `class_names`, which may differ between tasks."""

    name: str
    class_names: tuple[str, ...]
    train: Source
    test: Source
    __repr__ = outline


@dataclass(frozen=True)
class Suite:
    """The tasks that are learnt together; `split_hash` identifies which examples train and which test.

    `left_out` names the images that were to be read but could not be, `unused` those that came after the split was
    drawn and do neither train nor test. `notes` are what else the user should know. `reading` is how pictures of this
    kind become pixels, in training as in prediction.
    """

    name: str
    tasks: tuple[Task, ...]
    split_hash: str
    left_out: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    reading: Reading = PLAIN
    __repr__ = outline


@dataclass(frozen=True)
class ArraySource:
    """Examples in memory: images uint8[N, H, W, 3], labels int[N], names N strings.

    >>> source = ArraySource(np.zeros((2, 4, 4, 3), np.uint8), np.array([5, 7]), ("a", "b"))
    >>> example = source[1]
    >>> len(source), example["label"]
    (2, 7)
    """

    images: np.ndarray
    labels: np.ndarray
    names: Sequence[str]
    __repr__ = outline

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        return {"image": self.images[index], "label": int(self.labels[index])}


@dataclass(frozen=True)
class FeatureSource:
    """What a frozen tower made of the examples of another source: features float[N, E], labels int[N], N names.

    >>> example = FeatureSource(np.eye(2), np.array([5, 7]), ("a", "b"))[1]
    >>> example["features"].tolist()
    [0.0, 1.0]
    """

    features: np.ndarray
    labels: np.ndarray
    names: Sequence[str]
    __repr__ = outline

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        return {"features": self.features[index], "label": int(self.labels[index])}


@dataclass(frozen=True)
class Subset:
    """The examples of another source at `indices`, in that order.

    >>> source = ArraySource(np.zeros((3, 4, 4, 3), np.uint8), np.arange(3), ("a", "b", "c"))
    >>> Subset(source, (2, 0)).names
    ('c', 'a')
    """

    source: Source
    indices: Sequence[int]
    __repr__ = outline

    @property
    def names(self) -> Sequence[str]:
        return tuple(self.source.names[i] for i in self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        return self.source[self.indices[index]]


class Union:
    """The examples of all tasks one after another, each with its number as "task".

    Args:
      tasks: T tasks.
      split: "train" or "test".
    """

    def __init__(self, tasks: Sequence[Task], split: str):
        self.tasks = tuple(tasks)
        self.sources = tuple(task.train if split == "train" else task.test for task in tasks)
        for task, source in zip(self.tasks, self.sources, strict=True):
            if not len(source):
                raise UserError(f"Task {task.name!r} has no {split} images; check its split or ask for fewer shots.")
        self.starts = np.concatenate([[0], np.cumsum([len(source) for source in self.sources])])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _place(self, index: int) -> tuple[int, int]:
        task = int(np.searchsorted(self.starts, index, side="right")) - 1
        return task, int(index - self.starts[task])

    def name(self, index: int) -> str:
        """Return what to call an example in a message."""
        task, place = self._place(index)
        return f"{self.sources[task].names[place]} of {self.tasks[task].name}"

    def __getitem__(self, index: int) -> Example:
        task, place = self._place(index)
        example = self.sources[task][place]
        label, classes = int(example["label"]), len(self.tasks[task].class_names)
        if not 0 <= label < classes:
            name = self.sources[task].names[place]
            raise UserError(
                f"Label {label} of {name!r} in task {self.tasks[task].name!r} is outside its class list; legal values "
                f"are 0 to {classes - 1}: correct the label or the class list."
            )
        return example | {"label": label, "task": task}
