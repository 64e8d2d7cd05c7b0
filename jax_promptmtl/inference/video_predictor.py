"""Prediction on videos from the work directory of a video or fine-tuning job on action recognition.

A fine-tuned model is a self-contained file. The double-layer mapper computes prompts per video, so it needs all the
frozen models of its training: the package's own, or those of the files that the config names. Their mean over the
training videos, which the job saves as prompts_<row>.safetensors, needs the primary alone.
"""

import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.core.files import read_json
from jax_promptmtl.core.hashes import weights_sha256
from jax_promptmtl.core.outline import outline
from jax_promptmtl.data import prompt_file
from jax_promptmtl.data.icons import moving_icons
from jax_promptmtl.data.videos import folders, video_file
from jax_promptmtl.data.videos.sampling import Sampling, numbers, require_length, resize
from jax_promptmtl.engine import checkpoint
from jax_promptmtl.inference.prediction import Failed, Prediction, read_batch
from jax_promptmtl.methods.make import make_method
from jax_promptmtl.models.video.form import InputForm
from jax_promptmtl.models.video.middle import Cut
from jax_promptmtl.models.video.model_file import SUFFIX, read_model
from jax_promptmtl.models.video.view import View
from jax_promptmtl.problems import video_mtl
from jax_promptmtl.problems.video_tasks import SPECS, files, icons
from jax_promptmtl.problems.video_tasks.spec import Sight, VideoTaskSpec

PyTree = Any
BATCH = 8  # videos per batch
ROW = "dlm"
PROMPTS = "prompts_"  # before the name of a row, of its saved prompts


