"""Video models from files: published by upstreams, trained by `configs/video_full.py`, or shipped with the package.

A file of ours has a card with its sizes; for others the sizes come from the config.
"""

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.core.files import ASSETS, read_json
from jax_promptmtl.models.video.form import Features, InputForm
from jax_promptmtl.models.video.middle import IN_HALF, Cut
from jax_promptmtl.models.video.model_file import SUFFIX, has_card
from jax_promptmtl.models.video.pixels import PIXELS
from jax_promptmtl.models.video.view import View
from jax_promptmtl.problems.video_tasks.spec import Extractor, Sizes, VideoTaskSpec

PyTree = Any
Section = Mapping[str, Any]
Specs = Mapping[str, VideoTaskSpec]
Batch = Mapping[str, Any]
PACKAGE = "package:"  # prefix of the models shipped with the package


@dataclass(frozen=True)
class FileModel:
    """A frozen model and the input form that it was trained on.

    Attributes:
      spec: its task.
      sizes, params: of the model.
      form: of its input.
      extractor: computes its features, where it reads features but batches hold frames.
    """

    spec: VideoTaskSpec
    sizes: Sizes
    params: PyTree
    form: InputForm
    extractor: Extractor | None = None

    def view(self, *, auxiliary: bool, cut: Cut = IN_HALF) -> View:
        """Return its view as primary or as auxiliary, which sees no labels."""
        form = replace(self.form, boxes=not auxiliary)
        return self.spec.view(self.sizes, self.params, form, cut=cut, extractor=self.extractor)

    def count(self) -> int:
        """Return the number of its parameters, including the extractor's."""
        return tree.count(self.params) + (tree.count(self.extractor.trunk) if self.extractor else 0)


def place_of(weights: str) -> str:
    """Resolve a path of weights; "package:recognition" is a small model shipped with the package.

    >>> place_of("a.pth")
    'a.pth'
    """
    if not weights.startswith(PACKAGE):
        return weights
    name = weights.removeprefix(PACKAGE)
    names = [file.stem for file in (ASSETS / "video").glob(f"*{SUFFIX}")]
    return str(ASSETS / "video" / f"{pick(name, names, 'model of the package')}{SUFFIX}")


def card_of(weights: str) -> Mapping[str, Any]:
    """Return the card of a model file of ours, {} of other weights."""
    path = place_of(weights)
    return read_json(pathlib.Path(path).with_suffix(".json")) if has_card(path) else {}


