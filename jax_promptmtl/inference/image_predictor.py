"""Prediction on images from a work directory or an exported folder, without the training data.

    model = jax_promptmtl.load("runs/mmap")
    answer = model.predict(["bell.png", "car.png"], task="line")
    answer.labels, answer.probabilities

Everything comes from the checkpoint: classes, template, preprocessing, prompts, and which backbone it belongs to.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from PIL import Image

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError, pick, some
from jax_promptmtl.core.files import read_json
from jax_promptmtl.core.outline import outline
from jax_promptmtl.core.problem import Problem
from jax_promptmtl.data import images
from jax_promptmtl.data.listing import count as number_of
from jax_promptmtl.data.listing import listing
from jax_promptmtl.data.preprocess import Preprocess
from jax_promptmtl.data.source import ArraySource, Suite, Task
from jax_promptmtl.engine import checkpoint
from jax_promptmtl.engine.parallel import pad
from jax_promptmtl.inference.prediction import Failed, Prediction, read_batch
from jax_promptmtl.methods import sharing
from jax_promptmtl.models.clip.load import load as load_backbone
from jax_promptmtl.models.clip.model import Backbone
from jax_promptmtl.problems import clip_mtl

PyTree = Any
Picture = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
BATCH = 64  # largest batch; smaller ones are padded to the next power of two, so that few shapes are compiled
SCHEMA = 1  # of an exported folder
NOTHING = ArraySource(np.zeros((0, 1, 1, 3), np.uint8), np.zeros(0, np.int32), ())  # prediction reads no data
PROMPTS, CONFIG = "prompts.safetensors", "config.json"


@dataclass(frozen=True)
class Head:
    """One task: its problem, and its prepared state, such as class features."""

    problem: Problem
    prepared: PyTree
    __repr__ = outline


class Predictor:
    """Classifies images of the trained tasks.

    Attributes:
      classes: {task: class names}.
      meta: metadata of the checkpoint.
      trained: {path: array} of the trained parameters.
      backbone: the CLIP that they were trained with.
      preprocess: picture -> float32[size, size, 3], as the backbone expects.
      reading: from files to pictures; with other `pixels`, larger files are read.
    """

    unit = "image"
    batch = BATCH

    def __init__(
        self,
        meta: Mapping[str, Any],
        trained: Mapping[str, np.ndarray],
        backbone: Backbone,
        classes: Sequence[str] | None = None,
    ):
        """Place the backbone on the device; `classes` replace those of every task."""
        about = meta["about"]
        self.meta, self.trained = meta, trained
        self.classes = {task: tuple(classes or names) for task, names in about["class_names"].items()}
        self.backbone = dataclasses.replace(backbone, params=jax.device_put(backbone.params))
        self.preprocess = Preprocess(**about["preprocess"])
        self.reading = self.preprocess.reading
        self._heads: dict[str, Head] = {}
        self._compiled: dict[int, Any] = {}

    def __repr__(self) -> str:
        """Return method, backbone and tasks."""
        tasks = ", ".join(f"{task} ({len(names)} classes)" for task, names in self.classes.items())
        return f"{type(self).__name__} of {self.meta['config']['method']['name']} on {self.backbone.name}: {tasks}"

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the task names."""
        return tuple(self.classes)

    def predict(self, images: Picture | Iterable[Picture], task: str | None = None) -> Prediction:
        """Return classes and probabilities of images.

        Args:
          images: one or many: paths, encoded bytes, Pillow images, or uint8[H, W, 3] RGB arrays of any size; for other
            arrays see `from_array` in `data.images`.
          task: one of `tasks`; may be left out if there is only one.

        Raises:
          UserError: an image that cannot be read, or a task that is missing or unknown.
        """
        task = self.choose(task)
        parts = [part.logits for part in self.stream(many(images), task)]
        empty = np.zeros((0, len(self.classes[task])), np.float32)
        return Prediction(task, self.classes[task], np.concatenate([empty, *parts]))

    def stream(
        self, images: Sequence[Picture], task: str | None = None, failed: Failed | None = None
    ) -> Iterator[Prediction]:
        """Yield the predictions of at most 64 images at a time; see `predict`, and `read_batch` for `failed`."""
        task = self.choose(task)
        with ThreadPoolExecutor() as pool:  # threads suffice: Pillow releases the GIL while decoding
            for start in range(0, len(images), BATCH):
                pixels = read_batch(pool, self.pixels, images[start : start + BATCH], start, failed)
                if pixels:
                    yield Prediction(task, self.classes[task], self.logits(np.stack(pixels), task))

    def choose(self, task: str | None) -> str:
        """Resolve an optional task name."""
        if task is None and len(self.tasks) > 1:
            raise UserError(f"There are {len(self.tasks)} tasks; say which one is meant: {', '.join(self.tasks)}.")
        return pick(task or self.tasks[0], self.tasks, "task")

    @staticmethod
    def listing(folder: str) -> tuple[list[str], str]:
        """Return the paths of the images below a folder, and a remark on other files."""
        found = listing(folder)
        others = f"{number_of(len(found.passed), 'file')} passed over: {some(found.passed)}" if found.passed else ""
        return [str(pathlib.Path(folder) / name) for name in found.sizes], others

    def pixels(self, image: Picture) -> np.ndarray:
        """Return an image as the backbone expects it, float32[size, size, 3]."""
        if isinstance(image, np.ndarray):
            return self.preprocess.evaluate(images.from_array(image, self.reading))
        if isinstance(image, Image.Image):
            name = getattr(image, "filename", "") or "a Pillow image"
            with images.guarded(name):
                pixels = images.to_rgb(image, name, self.reading)
            return self.preprocess.evaluate(pixels)
        with images.decoded(image, reading=self.reading) as pixels:
            return self.preprocess.evaluate(pixels)

    def logits(self, pixels: np.ndarray, task: str) -> np.ndarray:
        """Return float32[B, C] of preprocessed images float32[B, size, size, 3]."""
        head, size = self.head(task), 1 << (len(pixels) - 1).bit_length()
        rows = {"image": pixels, "task": np.zeros(len(pixels), np.int32), "weight": np.ones(len(pixels), np.float32)}
        # Tasks with equally many classes share a compiled program: all else is an argument.
        predict = self._compiled.setdefault(len(self.classes[task]), jax.jit(head.problem.predict))
        frozen = {key: head.problem.frozen[key] for key in ("backbone", "method")}
        return np.asarray(predict(head.prepared, frozen, pad(rows, size)))[: len(pixels)]

    def head(self, task: str) -> Head:
        """Return a task's problem with its class features, computed on first use."""
        if task not in self._heads:
            problem = self.problem(task)
            prepare = jax.jit(lambda params, frozen: problem.prepare(problem.expand(params), frozen))
            self._heads[task] = Head(problem, prepare(problem.params, problem.frozen))
        return self._heads[task]

    def problem(self, task: str) -> Problem:
        """Return the problem of one task alone, with its trained parameters."""
        config, about = self.meta["config"], self.meta["about"]
        number = list(self.tasks).index(task)
        vectors = {
            name: sharing.slots(kind, len(self.tasks), about["groups"]) for name, kind in config["sharing"].items()
        }
        options = clip_mtl.Options(
            method=frozen_lists(config["method"]),
            sharing=dict.fromkeys(vectors, "all"),
            tune=config["tune"],
            template=about["template"],
            seed=0,
            groups=((0,),),
            dtype=about["backbone"].get("dtype", "float32"),
            task_gradients=False,
        )
        alone = Suite("saved", (Task(task, self.classes[task], NOTHING, NOTHING),), about["split_hash"])
        problem = clip_mtl.build(alone, self.backbone, options)
        own = {path: rows(path, leaf, vectors, number) for path, leaf in self.trained.items()}
        leaves = tree.flatten(problem.params)
        if difference := tree.describe_difference({path: x for path, x in leaves.items() if x is not None}, own):
            raise UserError(f"The trained parameters do not fit the backbone: {difference}; give that of the training.")
        params = {"method": {}} | tree.unflatten({path: own.get(path) for path in leaves})
        return dataclasses.replace(problem, params=jax.device_put(params))


