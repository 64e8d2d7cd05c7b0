"""What was trained to recognise actions, ready for videos: from the work directory of a video or fine-tuning job.

A fine-tuned model is a file of its own. Prompts by the double-layer mapper are computed anew for every clip, so they
need all frozen models of their training: those of the package, or of the folder that the config names.
"""

import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from ml_collections import ConfigDict
from safetensors import SafetensorError
from safetensors.numpy import load_file

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.core.files import read_json
from jax_promptmtl.core.hashes import weights_sha256
from jax_promptmtl.data.icons import moving_icons
from jax_promptmtl.data.videos import video_file
from jax_promptmtl.data.videos.sampling import Sampling, numbers, require_length, resize
from jax_promptmtl.engine import checkpoint
from jax_promptmtl.experiments.video import finetune
from jax_promptmtl.inference.prediction import Prediction
from jax_promptmtl.models.video import video_models, videomae
from jax_promptmtl.problems import video_mtl
from jax_promptmtl.tasks import TASKS

BATCH = 8  # clips at a time
TASK, ROW = "recognition", "dlm"


@dataclass(frozen=True)
class ClipPredictor:
    """Answers for videos.

    Attributes:
      classes: {task: class names}, of the only task.
      sampling: how frames are taken out of a video.
      logits: uint8[B, L, H, W, 3] -> float[B, C].
    """

    classes: Mapping[str, tuple[str, ...]]
    sampling: Sampling
    logits: Callable[[np.ndarray], jax.Array]
    unit = "clip"
    batch = BATCH

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the task names."""
        return tuple(self.classes)

    def choose(self, task: str | None) -> str:
        """Return the task that is meant."""
        return pick(task or self.tasks[0], self.tasks, "task")

    @staticmethod
    def listing(folder: str) -> list[str]:
        """Return the paths of the videos below a folder; a folder of frames is one video."""
        return [str(path) for path in video_file.listing(folder)]

    def predict(self, videos: str | pathlib.Path | Sequence[str | pathlib.Path], task: str | None = None) -> Prediction:
        """Return classes and probabilities of videos.

        Args:
          videos: one or many paths, of files or of folders of frames.
          task: may be left out.

        Raises:
          UserError: a video that cannot be read or is too short, or an unknown task.
        """
        task = self.choose(task)
        paths = [videos] if isinstance(videos, str | pathlib.Path) else list(videos)
        parts = [part.logits for part in self.stream([str(path) for path in paths], task)]
        return Prediction(task, self.classes[task], np.concatenate([np.zeros((0, len(self.classes[task]))), *parts]))

    def stream(self, videos: Sequence[str], task: str | None = None) -> Iterator[Prediction]:
        """Yield the predictions of a few videos at a time; see `predict`."""
        task = self.choose(task)
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(videos), BATCH):
                views = list(pool.map(self.views, videos[start : start + BATCH]))
                scores = jax.nn.log_softmax(np.asarray(self.logits(np.concatenate(views)), np.float32))
                means = average(scores.reshape(len(views), -1, scores.shape[-1]))
                yield Prediction(task, self.classes[task], np.asarray(means))

    def views(self, video: str) -> np.ndarray:
        """Return the views of a video that a test has, uint8[V, L, size, size, 3]."""
        sampling, count = self.sampling, video_file.length(video)
        require_length(count, sampling, video)
        places = np.linspace(0, 1, sampling.crops) if sampling.crops > 1 else [0.5]
        shown = [video_file.frames(video, numbers(count, sampling, clip=clip)) for clip in range(sampling.clips)]
        return np.stack([resize(frames, sampling, None, False, place) for frames in shown for place in places])


def average(scores: jax.Array) -> jax.Array:
    """Return the logarithms of the mean probabilities: of log-probabilities float[B, V, C] those float[B, C].

    >>> bool(abs(average(np.log([[[0.2, 0.8], [0.6, 0.4]]])) - np.log([0.4, 0.6])).max() < 1e-6)
    True
    """
    return jax.nn.logsumexp(scores, axis=1) - np.log(scores.shape[1])


def load_finetuned(home: pathlib.Path) -> ClipPredictor:
    """Load the model of a fine-tuning job."""
    cards = sorted((home / "models").glob("*.json"))
    if not cards:
        raise UserError(f"{str(home)!r} holds no trained model (no models/*.json); train to the end first.")
    card, path = read_json(cards[0]), cards[0].with_suffix(".safetensors")
    require_recognition(home, card.get("kind"))
    try:
        params = tree.unflatten(load_file(path))
    except (OSError, SafetensorError) as error:
        raise UserError(f"Cannot read the model {str(path)!r} ({error}); train it again.") from None
    if weights_sha256(params) != card["sha256"]:
        raise UserError(f"The model {str(path)!r} is not what its card says; train it again.")
    config = ConfigDict(card["config"])
    sizes = finetune.trunk_config(len(card["classes"]), config)
    model = videomae.VideoClassifier(sizes)
    run = jax.jit(lambda params, frames: model.apply({"params": params}, finetune.normalised(frames)))
    sampling = Sampling(**card["config"]["sampling"])
    return ClipPredictor({TASK: tuple(card["classes"])}, sampling, partial(run, jax.device_put(params)))


def load_prompted(home: pathlib.Path) -> ClipPredictor:
    """Load a frozen model with the trained mapper of a video job."""
    config = read_json(home / "config.json")
    require_recognition(home, config["task"])
    folder = home / "checkpoints" / ROW
    if not folder.is_dir():
        raise UserError(f"{str(home)!r} holds no trained mapper (no checkpoints/{ROW}); train the row {ROW!r} first.")
    params, meta = checkpoint.read(folder)
    if meta["config"]["prompt_mode"] != "dynamic":
        raise UserError(
            f"{str(home)!r} was trained with one set of prompts per batch; give a run with dynamic prompts."
        )
    names = meta["about"]["aux"]
    weights = video_models.load(config["models"], (TASK, *names))
    if weights_sha256(weights[TASK]) != meta["about"]["backbone"]["sha256"]:
        raise UserError(f"{str(home)!r} was trained with another {TASK} model than that of config.models; restore it.")
    count = video_models.FRAMES[TASK]
    cut = {"middle": config.get("cut") or None, "drop_after": config["drop_after"]}  # runs before it was an option
    primary = video_models.view(TASK, weights, count, **cut)
    aux = {name: video_models.view(name, weights, count, auxiliary=True) for name in names}
    backbones = {name: view.backbone for name, view in aux.items()}
    method = video_mtl.make_method(meta["config"]["method"], primary.backbone, backbones)
    pipeline = video_mtl.Pipeline(primary, aux, TASKS[TASK], method)
    problem = video_mtl.build(pipeline, example={}, initial=params["method"])
    run = jax.jit(lambda params, frozen, batch: pipeline.outputs(params, frozen, batch)[0])

    def logits(frames: np.ndarray) -> jax.Array:
        batch = {"frames": frames, "weight": np.ones(len(frames), np.float32)}
        return run(problem.params, problem.frozen, batch)

    sampling = Sampling(frames=count, size=video_models.VIT.image_size, short="repeat")
    return ClipPredictor({TASK: moving_icons.classes(TASK)}, sampling, logits)


def require_recognition(home: pathlib.Path, task: str | None) -> None:
    """Refuse models of other tasks, whose answers are no classes of whole clips."""
    if task != TASK:
        raise UserError(f"What was trained in {str(home)!r} is for {task or 'an unknown task'}; only {TASK} predicts.")


JOBS: Mapping[str, Callable[[pathlib.Path], ClipPredictor]] = {"finetune": load_finetuned, "video": load_prompted}
