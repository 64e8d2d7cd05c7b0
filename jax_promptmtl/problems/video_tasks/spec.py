"""The specification of a video task: its model, inputs, training and scoring.

A task is a module of this folder with a `VideoTaskSpec` and a line in the table of `__init__.py`; no other code
refers to a task by name. Sizes come from configs: the small models of the moving icons and the full-size ones of
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
    """The frozen vision transformer that computes features of videos.

    Attributes:
      sizes: of the transformer.
      trunk: its parameters.
      given: whether batches hold precomputed features.
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
    """Choices of a data set or recipe on training and scoring.

    Attributes:
      scored: classes to evaluate; all if `None`.
      background: classes that form no segments.
      views: number of test views whose scores are averaged.
      soft: whether labels are distributions over classes.
      every: labelled frames per prediction.
      points: sampled points of the mask losses; every cell if 0.
      sizes: of the model, which include its training stage where it has several.
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
    """One stage in the training of a small model.

    Attributes:
      name: of the training.
      tune: patterns of the trained weights.
      stage: of the model, where it has several.
      loss: of the outputs; the task's if `None`.
      epochs: key of `config.train` with the number of epochs.
    """

    name: str
    tune: tuple[str, ...] = (".*",)
    stage: str = ""
    loss: Callable[..., Any] | None = None
    epochs: str = "epochs"


def unchanged(task: VideoTask, rules: Rules) -> VideoTask:
    """Return the task unchanged: data sets have no choices."""
    return task


def inherit_nothing(drawn: PyTree, base: PyTree) -> PyTree:
    """Return the random parameters unchanged: there is no base model."""
    return drawn


@dataclass(frozen=True)
class VideoTaskSpec:
    """A video task, as the rest of the package sees it.

    Attributes:
      task: loss, labels, decoding and metric.
      module: class of the model, constructed from its sizes.
      sizes: (plain sizes of a config, number of classes, training input form) -> config of the model.
      example: sizes -> inputs of any legal shape, for initialisation.
      handle: (sizes, params, form, cut) -> the model in two halves.
      see: (form, batch) -> inputs of the lower half; auxiliaries see no labels, as the form says.
      width: sizes -> width of the middle tokens.
      convert: (path, sizes) -> parameters from a published file; `None` if there is no converter.
      head: substring of the paths of class-dependent weights.
      later: parts of the model that later training stages add.
      unused: leading classes of published heads that no data set has.
      adopt: (sizes, seed, weights or {}, their name) -> parameters to fine-tune from, where that is not simply every
        weight that fits.
      heads: patterns of the weights that VPT trains besides its prompts.
      own: task-specific subtree under hard parameter sharing; "" where the trunk cannot be shared.
      block: path of a layer by number, "{}", where the model is a plain transformer.
      frame_labels: keys of labels with one row per input frame.
      extractor: the task whose trunk computes the small model's features.
      every_frame: whether labels are per frame although predictions are per feature.
      base: the task whose small model must be trained first.
      inherit: (random parameters, the base's) -> initial parameters of the small model.
      stages: of that training; a single one of all weights if empty.
      rule: (task, rules of a data set) -> task.
      evaluate: (problem, params, batches, classes) -> metrics, for predictions too large to be collected for
        `task.measure`.
      classifies: whether it predicts one class for the whole video.
      soft_labels: whether labels may be mixed and smoothed.
      drop_path: whether the model supports drop path.
      key_frames: whether every labelled frame is a separate example.
      weigh: (training batch) -> the batch with the example weights that `rule`'s loss needs.
      timed: whether labels are in seconds, so that videos of different frame rates need a common time step.
      guided: whether a frozen part may match queries to instances in the first steps.
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
        """Initialise a model at random."""
        return draw(self.module(sizes), self.example(sizes), seed)

    def start(self, sizes: Sizes, seed: int, weights: str = "") -> PyTree:
        """Return the parameters that fine-tuning starts from.

        Args:
          sizes: of the model.
          seed: of the parameters that the weights lack.
          weights: path of a model file of ours or of a published one; "" for none.

        Raises:
          UserError: weights that cannot be read, or do not fit.
        """
        return self.place(sizes, seed, self.read(weights, sizes) if weights else {}, weights)

    def place(self, sizes: Sizes, seed: int, given: PyTree, name: str) -> PyTree:
        """Replace random parameters by the weights that fit; `name` is for messages."""
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
        """Return a model with its input form.

        Args:
          sizes, params: of the model.
          form: see there.
          cut: see there.
          extractor: of a model of features, where batches hold frames or features without a mask.
        """
        spec = {"frames": form.frames, "pixels": form.pixels, "boxes": form.boxes}
        model = self.handle(sizes, params, form, cut)
        if extractor is None:
            return View(model, partial(self.see, form), spec)
        repeat = extractor.sizes.tubelet if self.every_frame else 1
        whole = featured.on_features(model, extractor.sizes, extractor.trunk, repeat, given=extractor.given)
        return View(whole, given_features if extractor.given else form.video, spec)

    def layer_above(self, backbone: VideoBackbone) -> str | None:
        """Return the path of the first layer above the split of a transformer; `None` for other models."""
        return self.block.format(backbone.middle) if self.block else None


def given_features(batch: Batch) -> Array:
    """Return a batch's precomputed features, with a mask of no padding."""
    features: Array = batch["features"]
    return features


def features_with_mask(form: InputForm, batch: Batch) -> dict[str, Array]:
    """Return the features and mask of a batch of padded sequences."""
    return {"features": batch["features"], "mask": batch["mask"]}


def feature_example(sizes: Sizes) -> tuple[Array, Array]:
    """Return an example sequence of features and its mask, long enough for any pyramid."""
    return jnp.zeros((1, 32, sizes.inputs)), jnp.ones((1, 32), bool)
