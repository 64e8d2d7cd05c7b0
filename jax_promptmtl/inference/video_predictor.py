"""Prediction on videos from the work directory of a video or fine-tuning job on action recognition.

A fine-tuned model is a self-contained file. The double-layer mapper computes prompts per video, so it needs all the
frozen models of its training: the package's own, or those in the folder that the config names.
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
from jax_promptmtl.problems.video_tasks.icons import Sight
from jax_promptmtl.problems.video_tasks.spec import VideoTaskSpec

PyTree = Any
BATCH = 8  # videos per batch
ROW = "dlm"


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
    """Load a frozen model with the trained mapper of a video job."""
    config = read_json(home / "config.json")
    spec = classifier_of(home, config["task"])
    folder = home / "checkpoints" / ROW
    if not folder.is_dir():
        raise UserError(f"{str(home)!r} holds no trained mapper (no checkpoints/{ROW}); train the row {ROW!r} first.")
    params, meta = checkpoint.read(folder)
    if meta["config"]["prompt_mode"] != "dynamic":
        raise UserError(
            f"{str(home)!r} was trained with one set of prompts per batch; give a run with dynamic prompts."
        )
    pipeline, sampling, classes = (prompted_files if "data" in config else prompted_icons)(spec, config, meta)
    if weights_sha256(pipeline.primary.backbone.params) != meta["about"]["backbone"]["sha256"]:
        raise UserError(
            f"{str(home)!r} was trained with another {spec.name} model than that of its config; restore it."
        )
    problem = video_mtl.build(pipeline, example={}, initial=params["method"])
    run = jax.jit(lambda params, frozen, batch: pipeline.outputs(params, frozen, batch)[0])

    def logits(frames: np.ndarray) -> jax.Array:
        batch = {"frames": frames, "weight": np.ones(len(frames), np.float32)}
        logits: jax.Array = run(problem.params, problem.frozen, batch)
        return logits

    return VideoPredictor({spec.name: classes}, sampling, logits)


Prompted = tuple[video_mtl.Pipeline, Sampling, tuple[str, ...]]  # how to answer, see videos and name the answers


def prompted_icons(spec: VideoTaskSpec, config: Mapping[str, Any], meta: Mapping[str, Any]) -> Prompted:
    """Load the trained pipeline of a run on moving icons.

    Args:
      spec: of the primary.
      config: of the run.
      meta: of the checkpoint.
    """
    names, count = meta["about"]["aux"], icons.frames_of(spec.name)
    weights = icons.load(config["models"], (spec.name, *names))
    cut = config.get("cut") or None  # absent from runs older than the option
    primary = icons.view(spec.name, weights, count, Sight(middle=cut, drop_after=config["drop_after"]))
    aux = {name: icons.view(name, weights, count, Sight(auxiliary=True)) for name in names}
    sampling = Sampling(frames=count, size=icons.SIDE, short="repeat")
    return join(spec, primary, aux, meta), sampling, moving_icons.classes(spec.name)


def prompted_files(spec: VideoTaskSpec, config: Mapping[str, Any], meta: Mapping[str, Any]) -> Prompted:
    """Load the trained pipeline of a run on files; see `prompted_icons`."""
    sampling, classes = Sampling(**config["sampling"]), tuple(meta["about"]["classes"])
    example = {"frames": np.zeros((1, sampling.frames, *sampling.shape, 3), np.uint8)}
    model = files.open_primary(spec, classes, config, example)
    names = meta["about"]["aux"]
    others = {name: files.open_auxiliary(name, config["aux"][name], sampling.shape) for name in names}
    for name, sha in meta["about"]["aux_sha256"].items():
        if name in others and weights_sha256(others[name].params) != sha:
            raise UserError(f"The auxiliary {name!r} is not the model of the training; restore its weights.")
    primary = model.view(auxiliary=False, cut=Cut(config["cut"] or None, config["drop_after"]))
    aux = {name: other.view(auxiliary=True) for name, other in others.items()}
    return join(spec, primary, aux, meta), sampling, classes


def join(spec: VideoTaskSpec, primary: View, aux: Mapping[str, View], meta: Mapping[str, Any]) -> video_mtl.Pipeline:
    """Join frozen models and a checkpoint's method into a pipeline."""
    sizes = video_mtl.method_sizes(primary.backbone, {name: view.backbone for name, view in aux.items()})
    return video_mtl.Pipeline(primary, aux, spec.task, make_method(meta["config"]["method"], sizes))


def classifier_of(home: pathlib.Path, task: str | None) -> VideoTaskSpec:
    """Return the trained task; refuse tasks that do not classify whole videos."""
    able = [name for name, spec in SPECS.items() if spec.classifies]
    if task not in able:
        raise UserError(
            f"What was trained in {str(home)!r} is for {task or 'an unknown task'}; only {' and '.join(able)} predicts."
        )
    return SPECS[task]


JOBS: Mapping[str, Callable[[pathlib.Path], VideoPredictor]] = {"finetune": load_finetuned, "video": load_prompted}