def rows(path: str, leaf: np.ndarray, vectors: Mapping[str, np.ndarray], task: int) -> np.ndarray:
    """Select the slot [1, ...] that a task reads of a method's leaf; other leaves are unchanged.

    >>> rows("method/group/source", np.array([5, 6]), {"group": np.array([0, 1, 1])}, 2).tolist()
    [6]
    """
    part, name, *_ = path.split("/")
    return leaf[[int(vectors[name][task])]] if part == "method" else leaf


def many(images: Picture | Iterable[Picture]) -> list[Picture]:
    """Return images as a list, one image as a list of one.

    >>> many("a.png"), len(many(np.zeros((4, 5, 3))))
    (['a.png'], 1)
    """
    if isinstance(images, str | os.PathLike[str] | bytes | Image.Image):
        return [images]
    return [images] if isinstance(images, np.ndarray) and images.ndim in (2, 3) else list(images)


def frozen_lists(value: Any) -> Any:
    """Turn the lists of JSON into tuples, as methods' fields are hashable.

    >>> frozen_lists({"sets": ["group", "task"]})
    {'sets': ('group', 'task')}
    """
    if isinstance(value, Mapping):
        return {key: frozen_lists(item) for key, item in value.items()}
    return tuple(map(frozen_lists, value)) if isinstance(value, list) else value


