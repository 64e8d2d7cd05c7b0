"""What there is to know of a video task: its model, what the model sees and learns, how answers are scored.

A task is a module of this folder with a `VideoTaskSpec`, and a line in the table of `__init__.py`; nothing else asks
for a task by name. Sizes come from configs: the small models of the moving icons and the full-size ones of
`configs/video_full.py` are the same constructors with other numbers.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.problem import Problem
from jax_promptmtl.models.video import featured
from jax_promptmtl.models.video.form import InputForm
from jax_promptmtl.models.video.middle import IN_HALF, Cut, VideoBackbone, draw
from jax_promptmtl.models.video.model_file import has_card, read_model
from jax_promptmtl.models.video.videomae import VideoMaeConfig
from jax_promptmtl.models.video.view import View
from jax_promptmtl.problems.video_tasks.adopt import adopt
from jax_promptmtl.tasks.task import VideoTask

Array = jax.Array
PyTree = Any
Batch = Mapping[str, Any]
Sizes = Any  # the config class of a task's model


@dataclass(frozen=True)
class Extractor:
    """The frozen vision transformer that turns videos into features.

    Attributes:
      sizes: of the transformer.
      trunk: its parameters.
      given: whether batches bring the features, so that it does not run.
    """

    sizes: VideoMaeConfig
    trunk: PyTree
    given: bool = False


@dataclass(frozen=True)
class Sight:
    """How a model sees a video; `given`, `seen` and `stage` are for the small ones, see `icons`.

    Attributes:
      auxiliary: whether it is one, and sees no labels.
      middle: layers in the lower half; half of them when `None`.
      drop_after: layers that see prompts; all above the middle if 0.
      given: take features instead of frames, for the training of a model on them.
      seen: frames that a model with labels of frames sees; see `icons.SEEN` if 0.
      stage: of a model that has several; that of `icons.SIZES` if "".
    """

    auxiliary: bool = False
    middle: int | None = None
    drop_after: int = 0
    given: bool = False
    seen: int = 0
    stage: str = ""


AS_PRIMARY = Sight()


@dataclass(frozen=True)
class Rules:
    """What a data set or a recipe decides about learning and scoring.

    Attributes:
      scored: classes that count, all when `None`.
      background: classes that make no segments.
      views: of a test video, whose scores are averaged.
      soft: whether labels are shares of the classes.
      every: labelled frames that an answer stands for.
      points: at which masks are compared; every cell if 0.
      sizes: of the model, which say its stage where it learns in several.
    """

    scored: tuple[int, ...] | None = None
    background: tuple[int, ...] = ()
    views: int = 1
    soft: bool = False
    every: int = 1
    points: int = 0
    sizes: Sizes = None


@dataclass(frozen=True)
class TrainingStage:
    """One training of a small model.

    Attributes:
      name: of the training.
      tune: patterns of the weights that are trained.
      stage: of the model, where it has several.
      loss: of the outputs, that of the task when `None`.
      epochs: the key of `config.train` that says how many.
    """

    name: str
    tune: tuple[str, ...] = (".*",)
    stage: str = ""
    loss: Callable[..., Any] | None = None
    epochs: str = "epochs"


def unchanged(task: VideoTask, rules: Rules) -> VideoTask:
    """Return a task about which data sets decide nothing."""
    return task


def inherit_nothing(drawn: PyTree, base: PyTree) -> PyTree:
    """Return drawn parameters as they are."""
    return drawn


@dataclass(frozen=True)
class VideoTaskSpec:
    """A video task; its fields are all that the rest of the package knows of it.

    Attributes:
      task: loss, labels, decoding and metric.
      module: class of the model, constructed from its sizes.
      sizes: (plain sizes of a config, classes, the form that it is trained on) -> sizes.
      example: sizes -> inputs of any legal shape, to draw parameters with.
      handle: (sizes, params, form, cut) -> the model in two halves.
      see: (form, batch) -> inputs of the lower half; auxiliaries see no labels, as the form says.
      width: sizes -> width of the middle tokens.
      convert: (path, sizes) -> parameters from a published file; `None` where nothing published is read.
      head: in the path of weights that depend on the classes.
      later: parts of the model that its later stages add.
      unused: classes that published heads have before those of the data set.
      adopt: (sizes, seed, weights, their name) -> parameters to fine-tune from, where it is not all that fits of the
        weights; they are {} where none are given.
      heads: patterns of what VPT trains beside its prompts.
      own: subtree that hard parameter sharing leaves to the task; "" where the task's trunk is not shared.
      block: path of a layer by number, "{}", where the model is a plain transformer.
      frame_labels: keys of the labels that have a row for every frame that the model sees.
      extractor: the task whose trunk makes the features that the small model reads.
      every_frame: whether labels are of frames, where answers are of features.
      base: the task whose small model must be trained before.
      inherit: (drawn parameters, the base's) -> where the training of the small model starts.
      stages: of that training; one of everything where there are none.
      rule: (task, rules of a data set) -> task.
      evaluate: (problem, params, batches, classes) -> metrics; given where the answers for a data set are too large to
        be kept for `task.measure`.
      classifies: whether an answer is one class for the whole video.
      soft_labels: whether labels may be mixed and smoothed.
      drop_path: whether the model can leave branches out in training.
      key_frames: whether every labelled frame is an example of its own.
      weigh: (training batch) -> the same with the weights that the loss of `rule` is a mean with.
      timed: whether labels are in seconds, so that features of videos of several frame rates need one clock.
      guided: whether a frozen part may choose who answers for what in the first steps.
    """

    task: VideoTask
    module: type[nn.Module]
    sizes: Callable[[Mapping[str, Any], int, InputForm], Sizes]
    example: Callable[[Sizes], tuple[Any, ...]]
    handle: Callable[[Sizes, PyTree, InputForm, Cut], VideoBackbone]
    see: Callable[[InputForm, Batch], Any]
    width: Callable[[Sizes], int] = attrgetter("width")
    convert: Callable[[str, Sizes], PyTree] | None = None
    head: str = "classify"
    later: tuple[str, ...] = ()
    unused: int = 0
    adopt: Callable[[Sizes, int, PyTree, str], PyTree] | None = None
    heads: tuple[str, ...] = ()
    own: str = ""
    block: str = ""
    frame_labels: tuple[str, ...] = ()
    extractor: str = ""
    every_frame: bool = False
    base: str = ""
    inherit: Callable[[PyTree, PyTree], PyTree] = inherit_nothing
    stages: tuple[TrainingStage, ...] = ()
    rule: Callable[[VideoTask, Rules], VideoTask] = unchanged
    evaluate: Callable[[Problem, PyTree, Iterable[Batch], int], dict[str, float]] | None = None
    classifies: bool = False
    soft_labels: bool = False
    drop_path: bool = False
    key_frames: bool = False
    weigh: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]] | None = None
    timed: bool = False
    guided: bool = False

    @property
    def name(self) -> str:
        """Return the name of the task."""
        return self.task.name

    def draw(self, sizes: Sizes, seed: int) -> PyTree:
        """Draw the parameters of a model."""
        return draw(self.module(sizes), self.example(sizes), seed)

    def start(self, sizes: Sizes, seed: int, weights: str = "") -> PyTree:
        """Return the parameters that fine-tuning starts from.

        Args:
          sizes: of the model.
          seed: draws what the weights do not have.
          weights: path of a model file of ours or of a published one; "" for none.

        Raises:
          UserError: weights that cannot be read, or do not fit.
        """
        return self.place(sizes, seed, self.read(weights, sizes) if weights else {}, weights)

    def place(self, sizes: Sizes, seed: int, given: PyTree, name: str) -> PyTree:
        """Return drawn parameters with what fits of weights in their place; the name is for messages."""
        if self.adopt:
            return self.adopt(sizes, seed, given, name)
        return adopt(self.draw(sizes, seed), given, name, head=self.head, later=self.later, unused=self.unused)

    def read(self, weights: str, sizes: Sizes) -> PyTree:
        """Return the weights of a file, ours or a published one."""
        if has_card(weights):
            return read_model(weights).params
        if self.convert is None:
            raise UserError(
                f"No published weights are read for {self.name}, and {weights!r} is no model file with a card beside "
                "it; give one that configs/video_full.py trained, or leave config.weights empty."
            )
        return self.convert(weights, sizes)

    def view(
        self, sizes: Sizes, params: PyTree, form: InputForm, *, cut: Cut = IN_HALF, extractor: Extractor | None = None
    ) -> View:
        """Return a model with the form in which it sees a video.

        Args:
          sizes, params: of the model.
          form: see there.
          cut: see there.
          extractor: of a model of features, where batches bring frames or features without a mask.
        """
        spec = {"frames": form.frames, "pixels": form.pixels, "boxes": form.boxes}
        model = self.handle(sizes, params, form, cut)
        if extractor is None:
            return View(model, partial(self.see, form), spec)
        repeat = extractor.sizes.tubelet if self.every_frame else 1
        whole = featured.on_features(model, extractor.sizes, extractor.trunk, repeat, given=extractor.given)
        return View(whole, given_features if extractor.given else form.video, spec)

    def layer_above(self, backbone: VideoBackbone) -> str | None:
        """Return the path of the layer above the middle of a transformer, `None` for a model of another kind."""
        return self.block.format(backbone.middle) if self.block else None


def given_features(batch: Batch) -> Array:
    """Return features that a batch brings, none of which is padding."""
    features: Array = batch["features"]
    return features


def features_with_mask(form: InputForm, batch: Batch) -> dict[str, Array]:
    """Return what a model of features sees of a batch of padded sequences."""
    return {"features": batch["features"], "mask": batch["mask"]}


def feature_example(sizes: Sizes) -> tuple[Array, Array]:
    """Return a sequence of features and its mask, long enough for every pyramid."""
    return jnp.zeros((1, 32, sizes.inputs)), jnp.ones((1, 32), bool)