def plain_sizes(section: Section, card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sizes from the card, else from the config."""
    trained = card.get("config", {})
    return constant(trained["model"] if "model" in trained else section["model"])


def constant(sizes: Section) -> dict[str, Any]:
    """Return sizes with tuples where JSON has lists, as sizes of models are keys of what is compiled.

    >>> constant({"resnet": {"depths": [3, 4]}, "width": 8})
    {'resnet': {'depths': (3, 4)}, 'width': 8}
    """

    def hashable(value: Any) -> Any:
        return constant(value) if isinstance(value, Mapping) else tuple(value) if isinstance(value, list) else value

    return {key: hashable(value) for key, value in sizes.items()}


def form_of(config: Section, batch: Batch) -> InputForm:
    """Return the input form of a batch of videos or features.

    Args:
      config: of a job on files; reads `feature` for data sets of features.
      batch: any batch, of which only shapes are read.
    """
    if "features" not in batch:
        frames, *size = batch["frames"].shape[1:4]
        return InputForm(frames, (size[0], size[1]))
    steps, channels = batch["features"].shape[1:]
    rate = config["feature"]["rate"]
    middle = config["feature"]["window"] / 2 / rate  # half of its window of frames
    times = (config["feature"]["stride"] / rate, middle)
    return InputForm(0, (0, 0), features=Features(steps, channels, *times))


def sizes_of(spec: VideoTaskSpec, classes: int, config: Section, batch: Batch) -> Sizes:
    """Return the sizes of a data set's model, with positions for the videos that it is trained on."""
    side = config["sampling"]["size"]
    trained = replace(form_of(config, batch), frames=config["sampling"]["frames"], size=(side, side))
    return spec.sizes(config["model"], classes, trained)


def open_primary(
    spec: VideoTaskSpec, classes: Sequence[str], config: Section, batch: Batch, *, drawn: bool = False
) -> FileModel:
    """Load the frozen primary of a data set.

    Args:
      spec: of its task.
      classes: names of the data set's classes.
      config: of the job: `primary`, `model`, `sampling`, `feature`.
      batch: any batch of the data set, of which only shapes are read.
      drawn: allow random weights where none are given, for a dry run.

    Raises:
      UserError: see `read_primary`; or a card with other classes, or the same in another order.
    """
    section = config["primary"]
    card = card_of(section["weights"]) if section["weights"] else {}
    known = tuple(card.get("classes", classes))
    if known != tuple(classes):
        odd = next(
            (pair for pair in zip(known, classes, strict=False) if pair[0] != pair[1]), (len(known), len(classes))
        )
        raise UserError(
            f"The model {section['weights']!r} knows other classes than the data, first {odd[0]!r} where the data has "
            f"{odd[1]!r}; give the model that was fine-tuned on this data."
        )
    sized = {**config, "model": plain_sizes({"model": config["model"]}, card)}
    sizes = sizes_of(spec, len(classes), sized, batch)
    form = replace(form_of(config, batch), pixels=pick(section["pixels"], PIXELS, "pixels"))
    if config["sampling"]["tested"]:  # test videos are longer
        form = replace(form, frames=0)
    if form.features:  # so are theirs
        form = replace(form, features=replace(form.features, steps=0))
    return FileModel(spec, sizes, read_primary(spec, sizes, section["weights"], drawn=drawn), form)


def read_primary(spec: VideoTaskSpec, sizes: Sizes, weights: str, *, drawn: bool = False) -> PyTree:
    """Return the weights of a primary, with a head for the classes of its data.

    Args:
      spec: of its task.
      sizes: of the model.
      weights: path, or a name of the package.
      drawn: return random parameters where no weights are given, for a dry run.

    Raises:
      UserError: no weights, weights of other sizes, or a head for other classes, which a frozen model cannot learn.
    """
    if not weights:
        if drawn:
            return spec.draw(sizes, 0)
        raise UserError("A frozen primary needs weights; give --config.primary.weights, a file of a trained model.")
    path = place_of(weights)
    given, wanted = spec.read(path, sizes), jax.eval_shape(lambda: spec.draw(sizes, 0))
    if not tree.describe_difference(wanted, given):
        return given
    fresh = spec.draw(sizes, 0)
    found = spec.place(sizes, 0, given, path)
    if unknown := same_leaves(found, fresh):
        raise UserError(
            f"The weights {weights!r} have no {unknown[0]!r} for these classes, and a frozen primary must know them; "
            "fine-tune them first with configs/video_full.py, and give the model that it writes."
        )
    return found


def same_leaves(found: PyTree, drawn: PyTree) -> list[str]:
    """Return the paths of matrices that are unchanged from their random initialisation.

    >>> same_leaves({"a": np.eye(2), "b": np.ones((2, 2))}, {"a": np.eye(2), "b": np.zeros((2, 2))})
    ['a']
    """
    fresh = tree.flatten(drawn)
    return [
        path
        for path, leaf in tree.flatten(found).items()
        if np.ndim(leaf) > 1 and path in fresh and np.array_equal(leaf, fresh[path])
    ]


def open_auxiliary(specs: Specs, name: str, section: Section, size: tuple[int, int]) -> FileModel:
    """Read an auxiliary.

    Args:
      specs: the registry of tasks.
      name: of it, for messages.
      section: of the config: `task`, `weights`, `model`, `frames`, `size` (0 for that of the primary's frames),
        `pixels`, `extractor` with its own `weights`, `model`, `frames` and `size`.
      size: rows and columns of the primary's frames.

    Raises:
      UserError: weights that cannot be read, or a model of features without an extractor.
    """
    spec, card = specs[pick(section["task"], specs, f"task of the auxiliary {name!r}")], card_of(section["weights"])
    side = section["size"]
    form = InputForm(section["frames"], (side, side) if side else size, pick(section["pixels"], PIXELS, "pixels"))
    extractor = None
    if spec.extractor:
        extractor, form = open_extractor(name, specs[spec.extractor], section["extractor"], form)
    sizes = spec.sizes(plain_sizes(section, card), max(len(card.get("classes", ())), 1), trained(form, card))
    params = spec.read(place_of(section["weights"]), sizes)
    if "model" in params and "trunk" in params:  # a model of features that was saved with its extractor
        params = params["model"]
    return FileModel(spec, sizes, params, form, extractor)


def trained(form: InputForm, card: Mapping[str, Any]) -> InputForm:
    """Return the input form from a model's card, which sizes a transformer's position table."""
    sampling = card.get("config", {}).get("sampling")
    if not sampling:
        return form
    return replace(form, frames=sampling["frames"], size=(sampling["size"], sampling["size"]))


def open_extractor(name: str, spec: VideoTaskSpec, section: Section, form: InputForm) -> tuple[Extractor, InputForm]:
    """Return the vision transformer that makes an auxiliary's features, and the form of what it sees."""
    if not section["weights"]:
        raise UserError(
            f"The auxiliary {name!r} reads features; give --config.aux.{name}.extractor.weights, the VideoMAE whose "
            "features it was trained on."
        )
    side, frames = section["size"], section["frames"]
    seen = replace(form, frames=frames, size=(side, side))
    sizes = spec.sizes(plain_sizes(section, card_of(section["weights"])), 1, seen)
    trunk = spec.read(place_of(section["weights"]), sizes)["trunk"]
    steps = frames // sizes.tubelet
    return Extractor(sizes, trunk), replace(seen, features=Features(steps, sizes.width, float(sizes.tubelet)))