def load(
    place: str | os.PathLike[str], *, classes: Sequence[str] | None = None, backbone: str | None = None
) -> Predictor:
    """Load a predictor for images.

    Args:
      place: a work directory, or a folder that `jax_promptmtl.export` wrote.
      classes: new class names, for zero-shot use of the learned prompts; the trained ones if None.
      backbone: path of the backbone's weights, if they have moved since training.

    Raises:
      UserError: no checkpoint there, or the wrong backbone.
    """
    home = pathlib.Path(place).expanduser()
    if home.is_file():
        raise UserError(f"{str(home)!r} is a file; give the work directory of a training first, then the images.")
    if not home.is_dir():
        raise UserError(f"There is no work directory {str(home)!r}; give one that a training wrote, such as runs/mmap.")
    trained, meta = read_export(home) if (home / PROMPTS).is_file() else read_workdir(home)
    if classes is not None and (not classes or not all(name.strip() for name in classes)):
        raise UserError(f"The class names {list(classes)} are none, or one is empty; give some, such as cat,dog.")
    return Predictor(meta, trained, find_backbone(meta["about"]["backbone"], backbone, home), classes)


def read_workdir(home: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return {path: trained array} and `meta` of the newest checkpoint of a work directory."""
    folder = home / "checkpoints" / "train"
    job = str(read_json(home / CONFIG).get("job")) if (home / CONFIG).is_file() else ""
    if "video" in job or job == "finetune":
        raise UserError(f"{str(home)!r} holds a model of videos; only what was trained for images is read here.")
    if not folder.is_dir():
        raise UserError(
            f"{str(home)!r} holds no trained prompts (no {folder.relative_to(home)}); train first, or give the work "
            "directory of another run."
        )
    params, meta = checkpoint.read(folder)
    if "class_names" not in meta["about"]:
        raise UserError(f"What was trained in {str(home)!r} is no image classifier; give the work directory of one.")
    return {path: leaf for path, leaf in tree.flatten(params).items() if leaf is not None}, meta


def read_export(home: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return {path: trained array} and `meta` of an exported folder."""
    meta = read_json(home / CONFIG)
    if meta.get("schema") != SCHEMA:
        raise UserError(f"{str(home / CONFIG)!r} has schema {meta.get('schema')}; this version reads {SCHEMA}.")
    try:
        leaves = safetensors.numpy.load_file(home / PROMPTS)
        checkpoint.verify(meta, params=tree.unflatten(leaves))
    except (safetensors.SafetensorError, OSError, checkpoint.Damaged) as error:
        raise UserError(f"{str(home / PROMPTS)!r} is damaged ({error}); export it again.") from None
    return leaves, meta


def find_backbone(reference: Mapping[str, str], path: str | None, home: pathlib.Path) -> Backbone:
    """Load the backbone that a checkpoint refers to, and verify its hash."""
    wanted = f"{str(home)!r} was trained on the backbone {reference['name']!r} (sha256 {reference['sha256'][:12]}...)"
    try:
        found = load_backbone(path or reference["name"], reference["activation"], reference.get("tokenizer", ""))
    except UserError as error:
        raise UserError(f"{wanted}, which cannot be loaded: {error} Say where it is with --backbone=PATH.") from None
    if found.sha256 != reference["sha256"]:
        raise UserError(f"{wanted}, not on {found.name!r} ({found.sha256[:12]}...); give that one with --backbone.")
    return found
