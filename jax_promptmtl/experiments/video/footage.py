"""The videos of a job and the frozen models that see them; `icon_footage` and `file_footage` have them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.problem import Problem
from jax_promptmtl.data.video_batches import Batch, ClipSource
from jax_promptmtl.models.video.view import View
from jax_promptmtl.problems.video_tasks.spec import Sight, VideoTaskSpec
from jax_promptmtl.tasks.task import VideoTask

PyTree = Any
Evaluate = Callable[[Problem, PyTree, Iterable[Batch], int], dict[str, float]]


@dataclass(frozen=True)
class Kept:
    """What frozen weights say of videos, which is computed once.

    Attributes:
      name: of the model, or of what it gives.
      middle: layers that run.
      compute: (weights, batch) -> arrays.
      weights: of the model.
      spec: the form in which it sees a video.
    """

    name: str
    middle: int
    compute: Callable[[PyTree, Batch], Mapping[str, Any]]
    weights: PyTree
    spec: Mapping[str, Any] = field(default_factory=dict)


class Footage(Protocol):
    """The videos of one primary task, and the models that see them; "model" below is the name of one of these."""

    @property
    def spec(self) -> VideoTaskSpec:
        """Return what there is to know of the primary task."""

    @property
    def task(self) -> VideoTask:
        """Return the task with the rules of the data."""

    @property
    def primary(self) -> str:
        """Return the model that is prompted."""

    @property
    def aux(self) -> tuple[str, ...]:
        """Return the auxiliary models."""

    @property
    def evaluate(self) -> Evaluate | None:
        """Return the evaluation of data whose answers are too large for `task.measure`; see `VideoTaskSpec`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the parts of the videos: train, test, and others to test on."""

    @property
    def views(self) -> int:
        """Return how many random views a source has of every training video."""

    def videos(self, part: str) -> ClipSource:
        """Return the videos of a part with their labels."""

    def labels(self, part: str) -> ClipSource:
        """Return the labels alone, where models bring what they saw of the videos."""

    def identity(self, part: str) -> str:
        """Return what tells a part's videos from others, for what is kept on disk."""

    def view(self, model: str, sight: Sight) -> View:
        """Return a model as it sees these videos."""

    def about(self) -> dict[str, Any]:
        """Return what a checkpoint says of the videos and the auxiliaries, beside the names of models."""

    def parameters(self, model: str) -> PyTree:
        """Return the weights of a model."""

    def features(self, model: str) -> Kept | None:
        """Return what makes a model's features where several models share them."""

    def loaded(self, models: tuple[str, ...]) -> int:
        """Return the parameters of models; what two of them share counts once."""

    def of(self, task: str, count: Callable[[tuple[str, ...]], int]) -> "Footage":
        """Return videos of another task, to train on.

        Args:
          task: whose.
          count: class names -> number of videos.
        """


def other_data(row: str) -> UserError:
    """Return the refusal of a row that trains on the auxiliaries' own data."""
    return UserError(
        f"{row} trains on videos of other tasks, which a job on files of one data set has not; leave its row out."
    )