@dataclass(frozen=True)
class VideoPredictor:
    """Classifies videos.

    Attributes:
      classes: {task: class names} with a single task.
      sampling: how frames are sampled from a video.
      logits: uint8[B, L, H, W, 3] -> float[B, C].
    """

    classes: Mapping[str, tuple[str, ...]]
    sampling: Sampling
    logits: Callable[[np.ndarray], jax.Array]
    __repr__ = outline
    unit = "clip"
    batch = BATCH

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the task names."""
        return tuple(self.classes)

    def choose(self, task: str | None) -> str:
        """Resolve an optional task name."""
        return pick(task or self.tasks[0], self.tasks, "task")

    @staticmethod
    def listing(folder: str) -> tuple[list[str], str]:
        """Return the paths of videos and folders of frames below a folder, and a remark on other files."""
        found = folders.listing(folder)
        return list(found.videos), folders.spell(found.passed, folder)

    def predict(self, videos: str | pathlib.Path | Sequence[str | pathlib.Path], task: str | None = None) -> Prediction:
        """Return classes and probabilities of videos.

        Args:
          videos: one or many paths, of files or of folders of frames.
          task: optional, as there is only one.

        Raises:
          UserError: a video that cannot be read or is too short, or an unknown task.
        """
        task = self.choose(task)
        paths = [videos] if isinstance(videos, str | pathlib.Path) else list(videos)
        parts = [part.logits for part in self.stream([str(path) for path in paths], task)]
        return Prediction(task, self.classes[task], np.concatenate([np.zeros((0, len(self.classes[task]))), *parts]))

    def stream(
        self, videos: Sequence[str], task: str | None = None, failed: Failed | None = None
    ) -> Iterator[Prediction]:
        """Yield the predictions in small batches; see `predict`, and `read_batch` for `failed`."""
        task = self.choose(task)
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(videos), BATCH):
                views = read_batch(pool, self.views, videos[start : start + BATCH], start, failed)
                if not views:
                    continue
                scores = jax.nn.log_softmax(np.asarray(self.logits(np.concatenate(views)), np.float32))
                means = average(scores.reshape(len(views), -1, scores.shape[-1]))
                yield Prediction(task, self.classes[task], np.asarray(means))

    def views(self, video: str) -> np.ndarray:
        """Return the test-time views of a video, uint8[V, L, size, size, 3]."""
        sampling, count = self.sampling, video_file.length(video)
        require_length(count, sampling, video)
        places = np.linspace(0, 1, sampling.crops) if sampling.crops > 1 else [0.5]
        shown = [video_file.frames(video, numbers(count, sampling, clip=clip)) for clip in range(sampling.clips)]
        return np.stack([resize(frames, sampling, None, False, place) for frames in shown for place in places])


def average(scores: jax.Array) -> jax.Array:
    """Average probabilities over views in log space: float[B, V, C] -> float[B, C].

    >>> bool(abs(average(np.log([[[0.2, 0.8], [0.6, 0.4]]])) - np.log([0.4, 0.6])).max() < 1e-6)
    True
    """
    mean: jax.Array = jax.nn.logsumexp(scores, axis=1) - np.log(scores.shape[1])
    return mean


def load_finetuned(home: pathlib.Path) -> VideoPredictor:
    """Load the model of a fine-tuning job."""
    cards = sorted((home / "models").glob("*.json"))
    if not cards:
        raise UserError(f"{str(home)!r} holds no trained model (no models/*.json); train to the end first.")
    card = read_json(cards[0])
    spec = classifier_of(home, card.get("kind"))
    params = read_model(cards[0].with_suffix(SUFFIX)).params
    sampling, classes = Sampling(**card["config"]["sampling"]), tuple(card["classes"])
    form = InputForm(sampling.frames, (sampling.size, sampling.size))
    view = spec.view(spec.sizes(card["config"]["model"], len(classes), form), params, form)

    @jax.jit
    def run(params: PyTree, frames: np.ndarray) -> jax.Array:
        state = view.backbone.lower(params, view.adapt({"frames": frames}))
        logits: jax.Array = view.backbone.upper(params, state, None)
        return logits

    return VideoPredictor({spec.name: classes}, sampling, partial(run, jax.device_put(params)))


def load_prompted(home: pathlib.Path) -> VideoPredictor:
    """Load a frozen model with the trained mapper of a video job, which looks at every clip."""
    config, params, meta = trained(home, ROW)
    if meta["config"]["prompt_mode"] != "dynamic":
        raise UserError(
            f"{str(home)!r} was trained with one set of prompts per batch; give its saved ones, "
            f"{str(home / f'{PROMPTS}{ROW}{SUFFIX}')!r}."
        )
    primary = open_primary(home, config, meta)
    names = meta["about"]["aux"]
    aux = (aux_files if "data" in config else aux_icons)(primary, names, config, meta)
    return ready(primary, aux, meta["config"]["method"], params["method"])


def load_static(path: pathlib.Path) -> VideoPredictor:
    """Load a frozen model with the prompts that a video job saved, prompts_<row>.safetensors; it needs no auxiliary.

    Raises:
      UserError: no such prompts, or the model of their training is not there any more.
    """
    home, row = path.parent, path.stem.removeprefix(PROMPTS)
    config, _, meta = trained(home, row)
    primary = open_primary(home, config, meta)
    backbone = primary.view.backbone
    saved = path.with_suffix("")
    prompts, _ = prompt_file.load(saved, middle=backbone.middle, dim=backbone.dim, task=primary.spec.name)
    return ready(primary, {}, {"name": "middle_prompts", "num_prompts": len(prompts)}, {"tokens": prompts})


def trained(home: pathlib.Path, row: str) -> tuple[Mapping[str, Any], PyTree, Mapping[str, Any]]:
    """Return the config of a video job, and parameters and description of the checkpoint of a row."""
    folder = home / "checkpoints" / row
    if not folder.is_dir():
        raise UserError(f"{str(home)!r} holds no trained mapper (no checkpoints/{row}); train the row {row!r} first.")
    return read_json(home / "config.json"), *checkpoint.read(folder)


@dataclass(frozen=True)
class Primary:
    """A frozen classifier: its task, how it sees videos, and the names of its answers."""

    spec: VideoTaskSpec
    view: View
    sampling: Sampling
    classes: tuple[str, ...]


def open_primary(home: pathlib.Path, config: Mapping[str, Any], meta: Mapping[str, Any]) -> Primary:
    """Return the primary of a run, cut where its prompts enter.

    Args:
      home: of the run.
      config: of the run.
      meta: of the checkpoint.

    Raises:
      UserError: a task without classes, or other weights than those of the training.
    """
    spec = classifier_of(home, config["task"])
    cut = Cut(config.get("cut") or None, config["drop_after"])  # runs before it was an option have no cut
    if "data" in config:
        sampling, classes = Sampling(**config["sampling"]), tuple(meta["about"]["classes"])
        example = {"frames": np.zeros((1, sampling.frames, *sampling.shape, 3), np.uint8)}
        view = files.open_primary(spec, classes, config, example).view(auxiliary=False, cut=cut)
    else:
        count, weights = icons.frames_of(spec.name), icons.load(config["models"], (spec.name,))
        sampling, classes = Sampling(frames=count, size=icons.SIDE, short="repeat"), moving_icons.classes(spec.name)
        view = icons.view(spec.name, weights, count, Sight(middle=cut.middle, drop_after=cut.drop_after))
    if weights_sha256(view.backbone.params) != meta["about"]["backbone"]["sha256"]:
        raise UserError(
            f"{str(home)!r} was trained with another {spec.name} model than that of its config; restore it."
        )
    return Primary(spec, view, sampling, classes)


def aux_icons(
    primary: Primary, names: Sequence[str], config: Mapping[str, Any], meta: Mapping[str, Any]
) -> dict[str, View]:
    """Return the auxiliaries of a run on moving icons."""
    weights, count = icons.load(config["models"], tuple(names)), icons.frames_of(primary.spec.name)
    return {name: icons.view(name, weights, count, Sight(auxiliary=True)) for name in names}


def aux_files(
    primary: Primary, names: Sequence[str], config: Mapping[str, Any], meta: Mapping[str, Any]
) -> dict[str, View]:
    """Return the auxiliaries of a run on files.

    Raises:
      UserError: other weights than those of the training.
    """
    shape = primary.sampling.shape
    models = {name: files.open_auxiliary(SPECS, name, config["aux"][name], shape) for name in names}
    for name, model in models.items():
        if weights_sha256(model.params) != meta["about"]["aux_sha256"][name]:
            raise UserError(f"The auxiliary {name!r} is not the model of the training; restore its weights.")
    return {name: model.view(auxiliary=True) for name, model in models.items()}


def ready(primary: Primary, aux: Mapping[str, View], method: Mapping[str, Any], params: PyTree) -> VideoPredictor:
    """Return the predictor of a primary with a method and its parameters."""
    sizes = video_mtl.method_sizes(primary.view.backbone, {name: view.backbone for name, view in aux.items()})
    pipeline = video_mtl.Pipeline(primary.view, aux, primary.spec.task, make_method(method, sizes))
    problem = video_mtl.build(pipeline, example={}, initial=params)
    run = jax.jit(lambda params, frozen, batch: pipeline.outputs(params, frozen, batch)[0])

    def logits(frames: np.ndarray) -> jax.Array:
        batch = {"frames": frames, "weight": np.ones(len(frames), np.float32)}
        logits: jax.Array = run(problem.params, problem.frozen, batch)
        return logits

    return VideoPredictor({primary.spec.name: primary.classes}, primary.sampling, logits)


def classifier_of(home: pathlib.Path, task: str | None) -> VideoTaskSpec:
    """Return the trained task; refuse tasks that do not classify whole videos."""
    able = [name for name, spec in SPECS.items() if spec.classifies]
    if task not in able:
        raise UserError(
            f"What was trained in {str(home)!r} is for {task or 'an unknown task'}; only {' and '.join(able)} predicts."
        )
    return SPECS[task]


JOBS: Mapping[str, Callable[[pathlib.Path], VideoPredictor]] = {"finetune": load_finetuned, "video": load_prompted}
