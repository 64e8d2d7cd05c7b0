"""Moving icons, which are drawn, as the videos of a job, with the small models that were trained on them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import pick
from jax_promptmtl.data.icons import moving_icons
from jax_promptmtl.data.video_batches import Clips
from jax_promptmtl.experiments.video.footage import Kept
from jax_promptmtl.models.video.view import View
from jax_promptmtl.problems.video_tasks import SPECS, icons
from jax_promptmtl.problems.video_tasks.spec import Sight, VideoTaskSpec
from jax_promptmtl.tasks.task import VideoTask

PyTree = Any
PARTS = {"train": "base", "test": "base", "shifted": "shifted", "panned": "panned"}  # part -> variant of the icons


@dataclass(frozen=True)
class IconFootage:
    """Moving icons, with the small models that come with the package or lie in a folder.

    Attributes:
      name: the primary task.
      aux: the auxiliaries' tasks.
      clips: `config.clips`.
      folder: `config.models`.
      weights: task -> parameters of its model.
      parts: those of `PARTS` that there are.
      made: videos that were drawn.
    """

    name: str
    aux: tuple[str, ...]
    clips: Any
    folder: str
    weights: Mapping[str, PyTree]
    parts: tuple[str, ...]
    made: dict[tuple, Clips] = field(default_factory=dict)
    views = 1
    evaluate = None

    @property
    def spec(self) -> VideoTaskSpec:
        return SPECS[self.name]

    @property
    def task(self) -> VideoTask:
        return self.spec.task

    @property
    def primary(self) -> str:
        return self.name

    @property
    def classes(self) -> tuple[str, ...]:
        return moving_icons.classes(self.name)

    def videos(self, part: str) -> Clips:
        count = self.clips["train" if part == "train" else "test"]
        key = self.name, part, count, self.drawings(part), self.seed(part)
        if key not in self.made:
            drawings, seed = self.drawings(part), self.seed(part)
            self.made[key] = icons.videos(self.name, count, drawings, variant=PARTS[part], seed=seed)
        return self.made[key]

    def labels(self, part: str) -> Clips:
        return icons.labels(self.videos(part))

    def drawings(self, part: str) -> str:
        """Return which drawings the videos of a part have."""
        return "train" if part == "train" else self.clips.evaluate_on

    def seed(self, part: str) -> int:
        """Return what draws the videos of a part; those to test on stay the same."""
        return self.clips.seed if part == "train" else self.clips.test_seed

    def identity(self, part: str) -> str:
        return f"{self.name} {self.drawings(part)} {PARTS[part]} {self.seed(part)} {moving_icons.VERSION}"

    def view(self, model: str, sight: Sight) -> View:
        return icons.view(model, self.weights, icons.frames_of(self.name), sight)

    def about(self) -> dict[str, Any]:
        return {}  # the config says it all

    def parameters(self, model: str) -> PyTree:
        return self.weights[model]

    def features(self, model: str) -> Kept | None:
        extractor = SPECS[model].extractor
        if not extractor:
            return None
        trunk, layers = self.weights[extractor]["trunk"], icons.VIT["layers"]
        return Kept("features", layers, partial(icons.extract, model), trunk)

    def loaded(self, models: tuple[str, ...]) -> int:
        return sum(tree.count(self.weights[name]) for name in icons.needed(models))

    def of(self, task: str, count: Callable[[tuple[str, ...]], int]) -> "IconFootage":
        clips = self.clips.copy_and_resolve_references().unlock()
        clips.train = count(moving_icons.classes(task))
        weights = {**self.weights, **icons.load(self.folder, (task,))}
        return IconFootage(task, (), clips.lock(), self.folder, weights, ("train",), self.made)


def open_icons(config: Any) -> IconFootage:
    """Read the models of a job on moving icons.

    Raises:
      UserError: an unknown task, or a model that cannot be read.
    """
    task = pick(config.task, SPECS, "primary task")
    for name in config.aux:
        pick(name, [other for other in SPECS if other != task], "auxiliary task")
    weights = icons.load(config.models, (task, *config.aux))
    pick(config.clips.evaluate_on, ("test", "tune"), "clips.evaluate_on")
    parts = parts_of(task, config.clips.evaluate_on)
    return IconFootage(task, tuple(config.aux), config.clips, config.models, weights, parts)


def parts_of(task: str, evaluate_on: str = "test") -> tuple[str, ...]:
    """Return the parts of a task's icons; rates are searched for without the variants.

    >>> parts_of("segmentation"), parts_of("segmentation", "tune")
    (('train', 'test', 'shifted', 'panned'), ('train', 'test'))
    """
    variants = [part for part in PARTS if (task, PARTS[part]) in moving_icons.DOMAINS]
    return tuple(variants if evaluate_on == "test" else ("train", "test"))
